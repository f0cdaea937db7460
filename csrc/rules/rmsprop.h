// RMSprop (Tieleman & Hinton 2012, lecture 6.5): plain, with momentum, centered (Graves 2013), and with both, as in
// torch.optim.RMSprop.
#pragma once

#include "rules/rule.h"

namespace pagedopt {

struct RmsProp : RuleDefaults {
  static constexpr Slot kSlots[] = {{"square_avg", false}};
  static constexpr const char* kNumbers[] = {"alpha", "eps", "momentum"};
  static constexpr int kFiniteSlot = 0;

  template <class Real>
  struct Scalars {
    Real alpha, one_minus_alpha;
    Real eps, momentum;
  };

  template <class Real>
  PAGEDOPT_HD static Scalars<Real> scalars(const Hyper& hyper, double /*t*/, double& /*rate*/) {
    const double alpha = hyper.number[0], eps = hyper.number[1], momentum = hyper.number[2];
    return {static_cast<Real>(alpha), static_cast<Real>(1.0 - alpha), static_cast<Real>(eps),
            static_cast<Real>(momentum)};
  }

  template <class Real>
  PAGEDOPT_HD static bool is_zero_or_nan(Real x) {
    return !(x < Real{0}) && !(x > Real{0});
  }

  template <class Real>
  PAGEDOPT_HD static Real average(const Scalars<Real>& s, Real before, Real x) {
    return s.alpha * before + s.one_minus_alpha * x;
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[1]) {
    slot[0] = average(s, slot[0], g * g);
    return common.rate * g / (square_root(slot[0]) + s.eps);
  }

  // With eps = 0 the quotient is 0 / 0 there.
  template <class Real, int n>
  PAGEDOPT_HD static bool is_still(const Real (&slot)[n]) {
    return slot[0] == Real{0};
  }
};

struct RmsPropMomentum : RmsProp {
  static constexpr Slot kSlots[] = {{"square_avg", false}, {"momentum_buffer", true}};

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[2]) {
    slot[0] = average(s, slot[0], g * g);
    slot[1] = s.momentum * slot[1] + g / (square_root(slot[0]) + s.eps);
    return common.rate * slot[1];
  }

  template <class Real, int n>
  PAGEDOPT_HD static bool is_still(const Real (&slot)[n]) {
    return slot[0] == Real{0} && is_zero_or_nan(slot[1]);
  }
};

// The variance of the gradient: its mean square less the square of its mean. Their difference has no correct digit when
// each is known to two, so this state has no 8-bit form.
struct RmsPropCentered : RmsProp {
  static constexpr Slot kSlots[] = {{"square_avg", false}, {"grad_avg", true}};
  static constexpr bool kHas8bit = false;

  template <class Real>
  PAGEDOPT_HD static Real deviation(Real square_avg, Real grad_avg) {
    return square_root(larger(Real{0}, square_avg - grad_avg * grad_avg));
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[2]) {
    slot[0] = average(s, slot[0], g * g);
    slot[1] = average(s, slot[1], g);
    return common.rate * g / (deviation(slot[0], slot[1]) + s.eps);
  }
};

struct RmsPropMomentumCentered : RmsPropCentered {
  static constexpr Slot kSlots[] = {{"square_avg", false}, {"momentum_buffer", true}, {"grad_avg", true}};

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[3]) {
    slot[0] = average(s, slot[0], g * g);
    slot[2] = average(s, slot[2], g);
    slot[1] = s.momentum * slot[1] + g / (deviation(slot[0], slot[2]) + s.eps);
    return common.rate * slot[1];
  }

  template <class Real, int n>
  PAGEDOPT_HD static bool is_still(const Real (&slot)[n]) {
    return slot[0] == Real{0} && is_zero_or_nan(slot[1]);
  }
};

}  // namespace pagedopt

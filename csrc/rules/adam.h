// Adam (Kingma & Ba 2015, section 2, in the reordered form), and AdamW (Loshchilov & Hutter 2019) with decoupled decay.
#pragma once

#include <cmath>

#include "rules/rule.h"

namespace pagedopt {

struct Adam : RuleDefaults {
  static constexpr Slot kSlots[] = {{"exp_avg", true}, {"exp_avg_sq", false}};
  static constexpr const char* kNumbers[] = {"beta1", "beta2", "eps"};
  static constexpr int kFiniteSlot = 1;

  template <class Real>
  struct Scalars {
    Real beta1, one_minus_beta1;
    Real beta2, one_minus_beta2;
    Real eps;  // eps c2
  };

  // The rate is lr c2 / c1, with c1 = 1 - beta1^t and c2 = sqrt(1 - beta2^t); both are 1 without bias correction.
  template <class Real>
  PAGEDOPT_HD static Scalars<Real> scalars(const Hyper& hyper, double t, double& rate) {
    const double beta1 = hyper.number[0], beta2 = hyper.number[1], eps = hyper.number[2];
    const double c1 = correction(hyper, beta1, t), c2 = std::sqrt(correction(hyper, beta2, t));
    rate = rate * c2 / c1;
    return {static_cast<Real>(beta1), static_cast<Real>(1.0 - beta1), static_cast<Real>(beta2),
            static_cast<Real>(1.0 - beta2), static_cast<Real>(eps * c2)};
  }

  template <class Real>
  PAGEDOPT_HD static void moments(const Scalars<Real>& s, Real g, Real& m, Real& v) {
    m = s.beta1 * m + s.one_minus_beta1 * g;
    v = s.beta2 * v + s.one_minus_beta2 * g * g;
  }

  // lr times mhat / (sqrt(vhat) + eps), as (lr c2 / c1) m / (sqrt(v) + eps c2).
  template <class Real>
  PAGEDOPT_HD static Real move(const CommonScalars<Real>& common, const Scalars<Real>& s, Real m, Real v) {
    return common.rate * m / (square_root(v) + s.eps);
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[2]) {
    moments(s, g, slot[0], slot[1]);
    return move(common, s, slot[0], slot[1]);
  }

  // With eps = 0 the quotient is 0 / 0 there.
  template <class Real, int n>
  PAGEDOPT_HD static bool is_still(const Real (&slot)[n]) {
    return slot[0] == Real{0};
  }
};

}  // namespace pagedopt

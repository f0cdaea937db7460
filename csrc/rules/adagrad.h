// Adagrad (Duchi, Hazan & Singer 2011), its rate falling as in torch.optim.Adagrad.
#pragma once

#include "rules/rule.h"

namespace pagedopt {

struct Adagrad : RuleDefaults {
  static constexpr Slot kSlots[] = {{"sum", false}};
  static constexpr const char* kNumbers[] = {"lr_decay", "eps"};
  static constexpr int kFiniteSlot = 0;

  template <class Real>
  struct Scalars {
    Real eps;
  };

  template <class Real>
  PAGEDOPT_HD static Scalars<Real> scalars(const Hyper& hyper, double t, double& rate) {
    const double lr_decay = hyper.number[0], eps = hyper.number[1];
    rate = rate / (1.0 + (t - 1.0) * lr_decay);
    return {static_cast<Real>(eps)};
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[1]) {
    slot[0] = slot[0] + g * g;
    return common.rate * g / (square_root(slot[0]) + s.eps);
  }

  // With eps = 0 the quotient is 0 / 0 there.
  template <class Real, int n>
  PAGEDOPT_HD static bool is_still(const Real (&slot)[n]) {
    return slot[0] == Real{0};
  }
};

}  // namespace pagedopt

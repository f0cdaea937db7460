// Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2).
#pragma once

#include "rules/rule.h"

namespace pagedopt {

struct Lion : RuleDefaults {
  static constexpr Slot kSlots[] = {{"exp_avg", true}};
  static constexpr const char* kNumbers[] = {"beta1", "beta2"};
  static constexpr int kFiniteSlot = 0;

  template <class Real>
  struct Scalars {
    Real beta1, one_minus_beta1;
    Real beta2, one_minus_beta2;
  };

  template <class Real>
  PAGEDOPT_HD static Scalars<Real> scalars(const Hyper& hyper, double /*t*/, double& /*rate*/) {
    const double beta1 = hyper.number[0], beta2 = hyper.number[1];
    return {static_cast<Real>(beta1), static_cast<Real>(1.0 - beta1), static_cast<Real>(beta2),
            static_cast<Real>(1.0 - beta2)};
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[1]) {
    const Real direction = s.beta1 * slot[0] + s.one_minus_beta1 * g;
    slot[0] = s.beta2 * slot[0] + s.one_minus_beta2 * g;
    return common.rate * sign(direction);
  }
};

}  // namespace pagedopt

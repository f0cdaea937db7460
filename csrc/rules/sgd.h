// Stochastic gradient descent, and with momentum (Sutskever et al. 2013; dampening and the form of Nesterov's step as
// in torch.optim.SGD).
#pragma once

#include "rules/rule.h"

namespace pagedopt {

struct Sgd : RuleDefaults {
  static constexpr bool kHas8bit = false;  // there is nothing to store

  template <class Real>
  struct Scalars {};

  template <class Real>
  PAGEDOPT_HD static Scalars<Real> scalars(const Hyper& /*hyper*/, double /*t*/, double& /*rate*/) {
    return {};
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>&, Real g, Real (&)[1]) {
    return common.rate * g;
  }
};

struct SgdMomentum : RuleDefaults {
  static constexpr Slot kSlots[] = {{"momentum_buffer", true}};
  static constexpr const char* kNumbers[] = {"momentum", "dampening", "nesterov"};
  static constexpr int kFiniteSlot = 0;

  template <class Real>
  struct Scalars {
    Real momentum, one_minus_dampening;
    Real nesterov;  // 0 or 1
  };

  // The first gradient is not dampened.
  template <class Real>
  PAGEDOPT_HD static Scalars<Real> scalars(const Hyper& hyper, double t, double& /*rate*/) {
    const double momentum = hyper.number[0], dampening = t > 1.0 ? hyper.number[1] : 0.0, nesterov = hyper.number[2];
    return {static_cast<Real>(momentum), static_cast<Real>(1.0 - dampening), static_cast<Real>(nesterov)};
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[1]) {
    slot[0] = s.momentum * slot[0] + s.one_minus_dampening * g;
    const Real ahead = g + s.momentum * slot[0];
    return common.rate * (s.nesterov != Real{0} ? ahead : slot[0]);
  }
};

}  // namespace pagedopt

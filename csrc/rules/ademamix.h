// AdEMAMix (Pagliardini, Ablin & Grangier 2024, algorithm 1): Adam with a second, slower moment of the gradient.
#pragma once

#include <cmath>

#include "rules/rule.h"

namespace pagedopt {

struct AdEMAMix : RuleDefaults {
  static constexpr Slot kSlots[] = {{"exp_avg", true}, {"exp_avg_slow", true}, {"exp_avg_sq", false}};
  static constexpr const char* kNumbers[] = {"beta1", "beta2", "beta3", "alpha", "t_alpha", "t_beta3", "eps"};
  static constexpr int kFiniteSlot = 2;

  template <class Real>
  struct Scalars {
    Real beta1, one_minus_beta1;
    Real beta2, one_minus_beta2;
    Real beta3, one_minus_beta3;
    Real fast, slow;  // the weights of the two moments: c2 / c1 and alpha c2
    Real eps;         // eps c2
  };

  // Of the slow moment at step t < T: log(1/2) / log(beta) grows linearly from beta1's to beta3's.
  PAGEDOPT_HD static double scheduled_beta(double beta1, double beta3, double t, double steps) {
    const double part = t / steps;
    const double beta = std::exp(1.0 / ((1.0 - part) / std::log(beta1) + part / std::log(beta3)));
    return beta < beta3 ? beta : beta3;
  }

  // c1 = 1 - beta1^t and c2 = sqrt(1 - beta2^t). The slow moment is not corrected.
  template <class Real>
  PAGEDOPT_HD static Scalars<Real> scalars(const Hyper& hyper, double t, double& /*rate*/) {
    const double beta1 = hyper.number[0], beta2 = hyper.number[1], t_alpha = hyper.number[4], t_beta3 = hyper.number[5];
    double beta3 = hyper.number[2], alpha = hyper.number[3];
    if (t < t_alpha) alpha = alpha * t / t_alpha;
    if (t < t_beta3) beta3 = scheduled_beta(beta1, beta3, t, t_beta3);
    const double c1 = correction(hyper, beta1, t), c2 = std::sqrt(correction(hyper, beta2, t));
    return {static_cast<Real>(beta1),       static_cast<Real>(1.0 - beta1), static_cast<Real>(beta2),
            static_cast<Real>(1.0 - beta2), static_cast<Real>(beta3),       static_cast<Real>(1.0 - beta3),
            static_cast<Real>(c2 / c1),     static_cast<Real>(alpha * c2),  static_cast<Real>(hyper.number[6] * c2)};
  }

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[3]) {
    slot[0] = s.beta1 * slot[0] + s.one_minus_beta1 * g;
    slot[1] = s.beta3 * slot[1] + s.one_minus_beta3 * g;
    slot[2] = s.beta2 * slot[2] + s.one_minus_beta2 * g * g;
    return common.rate * (s.fast * slot[0] + s.slow * slot[1]) / (square_root(slot[2]) + s.eps);
  }

  // With eps = 0 the quotient is 0 / 0 there.
  template <class Real, int n>
  PAGEDOPT_HD static bool is_still(const Real (&slot)[n]) {
    return slot[0] == Real{0} && slot[1] == Real{0};
  }
};

}  // namespace pagedopt

// Update rules, once each, for one element, in the notation of their papers. Host and device compile the same text;
// with contraction off (-ffp-contract=off) every target rounds alike. Scalars equal for all elements are made on the
// host, in double.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define PAGEDOPT_HD __host__ __device__ __forceinline__
#else
// Always inlined: the kernels are compiled once per instruction set, and no copy of one may serve another.
#define PAGEDOPT_HD inline __attribute__((always_inline))
#endif

namespace pagedopt {

// What a parameter group asks for, as Python gives it.
enum class RuleId : unsigned char { adam };  // Adam and AdamW are one rule: `decoupled` says where the decay goes

struct Hyper {
  RuleId rule = RuleId::adam;
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0;
  bool decoupled = false, amsgrad = false, maximize = false;
  bool skip_zeros = false;        // elements whose gradient is zero are left alone: parameter, moments and decay
  double max_unorm = 0.0;         // 0: off; else ||mhat / (sqrt(vhat) + eps)|| is held to max_unorm * ||p||
  int percentile_clipping = 100;  // 100: off; see clip_scale in step.h
};

// Adam's scalars at step t (Kingma & Ba 2015, section 2, the reordered form; decay as Loshchilov & Hutter 2019).
template <class Real>
struct AdamScalarsOf {
  Real beta1, one_minus_beta1;
  Real beta2, one_minus_beta2;
  Real grad_scale;      // multiplies g: loss scale, clipping and the sign of `maximize`
  Real coupled_decay;   // wd, or 0
  Real decoupled_keep;  // 1 - lr wd, or 1
  Real rate;            // lr c2 / c1, with c1 = 1 - beta1^t, c2 = sqrt(1 - beta2^t)
  Real eps;             // eps c2
};
using AdamScalars = AdamScalarsOf<float>;

template <class Real = float>
PAGEDOPT_HD AdamScalarsOf<Real> adam_scalars(const Hyper& hyper, double t, double grad_scale) {
  const double c1 = 1.0 - std::pow(hyper.beta1, t);
  const double c2 = std::sqrt(1.0 - std::pow(hyper.beta2, t));
  AdamScalarsOf<Real> s;
  s.beta1 = static_cast<Real>(hyper.beta1);
  s.one_minus_beta1 = static_cast<Real>(1.0 - hyper.beta1);
  s.beta2 = static_cast<Real>(hyper.beta2);
  s.one_minus_beta2 = static_cast<Real>(1.0 - hyper.beta2);
  s.grad_scale = static_cast<Real>(hyper.maximize ? -grad_scale : grad_scale);
  s.coupled_decay = static_cast<Real>(hyper.decoupled ? 0.0 : hyper.weight_decay);
  s.decoupled_keep = static_cast<Real>(hyper.decoupled ? 1.0 - hyper.lr * hyper.weight_decay : 1.0);
  s.rate = static_cast<Real>(hyper.lr * c2 / c1);
  s.eps = static_cast<Real>(hyper.eps * c2);
  return s;
}

PAGEDOPT_HD float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return sqrtf(x);
#else
  return __builtin_sqrtf(x);
#endif
}

PAGEDOPT_HD double square_root(double x) {
#if defined(__CUDA_ARCH__)
  return sqrt(x);
#else
  return __builtin_sqrt(x);
#endif
}

template <class Real>
PAGEDOPT_HD Real larger(Real a, Real b) {
  return a < b ? b : a;
}
PAGEDOPT_HD float smaller(float a, float b) { return b < a ? b : a; }

// One element of parameter and state: float32, or float64 for float64 parameters.
template <class Real>
struct AdamElementOf {
  Real p, m, v, vmax;
};
using AdamElement = AdamElementOf<float>;

// m' and v' of one element. `decay`: whether coupled decay is on.
template <bool amsgrad, class Real>
PAGEDOPT_HD void adam_moments(const AdamScalarsOf<Real>& s, bool decay, Real grad, AdamElementOf<Real>& e) {
  Real g = s.grad_scale * grad;
  if (decay) g = g + s.coupled_decay * e.p;
  e.m = s.beta1 * e.m + s.one_minus_beta1 * g;
  e.v = s.beta2 * e.v + s.one_minus_beta2 * g * g;
  if (amsgrad) e.vmax = larger(e.v, e.vmax);
}

// The direction mhat / (sqrt(vhat) + eps) times lr, as (lr c2 / c1) m / (sqrt(v) + eps c2).
template <bool amsgrad, class Real>
PAGEDOPT_HD Real adam_move(const AdamScalarsOf<Real>& s, const AdamElementOf<Real>& e) {
  return s.rate * e.m / (square_root(amsgrad ? e.vmax : e.v) + s.eps);
}

template <bool amsgrad, class Real>
PAGEDOPT_HD void adam(const AdamScalarsOf<Real>& s, bool decay, Real grad, AdamElementOf<Real>& e) {
  adam_moments<amsgrad>(s, decay, grad, e);
  e.p = e.p * s.decoupled_keep - adam_move<amsgrad>(s, e);
}

template <bool decay, bool amsgrad>
PAGEDOPT_HD void adam(const AdamScalars& s, float grad, AdamElement& e) {
  adam<amsgrad>(s, decay, grad, e);
}

// The factor that holds the norm of the move, ||mhat / (sqrt(vhat) + eps)||, to max_unorm times that of the parameter.
// `move_square` is of the moves, so with lr in them.
PAGEDOPT_HD double unorm_limit(double max_unorm, double lr, double move_square, double param_square) {
  const double unorm = std::sqrt(move_square) / (lr < 0.0 ? -lr : lr), most = max_unorm * std::sqrt(param_square);
  return unorm > most ? most / unorm : 1.0;
}

// ---- percentile clipping: see clip_scale in step.h ----

inline constexpr int kGnormHistory = 100;

// A norm as it counts: one that is not finite counts as infinite.
PAGEDOPT_HD double counted_norm(double norm) { return norm - norm == 0.0 ? norm : HUGE_VAL; }

// The place in the history of step t; within it whatever t is, for t comes from a tensor that anybody can write to.
PAGEDOPT_HD int history_place(double t) {
  constexpr double kMostSteps = 9007199254740992.0;  // 2^53: beyond, a double does not count every step
  return t >= 1.0 && t <= kMostSteps ? static_cast<int>(static_cast<long long>(t - 1.0) % kGnormHistory) : 0;
}

// The entry of rank floor(percentile * k / 100) of the k entries above zero, if it is one of history[first],
// history[first + stride], ...; else 0. By counting, so that lanes can share the work and nothing is moved.
PAGEDOPT_HD float percentile_entry(const float* history, int percentile, int first, int stride) {
  int positive = 0;
  for (int i = 0; i < kGnormHistory; ++i) positive += history[i] > 0.0f;
  const int rank = positive * percentile / 100;
  for (int i = first; i < kGnormHistory; i += stride) {
    int less = 0, equal = 0;
    for (int j = 0; j < kGnormHistory; ++j) {
      less += history[j] > 0.0f && history[j] < history[i];
      equal += history[j] == history[i];
    }
    if (history[i] > 0.0f && less <= rank && rank < less + equal) return history[i];
  }
  return 0.0f;
}

// min(1, clip / norm); 1 where nothing was seen yet (clip is 0).
PAGEDOPT_HD double clip_factor(double norm, float clip) {
  return clip > 0.0f && static_cast<float>(norm) > clip ? static_cast<double>(clip) / norm : 1.0;
}

}  // namespace pagedopt

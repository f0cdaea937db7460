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
struct AdamScalars {
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float grad_scale;      // multiplies g: loss scale, clipping and the sign of `maximize`
  float coupled_decay;   // wd, or 0
  float decoupled_keep;  // 1 - lr wd, or 1
  float rate;            // lr c2 / c1, with c1 = 1 - beta1^t, c2 = sqrt(1 - beta2^t)
  float eps;             // eps c2
};

inline AdamScalars adam_scalars(const Hyper& hyper, double t, double grad_scale) {
  const double c1 = 1.0 - std::pow(hyper.beta1, t);
  const double c2 = std::sqrt(1.0 - std::pow(hyper.beta2, t));
  AdamScalars s;
  s.beta1 = static_cast<float>(hyper.beta1);
  s.one_minus_beta1 = static_cast<float>(1.0 - hyper.beta1);
  s.beta2 = static_cast<float>(hyper.beta2);
  s.one_minus_beta2 = static_cast<float>(1.0 - hyper.beta2);
  s.grad_scale = static_cast<float>(hyper.maximize ? -grad_scale : grad_scale);
  s.coupled_decay = static_cast<float>(hyper.decoupled ? 0.0 : hyper.weight_decay);
  s.decoupled_keep = static_cast<float>(hyper.decoupled ? 1.0 - hyper.lr * hyper.weight_decay : 1.0);
  s.rate = static_cast<float>(hyper.lr * c2 / c1);
  s.eps = static_cast<float>(hyper.eps * c2);
  return s;
}

PAGEDOPT_HD float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return sqrtf(x);
#else
  return __builtin_sqrtf(x);
#endif
}

PAGEDOPT_HD float larger(float a, float b) { return a < b ? b : a; }
PAGEDOPT_HD float smaller(float a, float b) { return b < a ? b : a; }

// One element of parameter and state, in float32.
struct AdamElement {
  float p, m, v, vmax;
};

// m' and v' of one element. `decay`: whether coupled decay is on.
template <bool decay, bool amsgrad>
PAGEDOPT_HD void adam_moments(const AdamScalars& s, float grad, AdamElement& e) {
  float g = s.grad_scale * grad;
  if (decay) g = g + s.coupled_decay * e.p;
  e.m = s.beta1 * e.m + s.one_minus_beta1 * g;
  e.v = s.beta2 * e.v + s.one_minus_beta2 * g * g;
  if (amsgrad) e.vmax = larger(e.v, e.vmax);
}

// The direction mhat / (sqrt(vhat) + eps) times lr, as (lr c2 / c1) m / (sqrt(v) + eps c2).
template <bool amsgrad>
PAGEDOPT_HD float adam_move(const AdamScalars& s, const AdamElement& e) {
  return s.rate * e.m / (square_root(amsgrad ? e.vmax : e.v) + s.eps);
}

template <bool decay, bool amsgrad>
PAGEDOPT_HD void adam(const AdamScalars& s, float grad, AdamElement& e) {
  adam_moments<decay, amsgrad>(s, grad, e);
  e.p = e.p * s.decoupled_keep - adam_move<amsgrad>(s, e);
}

}  // namespace pagedopt

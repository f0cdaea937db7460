// What the rules and the codec need of a compiler, for host and device alike. With contraction off
// (-ffp-contract=off, -fmad=false) every target rounds alike.
#pragma once

#if defined(__CUDACC__)
#define PAGEDOPT_HD __host__ __device__ __forceinline__
#elif defined(PAGEDOPT_EMULATED_KERNELS)
#define PAGEDOPT_HD inline  // compiled in a third of the time
#else
// Always inlined: the kernels are compiled once per instruction set, and no copy of one may serve another.
#define PAGEDOPT_HD inline __attribute__((always_inline))
#endif

namespace pagedopt {

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

// -1, 0 or 1; NaN stays NaN.
template <class Real>
PAGEDOPT_HD Real sign(Real x) {
  const Real negative = x < Real{0} ? Real{-1} : x;
  return x > Real{0} ? Real{1} : negative;
}

}  // namespace pagedopt

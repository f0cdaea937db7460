// What a GPU does in one instruction where C++ has several: approximations, fused operations, pairs of 16-bit numbers.
// On the CPU, for tests, something as exact or more so takes its place: who calls these needs no more than is promised.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "rules/codec.h"
#include "step/step.h"

namespace pagedopt {

PAGEDOPT_HD float fused(float a, float b, float c) { return fmaf(a, b, c); }

// a * b + c, held to [0, 1].
PAGEDOPT_HD float saturated(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __saturatef(fmaf(a, b, c));
#else
  return smaller(larger(fmaf(a, b, c), 0.0f), 1.0f);
#endif
}

// Both are off by 1.5 units in the last place at most (a GPU's by one), so by 3 * 2^-24 of the result; on the CPU that
// is made use of, so that tests see it. The root of a subnormal number may be zero; the reciprocal of a number out of
// [2^-125, 2^125] is anything.
PAGEDOPT_HD float rough_reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return float_of(bits_of(1.0f / x) + bits_of(x) % 3u - 1u);
#endif
}

PAGEDOPT_HD float rough_root(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < FLT_MIN ? 0.0f : float_of(bits_of(square_root(x)) + bits_of(x) % 3u - 1u);
#endif
}

// min(a + b, most), of 32-bit numbers.
PAGEDOPT_HD std::uint32_t least_with_sum(std::uint32_t a, std::uint32_t b, std::uint32_t most) {
#if defined(__CUDA_ARCH__)
  return __viaddmin_u32(a, b, most);
#else
  return a + b < most ? a + b : most;
#endif
}

// Two numbers to a 16-bit type, each to nearest; `first` is in the low half.
template <Dtype dtype>
PAGEDOPT_HD std::uint32_t narrowed_pair(float first, float second) {
  static_assert(dtype != Dtype::f32);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t pair;
  if constexpr (dtype == Dtype::bf16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  if constexpr (dtype == Dtype::bf16) return to_bf16(first) | static_cast<std::uint32_t>(to_bf16(second)) << 16;
  return to_f16(first) | static_cast<std::uint32_t>(to_f16(second)) << 16;
#endif
}

// Of three 32-bit numbers.
PAGEDOPT_HD std::uint32_t least_of(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  return __vimin3_u32(a, b, c);
#else
  const std::uint32_t least = b < a ? b : a;
  return c < least ? c : least;
#endif
}

PAGEDOPT_HD std::uint32_t most_of(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  return __vimax3_u32(a, b, c);
#else
  const std::uint32_t most = b > a ? b : a;
  return c > most ? c : most;
#endif
}

// Of three words, half by half.
PAGEDOPT_HD std::uint32_t least_halves(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  return __vimin3_u16x2(a, b, c);
#else
  return least_of(a & 0xffffu, b & 0xffffu, c & 0xffffu) | least_of(a >> 16, b >> 16, c >> 16) << 16;
#endif
}

PAGEDOPT_HD std::uint32_t least_half(std::uint32_t a) {
  const std::uint32_t low = a & 0xffffu, high = a >> 16;
  return low < high ? low : high;
}

PAGEDOPT_HD std::uint32_t low_halves(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(a, b, 0x5410);
#else
  return (a & 0xffffu) | b << 16;
#endif
}

// Bytes 2 of four words, as one.
PAGEDOPT_HD std::uint32_t third_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(__byte_perm(a, b, 0x0062), __byte_perm(c, d, 0x0062), 0x5410);
#else
  return (a >> 16 & 255u) | (b >> 16 & 255u) << 8 | (c >> 16 & 255u) << 16 | d >> 16 << 24;
#endif
}

// Byte i of a word. pre: i is known to the compiler
PAGEDOPT_HD std::uint32_t byte_of(std::uint32_t word, int i) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(word, 0, 0x4440 + static_cast<unsigned>(i));
#else
  return word >> (8 * i) & 255u;
#endif
}

// A condition, for compilers: what follows from it may stand out of the way.
PAGEDOPT_HD bool seldom(bool holds) { return __builtin_expect(holds, 0) != 0; }

// 256 * (high >> 24) + low. pre: low < 256
PAGEDOPT_HD std::uint32_t high_above_low(std::uint32_t high, std::uint32_t low) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(high, low, 0x5534);  // byte 1 of `low` is zero
#else
  return (high >> 24) * 256u + low;
#endif
}

}  // namespace pagedopt

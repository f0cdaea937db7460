// Blocks of 256 elements to and from float32, for the kernels of one instruction set: part of step/cpu/kernels.cpp,
// which says what may stand here. Loops are functions of their own with plain `restrict` arguments, or the compiler
// does not vectorise them.
#pragma once

#include <cstdint>
#include <cstring>

#include "rules/codec.h"
#include "step/cpu/lookup_avx2.h"
#include "step/cpu/lookup_avx512.h"
#include "step/step.h"

namespace pagedopt {
namespace PAGEDOPT_ISA {
namespace {

constexpr int kLanes = 16;  // partial results of a reduction, whatever the width of a register

// ---- loads and stores ----

void load16(const std::uint16_t* from, int n, bool is_bf16, float* to) {
  alignas(64) std::uint16_t whole[kBlockElements];
  if (n < kBlockElements) {
    std::memset(whole, 0, sizeof whole);
    std::memcpy(whole, from, n * sizeof *from);
    from = whole;
  }
  if (is_bf16)
    for (int i = 0; i < kBlockElements; ++i) to[i] = from_bf16(from[i]);
  else
    for (int i = 0; i < kBlockElements; ++i) to[i] = from_f16(from[i]);
}

void store16(const float* from, int n, bool is_bf16, std::uint16_t* to) {
  alignas(64) std::uint16_t whole[kBlockElements];
  std::uint16_t* const out = n < kBlockElements ? whole : to;
  if (is_bf16)
    for (int i = 0; i < kBlockElements; ++i) out[i] = to_bf16(from[i]);
  else
    for (int i = 0; i < kBlockElements; ++i) out[i] = to_f16(from[i]);
  if (n < kBlockElements) std::memcpy(to, whole, n * sizeof *to);
}

void load(const void* base, std::int64_t first, int n, Dtype dtype, float* to) {
  if (dtype != Dtype::f32) {
    load16(static_cast<const std::uint16_t*>(base) + first, n, dtype == Dtype::bf16, to);
    return;
  }
  if (n < kBlockElements) std::memset(to, 0, kBlockElements * sizeof *to);
  std::memcpy(to, static_cast<const float*>(base) + first, n * sizeof *to);
}

void store(const float* from, std::int64_t first, int n, Dtype dtype, void* base) {
  if (dtype != Dtype::f32)
    store16(from, n, dtype == Dtype::bf16, static_cast<std::uint16_t*>(base) + first);
  else
    std::memcpy(static_cast<float*>(base) + first, from, n * sizeof *from);
}

// ---- reductions ----

// Largest magnitude of the finite numbers x: their bits compare like integers.
PAGEDOPT_HD float largest(const float* x) {
  std::int32_t most = 0;
  for (int i = 0; i < kBlockElements; ++i) {
    const auto size = static_cast<std::int32_t>(bits_of(x[i]) & 0x7fffffffu);
    most = size > most ? size : most;
  }
  return float_of(static_cast<std::uint32_t>(most));
}

double square_sum(const float* x) {
  double lane[kLanes] = {};
  for (int i = 0; i < kBlockElements; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lane[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  double sum = 0.0;
  for (int j = 0; j < kLanes; ++j) sum += lane[j];
  return sum;
}

// ---- 8-bit slots ----

#if !defined(PAGEDOPT_LOOKUP)
// Not `restrict`, so that the loads stay plain: a gather is no faster here, and ten times slower on processors mended
// against gather data sampling.
template <bool is_signed>
__attribute__((noinline)) void decode_whole(const std::uint8_t* codes, float absmax, float* to) {
  const float* value = code_map_of<is_signed>().value;
  for (int i = 0; i < kBlockElements; ++i) to[i] = value[codes[i]] * absmax;
}
#endif

template <bool is_signed>
PAGEDOPT_HD void decode_block(const std::uint8_t* codes, int n, float absmax, float* to) {
  alignas(64) std::uint8_t whole[kBlockElements];
  if (n < kBlockElements) {
    std::memset(whole, kZeroCode<is_signed>, sizeof whole);
    std::memcpy(whole, codes, n);
    codes = whole;
  }
  decode_whole<is_signed>(codes, absmax, to);
}

// Encodes but for what is in doubt; returns whether anything is.
template <bool is_signed>
__attribute__((noinline)) bool encode_lines(Encoder encoder, const float* __restrict x,
                                            std::uint8_t* __restrict codes) {
  alignas(64) std::int32_t wide[kBlockElements];  // narrowed in a loop of its own: compilers would narrow each operand
  std::uint32_t edge = bits_of(1.0f), joint = ~0u;  // least distances, as bits, which compilers reduce in any order
  for (int i = 0; i < kBlockElements; ++i) {
    const Encoded encoded = encode<is_signed>(encoder, x[i]);
    wide[i] = encoded.code;
    const std::uint32_t distance = bits_of(encoded.edge_distance);
    edge = distance < edge ? distance : edge;
    joint = encoded.joint_distance < joint ? encoded.joint_distance : joint;
  }
  for (int i = 0; i < kBlockElements; ++i) codes[i] = static_cast<std::uint8_t>(wide[i]);
  return float_of(edge) <= kDoubt || joint <= kJointDoubt;
}

// Twice the doubt, because the codes may come from another way of computing the level.
template <bool is_signed>
__attribute__((noinline)) void settle_block(Encoder encoder, const float* __restrict x, float absmax,
                                            std::uint8_t* __restrict codes) {
  std::uint8_t doubtful[kBlockElements];
  for (int i = 0; i < kBlockElements; ++i) {
    const Encoded encoded = encode<is_signed>(encoder, x[i]);
    doubtful[i] = (encoded.edge_distance <= 2.0f * kDoubt) | (encoded.joint_distance <= kJointDoubt);
  }
  for (int i = 0; i < kBlockElements; ++i)
    if (doubtful[i])
      codes[i] = static_cast<std::uint8_t>(settle<is_signed>(code_map_of<is_signed>(), x[i], absmax, codes[i]));
}

template <bool is_signed>
PAGEDOPT_HD void encode_whole(const float* x, float absmax, std::uint8_t* codes) {
#if defined(PAGEDOPT_ENCODE_SEGMENTS)
  if (absmax <= kLargeAbsmax) {
    if (encode_segments<is_signed>(x, absmax, codes))
      settle_block<is_signed>(encoder_for<is_signed>(absmax), x, absmax, codes);
    return;
  }
#endif
  const Encoder encoder = encoder_for<is_signed>(absmax);
  if (encode_lines<is_signed>(encoder, x, codes)) settle_block<is_signed>(encoder, x, absmax, codes);
}

// Encodes finite numbers x to the nearest values of the map times absmax. Scales x where absmax is tiny.
template <bool is_signed>
PAGEDOPT_HD void encode_block(float* x, int n, float absmax, std::uint8_t* to) {
  if (absmax == 0.0f) {
    std::memset(to, kZeroCode<is_signed>, n);
    return;
  }
  if (absmax < kSmallAbsmax) {
    absmax *= kLift;
    for (int i = 0; i < kBlockElements; ++i) x[i] *= kLift;
  }
  alignas(64) std::uint8_t whole[kBlockElements];
  std::uint8_t* const codes = n < kBlockElements ? whole : to;
  encode_whole<is_signed>(x, absmax, codes);
  if (n < kBlockElements) std::memcpy(to, whole, n);
}

}  // namespace
}  // namespace PAGEDOPT_ISA
}  // namespace pagedopt

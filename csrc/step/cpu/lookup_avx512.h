// The 8-bit codec with its tables in registers, for instruction sets that look up 16 and 32 floats at once (AVX-512):
// what compilers do not find. Part of step/cpu/kernels.cpp. The same codes and values as blocks.h computes elsewhere,
// to the bit.
#pragma once

#if defined(__AVX512F__) && !defined(__clang__)
#define PAGEDOPT_LOOKUP
#define PAGEDOPT_ENCODE_SEGMENTS

#include <cstdint>
#include <cstring>

#include "rules/codec.h"

namespace pagedopt {
namespace PAGEDOPT_ISA {
namespace {

typedef float Floats __attribute__((vector_size(64)));
typedef std::int32_t Ints __attribute__((vector_size(64)));
constexpr int kWide = 16;

template <class Vector, class Element>
PAGEDOPT_HD Vector load_vector(const Element* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

PAGEDOPT_HD Ints least(Ints a, Ints b) { return a < b ? a : b; }
PAGEDOPT_HD Ints most(Ints a, Ints b) { return a > b ? a : b; }

// A quarter or half the time of a gather.
template <int tables>
struct Lookup {
  Floats part[tables];

  PAGEDOPT_HD explicit Lookup(const float* value) { std::memcpy(part, value, sizeof part); }

  // value[index] for 0 <= index < 16 * tables: pairs of parts by the low five bits, then the higher bits choose among
  // pairs.
  PAGEDOPT_HD Floats operator()(Ints index) const {
    Floats found[tables / 2];
    for (int i = 0; i < tables / 2; ++i) found[i] = __builtin_shuffle(part[2 * i], part[2 * i + 1], index);
    for (int pairs = tables / 2, bit = 32; pairs > 1; pairs /= 2, bit *= 2)
      for (int i = 0; i < pairs / 2; ++i) found[i] = (index & bit) != 0 ? found[2 * i + 1] : found[2 * i];
    return found[0];
  }
};

template <bool is_signed>
__attribute__((noinline)) void decode_whole(const std::uint8_t* __restrict codes, float absmax, float* __restrict to) {
  const Lookup<is_signed ? 8 : 16> lookup(code_map_of<is_signed>().value + (is_signed ? 127 : 0));
  alignas(64) std::int32_t wide[kBlockElements];
  for (int i = 0; i < kBlockElements; ++i) wide[i] = codes[i];
  for (int i = 0; i < kBlockElements; i += kWide) {
    const Ints index = load_vector<Ints>(wide + i);
    Floats value;
    if (is_signed) {  // by the rank of the magnitude; one is not in the registers
      const Ints rank = index - 127;
      value = lookup(rank < 0 ? -rank : rank);
      value = rank < 0 ? -value : value;
      value = rank == 128 ? 1.0f : value;
    } else {
      value = lookup(index);
    }
    value *= absmax;
    std::memcpy(to + i, &value, sizeof value);
  }
}

// Not inlined, or the vector it comes from stays in memory through the loop before.
__attribute__((noinline)) std::uint32_t least_of(const std::int32_t* x) {
  std::int32_t found = x[0];
  for (int i = 1; i < kWide; ++i) found = x[i] < found ? x[i] : found;
  return static_cast<std::uint32_t>(found);
}

// From here on the inverse of absmax may be subnormal.
constexpr float kLargeAbsmax = 0x1p96f;

// Encodes but for what is in doubt; returns whether anything is. Ends of segments are compared exactly, as integers.
template <bool is_signed>
__attribute__((noinline)) bool encode_segments(const float* __restrict x, float absmax,
                                               std::uint8_t* __restrict codes) {
  const Segments& s = is_signed ? kSignedSegments : kUnsignedSegments;
  alignas(64) float ends[kWide];
  for (int i = 0; i < kWide; ++i) ends[i] = round_up(s.end[i] * static_cast<double>(absmax));
  const Ints end = load_vector<Ints>(ends), at_low = load_vector<Ints>(s.at), at_high = load_vector<Ints>(s.at + kWide);
  const Floats slope = load_vector<Floats>(s.slope), offset = load_vector<Floats>(s.offset);
  const Ints cap = load_vector<Ints>(s.cap);
  const float inverse = 1.0f / absmax;
  alignas(64) std::int32_t wide[kBlockElements];
  Ints edge = Ints{} + static_cast<std::int32_t>(bits_of(1.0f));
  for (int i = 0; i < kBlockElements; i += kWide) {
    const Ints bits = load_vector<Ints>(x + i), size = is_signed ? bits & 0x7fffffff : bits;
    const Ints y = most(reinterpret_cast<Ints>(reinterpret_cast<Floats>(size) * inverse),
                        Ints{} + static_cast<std::int32_t>(bits_of(0x1p-30f)));
    Ints segment = __builtin_shuffle(at_low, at_high, y >> 23);
    segment = size >= __builtin_shuffle(end, segment) ? segment + 1 : segment;
    const Floats line =
        reinterpret_cast<Floats>(y) * __builtin_shuffle(slope, segment) + __builtin_shuffle(offset, segment);
    const Floats level = reinterpret_cast<Floats>(least(reinterpret_cast<Ints>(line), __builtin_shuffle(cap, segment)));
    Ints code = __builtin_convertvector(level, Ints);
    if (is_signed) {  // there is no -1
      const Ints sign = bits >> 31;
      code = most(127 + ((code ^ sign) - sign), Ints{});
    }
    std::memcpy(wide + i, &code, sizeof code);
    const Floats distance = level - ((level + 0x1.8p23f) - 0x1.8p23f);
    edge = least(edge, reinterpret_cast<Ints>(distance) & 0x7fffffff);
  }
  for (int i = 0; i < kBlockElements; ++i) codes[i] = static_cast<std::uint8_t>(wide[i]);
  std::memcpy(wide, &edge, sizeof edge);
  return least_of(wide) <= bits_of(kDoubt);
}

}  // namespace
}  // namespace PAGEDOPT_ISA
}  // namespace pagedopt
#endif

// The 8-bit encoder with its tables in registers, for AVX2, which looks up 8 floats at once. Part of
// step/cpu/kernels.cpp. The same codes as blocks.h computes elsewhere, to the bit: what is in doubt goes to `settle`.
#pragma once

#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__clang__)
#define PAGEDOPT_ENCODE_SEGMENTS

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "rules/codec.h"

namespace pagedopt {
namespace PAGEDOPT_ISA {
namespace {

typedef float Floats __attribute__((vector_size(32)));
typedef std::int32_t Ints __attribute__((vector_size(32)));
constexpr int kWide = 8;

template <class Vector, class Element>
PAGEDOPT_HD Vector load_vector(const Element* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

PAGEDOPT_HD Ints as_ints(Floats x) { return reinterpret_cast<Ints>(x); }
PAGEDOPT_HD Floats as_floats(Ints x) { return reinterpret_cast<Floats>(x); }

// The low three bits of each index choose.
PAGEDOPT_HD Floats look_up(Floats table, Ints index) {
  return _mm256_permutevar8x32_ps(table, reinterpret_cast<__m256i>(index));
}

// y = |x| / absmax lies in one of eight segments: the seven decades (the last values below them included) and one.
// In each, rank (signed) or code (unsigned) = min(slope y + offset, cap), rounded. Segment s stands at (s + 7) mod 8,
// which is where index_of leads.
struct Octet {
  float slope[8], offset[8], cap[8];
  double start[8];  // y from which the segment holds
};

constexpr Octet make_octet(bool is_signed) {
  const float* value = is_signed ? kSignedMap.value + 127 : kUnsignedMap.value;
  const Lines lines = make_lines(is_signed);
  const auto midpoint = [&](int n) {
    return 0.5 * (static_cast<double>(value[n]) + static_cast<double>(value[n + 1]));
  };
  Octet o{};
  int first = 0, end = is_signed ? 2 : 3;  // ranks or codes [first, end) are the segment's; zero is in segment 0
  for (int s = 0; s <= kDecades; ++s) {
    const int at = (s + 7) % 8;
    const bool single = s == kDecades, lowest = s == 0 && is_signed;  // lowest: zero, far from any edge, and one value
    o.slope[at] = single ? 0.0f : static_cast<float>(lowest ? 0.8 / midpoint(0) : lines.slope[s]);
    const double offset = lowest ? 0.2 : single ? first + 0.5 : lines.offset[s] - (is_signed ? 0.0 : 1.0);
    o.offset[at] = static_cast<float>(offset - 0.5);
    o.cap[at] = static_cast<float>(end - 0.75);
    o.start[at] = s == 0 ? 0.0 : midpoint(first - 1);
    first = end;
    end += s + 1 == kDecades ? 1 : (is_signed ? 2 : 4) << s;
  }
  return o;
}

inline constexpr Octet kSignedOctet = make_octet(true);
inline constexpr Octet kUnsignedOctet = make_octet(false);

// The segment of 0 <= y <= 1, or the one after it; modulo 8 and shifted by 7. The logarithm of y with straight lines
// within the binades, at 154 / 2^16 segments a unit: its steps lie between the starts of segments, far from both.
PAGEDOPT_HD Ints index_of(Floats y) {
  const Ints least = Ints{} + static_cast<std::int32_t>(bits_of(0x1.8p-24f));
  const Ints bits = as_ints(y) > least ? as_ints(y) : least;
  return reinterpret_cast<Ints>(_mm256_mulhi_epu16(reinterpret_cast<__m256i>(bits), _mm256_set1_epi16(154))) >> 16;
}

// From here on the inverse of absmax may be subnormal.
constexpr float kLargeAbsmax = 0x1p96f;
constexpr float kWhole = 0x1.8p23f;  // x + kWhole is rounded to a whole number, which is in the low bits

// Eight numbers of a block with one absmax.
template <bool is_signed>
struct SegmentEncoder {
  Floats slope, offset, cap;
  Ints start;
  float inverse;
  Ints farthest{};  // from a whole level so far; bits of a float, at most 0.5

  PAGEDOPT_HD explicit SegmentEncoder(float absmax) : inverse(1.0f / absmax) {
    const Octet& o = is_signed ? kSignedOctet : kUnsignedOctet;
    float starts[kWide];
    for (int i = 0; i < kWide; ++i) starts[i] = round_up(o.start[i] * static_cast<double>(absmax));
    slope = load_vector<Floats>(o.slope), offset = load_vector<Floats>(o.offset), cap = load_vector<Floats>(o.cap);
    start = load_vector<Ints>(starts);
  }

  // Codes in the low bits of 32. Starts of segments are compared exactly, as integers.
  PAGEDOPT_HD Ints operator()(const float* x) {
    const Ints bits = load_vector<Ints>(x), size = is_signed ? bits & 0x7fffffff : bits;
    const Floats y = as_floats(size) * inverse;
    Ints index = index_of(y);
    index += size < as_ints(look_up(as_floats(start), index));
    const Floats line = y * look_up(slope, index) + look_up(offset, index), most = look_up(cap, index);
    Floats level = line < most ? line : most;
    if (is_signed)
      level = as_floats(as_ints(level) ^ (bits - size));  // the sign
    else
      level = level < 0.75f ? Floats{} + 0.75f : level;  // v > 0 never takes code 0
    const Floats middle = Floats{} + (is_signed ? kWhole + 127.0f : kWhole), whole = level + middle;
    const Ints distance = as_ints(level - (whole - middle)) & 0x7fffffff;
    farthest = farthest > distance ? farthest : distance;
    if (!is_signed) return as_ints(whole) & 255 & (bits > 0);
    const Ints zero = Ints{} + static_cast<std::int32_t>(bits_of(kWhole));  // there is no -1
    return (as_ints(whole) > zero ? as_ints(whole) : zero) & 255;
  }

  PAGEDOPT_HD bool in_doubt() const {
    const Ints beyond = farthest >= static_cast<std::int32_t>(bits_of(0.5f - kDoubt));
    return _mm256_movemask_epi8(reinterpret_cast<__m256i>(beyond)) != 0;
  }
};

// Encodes but for what is in doubt; returns whether anything is.
template <bool is_signed>
__attribute__((noinline)) bool encode_segments(const float* __restrict x, float absmax,
                                               std::uint8_t* __restrict codes) {
  SegmentEncoder<is_signed> encode(absmax);
  const auto pair = [&](const float* from) {
    const Ints low = encode(from), high = encode(from + kWide);
    return _mm256_packus_epi32(reinterpret_cast<__m256i>(low), reinterpret_cast<__m256i>(high));
  };
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing works on halves
  for (int i = 0; i < kBlockElements; i += 4 * kWide) {
    const __m256i low = pair(x + i), high = pair(x + i + 2 * kWide);
    const __m256i packed = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), in_order);
    std::memcpy(codes + i, &packed, sizeof packed);
  }
  return encode.in_doubt();
}

}  // namespace
}  // namespace PAGEDOPT_ISA
}  // namespace pagedopt
#endif

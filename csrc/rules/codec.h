// How a number is stored: float32, bfloat16, float16, and the 256 codes of the dynamic 8-bit map. Host and device
// compile the same text and round alike.
//
// The map (bitsandbytes-compatible): seven decades i = 0..6 at scale 10^(i-6); each splits [0.1, 1] into equal cells,
// 2^i of them (signed) or 2^(i+1) (unsigned), and holds their means; then 0 and 1, and the negatives of all but 1. With
// n = the rank of a magnitude (0 for zero; unsigned: 1 for zero), code = 127 + n or 127 - n (signed), n - 1 (unsigned).
//
// Encoding is arithmetic. The edges of the cells of decade i are at whole numbers of the line
//   level_i(x) = 2^i (10^(7-i) x + 8) / 9     (unsigned: twice that)
// and the lines meet at the joints of the decades, the next one always the flatter. So level = min_i level_i and
// n = floor(level), but for the joints themselves: the midpoint there is 0.2 of a cell above the power of two.
#pragma once

#include <cstdint>
#include <cstring>

#include "rules/host_device.h"

namespace pagedopt {

inline constexpr int kBlockElements = 256;  // elements that share one absmax
inline constexpr int kDecades = 7;

PAGEDOPT_HD std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

PAGEDOPT_HD float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

PAGEDOPT_HD float magnitude(float x) {
#if defined(__CUDA_ARCH__)
  return fabsf(x);  // part of the instruction that uses it
#else
  return float_of(bits_of(x) & 0x7fffffffu);
#endif
}

// ---- the map ----

struct CodeMap {
  float value[256];
};

// torch.linspace(0.1, 1, cells + 1): float32, each product and sum rounded once together.
constexpr float cell_edge(int index, int cells) {
  const double step = (1.0f - 0.1f) / static_cast<float>(cells);
  if (index < (cells + 1) / 2) return static_cast<float>(0.1f + step * index);
  return static_cast<float>(1.0 - step * (cells - index));
}

constexpr CodeMap make_code_map(bool is_signed) {
  constexpr float kScale[kDecades] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  CodeMap map{};
  int rank = 1;  // among the positive values
  const int zero = is_signed ? 127 : 0;
  for (int decade = 0; decade < kDecades; ++decade) {
    const int cells = is_signed ? 1 << decade : 2 << decade;
    for (int j = 0; j < cells; ++j, ++rank) {
      const float mean = (cell_edge(j, cells) + cell_edge(j + 1, cells)) / 2.0f;
      map.value[zero + rank] = kScale[decade] * mean;
      if (is_signed) map.value[zero - rank] = -map.value[zero + rank];
    }
  }
  map.value[255] = 1.0f;
  return map;
}

inline constexpr CodeMap kSignedMap = make_code_map(true);
inline constexpr CodeMap kUnsignedMap = make_code_map(false);

template <bool is_signed>
PAGEDOPT_HD constexpr const CodeMap& code_map_of() {
  return is_signed ? kSignedMap : kUnsignedMap;
}

// ---- encoding ----

struct Lines {
  double slope[kDecades], offset[kDecades];
};

// level_i. Decade 0 of the signed map has a single cell, so its line is free to pass through 1.2, the joint's level, at
// the midpoint between zero and the first value.
PAGEDOPT_HD constexpr Lines make_lines(bool is_signed) {
  constexpr double kPower[kDecades] = {1e7, 1e6, 1e5, 1e4, 1e3, 1e2, 1e1};
  Lines lines{};
  for (int decade = 0; decade < kDecades; ++decade) {
    const double cells = is_signed ? 1 << decade : 2 << decade;
    lines.slope[decade] = cells * kPower[decade] / 9.0;
    lines.offset[decade] = cells * 8.0 / 9.0;
  }
  if (is_signed) {
    lines.slope[0] = 0.8 / 7.25e-7;
    lines.offset[0] = 2.0 - 1e-6 * lines.slope[0];
  }
  return lines;
}

// The least float that is not below x. pre: x >= 0
PAGEDOPT_HD float round_up(double x) {
  const float nearest = static_cast<float>(x);
  return float_of(bits_of(nearest) + (static_cast<double>(nearest) < x ? 1u : 0u));
}

// The lines for one block's absmax, so that values need not be normalised.
struct Encoder {
  float slope[kDecades], offset[kDecades];
  float top;      // from here on, code 255
  float ceiling;  // of the level; kept as data, for compilers split the loop into branches when they know it
};

// Below this absmax the slopes would overflow: scale the block and its absmax by kLift, which changes no code.
inline constexpr float kSmallAbsmax = 0x1p-96f;
inline constexpr float kLift = 0x1p96f;

template <bool is_signed>
PAGEDOPT_HD Encoder encoder_for(float absmax) {
  Encoder encoder;
  constexpr Lines lines = make_lines(is_signed);
  constexpr double midpoint = 0.5 * (static_cast<double>(code_map_of<is_signed>().value[254]) + 1.0);
  const double inverse = 1.0 / static_cast<double>(absmax);
  for (int i = 0; i < kDecades; ++i) {
    encoder.slope[i] = static_cast<float>(lines.slope[i] * inverse);
    encoder.offset[i] = static_cast<float>(lines.offset[i]);
  }
  encoder.ceiling = is_signed ? 127.9f : 255.9f;
  encoder.top = round_up(midpoint * static_cast<double>(absmax));
  return encoder;
}

struct Encoded {
  int code;
  // How near to an edge between two codes the level is: to a whole number, and above a joint, in units of the last
  // place. From kDoubt down, only `settle` knows the nearest value.
  float edge_distance;
  std::uint32_t joint_distance;
};

// Four units in the last place of the largest levels: the slope's, the product's and the sum's rounding, and the map's
// own.
inline constexpr float kDoubt = 0x1p-14f;
inline constexpr std::uint32_t kJointDoubt = 32;

template <bool is_signed>
PAGEDOPT_HD Encoded encode(const Encoder& encoder, float x) {
  const float size = is_signed ? magnitude(x) : x;
  const auto line = [&](int i) { return size * encoder.slope[i] + encoder.offset[i]; };
  // As a tree: in a row, the seven minima would wait for each other.
  const float low = smaller(smaller(line(0), line(1)), smaller(line(2), line(3)));
  const float level = smaller(low, smaller(smaller(line(4), line(5)), smaller(line(6), encoder.ceiling)));
  const std::uint32_t below = bits_of(level - 0.2f);
  const int n = static_cast<int>(smaller(level, float_of(below | 0x7fffffu)));  // just below the next power of two
  const int bits = static_cast<int>(bits_of(x)), sign = bits >> 31, above_zero = -(bits > 0), top = -(x >= encoder.top);
  const int floored = n > 2 ? n - 1 : 1;  // v > 0 never takes code 0
  const int code = is_signed ? 127 + ((n ^ sign) - sign) : floored & above_zero;
  const float whole = (level + 0x1.8p23f) - 0x1.8p23f;
  return {code | (top & 255), magnitude(level - whole), (below + kJointDoubt / 2) & 0x7fffffu};
}

// ---- encoding by table, for targets that can look up a few values in registers ----

// y = |x| / absmax lies in one of at most 16 segments: zero, the decades (split where v > 0 is held up to code 1), one.
// In each, rank (signed) or code (unsigned) = floor(min(slope y + offset, cap)). A binade of y has the end of at most
// one segment inside.
struct Segments {
  float slope[16], offset[16], cap[16];
  double end[16];       // y from which the next segment holds
  std::int32_t at[32];  // the segment that y = 2^(i - 31) lies in; all below 2^-30 counts as i = 1
};

constexpr Segments make_segments(bool is_signed) {
  const float* value = (is_signed ? kSignedMap.value + 127 : kUnsignedMap.value);
  const Lines lines = make_lines(is_signed);
  Segments s{};
  int count = 0;
  const auto add = [&](double slope, double offset, double cap, double end) {
    s.slope[count] = static_cast<float>(slope);
    s.offset[count] = static_cast<float>(offset);
    s.cap[count] = static_cast<float>(cap);
    s.end[count++] = end;
  };
  const auto midpoint = [&](int n) {
    return 0.5 * (static_cast<double>(value[n]) + static_cast<double>(value[n + 1]));
  };
  const int single = is_signed ? 2 : 3, all = is_signed ? 128 : 255;  // codes below `single` have segments of their own
  for (int n = 0; n < single; ++n) add(0.0, n + 0.5, n + 0.5, n > 0 || is_signed ? midpoint(n) : 1e-250);
  for (int decade = 1, first = single; decade < kDecades; ++decade) {
    first += is_signed ? 1 << decade : 2 << decade;
    add(lines.slope[decade], lines.offset[decade] - (is_signed ? 0.0 : 1.0), first - 0.25, midpoint(first - 1));
  }
  while (count < 16) add(0.0, all + 0.5, all + 0.5, 1e300);
  double start = 0x1p-30;
  for (int i = 2; i < 32; ++i) {
    start *= 2.0;
    while (s.end[s.at[i]] <= start) ++s.at[i];
  }
  return s;
}

inline constexpr Segments kSignedSegments = make_segments(true);
inline constexpr Segments kUnsignedSegments = make_segments(false);

template <bool is_signed>
constexpr int kZeroCode = is_signed ? 127 : 0;

// Between the values of rank n and n + 1; exact in double.
PAGEDOPT_HD double midpoint(const float* ranked, int n, float absmax) {
  return 0.5 * (static_cast<double>(ranked[n]) + static_cast<double>(ranked[n + 1])) * static_cast<double>(absmax);
}

// The nearest code, exactly, from one that may be off by one; a tie goes away from zero. v > 0 never takes code 0.
template <bool is_signed>
PAGEDOPT_HD int settle(const CodeMap& map, float x, float absmax, int code) {
  constexpr int zero = kZeroCode<is_signed>;
  const float* const ranked = map.value + zero;
  const bool negative = is_signed && x < 0.0f;
  const int least = !is_signed && x > 0.0f ? 1 : 0, most = negative ? 127 : 255 - zero;
  const double size = magnitude(x);
  int n = negative ? zero - code : code - zero;
  while (n < most && size >= midpoint(ranked, n, absmax)) ++n;
  while (n > least && size < midpoint(ranked, n - 1, absmax)) --n;
  return negative ? zero - n : zero + n;
}

// ---- 16-bit numbers: to nearest even; NaN stays NaN. GPUs have instructions for them, which give other NaNs. ----

PAGEDOPT_HD float from_bf16(std::uint16_t x) { return float_of(static_cast<std::uint32_t>(x) << 16); }

PAGEDOPT_HD std::uint16_t to_bf16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint16_t y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
#else
  const std::uint32_t bits = bits_of(x);
  const std::uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<std::uint16_t>((is_nan ? bits | 0x400000u : rounded) >> 16);
#endif
}

// Exponents are moved by whole binades; subnormals go through one exact float subtraction or addition.
PAGEDOPT_HD float from_f16(std::uint16_t x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
#else
  const std::uint32_t sign = (x & 0x8000u) << 16, body = (x & 0x7fffu) << 13;
  const std::uint32_t normal = body + (112u << 23);
  const std::uint32_t infinite = body + (224u << 23);
  const std::uint32_t subnormal = bits_of(float_of(body + (113u << 23)) - float_of(113u << 23));
  const std::uint32_t size = body >= (31u << 23) ? infinite : body < (1u << 23) ? subnormal : normal;
  return float_of(sign | size);
#endif
}

PAGEDOPT_HD std::uint16_t to_f16(float x) {
#if defined(__CUDA_ARCH__)
  std::uint16_t y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
#else
  const std::uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000u, body = bits & 0x7fffffffu;
  const std::uint32_t normal = (body - (112u << 23) + 0xfffu + ((body >> 13) & 1u)) >> 13;
  const std::uint32_t subnormal = bits_of(float_of(body) + 0.5f) - bits_of(0.5f);
  const std::uint32_t infinite = body > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const std::uint32_t size = body >= (143u << 23) ? infinite : body < (113u << 23) ? subnormal : normal;
  return static_cast<std::uint16_t>(sign | size);
#endif
}

}  // namespace pagedopt

// Numbers to 8-bit codes on a GPU, in another way than codec.h's but to the same codes: where a level is in doubt,
// `settle` says.
//
// With y = |x| / absmax, the level is the line on which codec.h's rank lies, less a half (unsigned: 1.5), so that the
// rank (code) is the level to the nearest whole number. The first rank N of a decade starts one cell w of the decade
// before above their joint, and is 4 w wide. So a line through the two ends of that stands between the decades' own:
//   level = min(a, a / 4 + middle, a / 5 + next)     a = slope y + offset, a decade's; a / 5 + next: the next one's
// What depends on the decade is in a table, in which y's exponent finds it: a row is what one byte of y tells apart.
#pragma once

#include <cfloat>
#include <cstddef>
#include <cstdint>

#include "codec.h"
#include "device_lane.h"
#include "device_math.h"

namespace pagedopt {

// ---- the table ----

struct alignas(16) Bend {
  float slope, offset, middle, next;
};

// Row i is for y from 2^(2 i - 63) to four times that, where there is one joint at most. Added to y, kLeastY brings
// zero to row 0, and changes levels by 2^-41 at most.
inline constexpr int kBendRows = 32;
inline constexpr float kLeastY = 0x1p-63f;

// In rows before this one, up to y = 4.8e-7, there is one edge, below the first value (unsigned: none).
inline constexpr int kFirstBend = 21;
inline constexpr double kFirstValue = 5.5e-7;

inline constexpr double kNowhere = 1e4;  // for a line that is above all others

constexpr Bend make_bend(bool is_signed, int row) {
  if (row < kFirstBend && !is_signed) return {0.0f, 1.0f, kNowhere, kNowhere};
  if (row < kFirstBend) return {static_cast<float>(1.0 / kFirstValue), 0.0f, kNowhere, kNowhere};
  double start = 0x1p-63, high = 1e-6, cells = is_signed ? 1.0 : 2.0;  // a decade's end and its cells
  for (int i = 0; i < row; ++i) start *= 4.0;
  for (; start >= high + 0.9 * high / cells; cells *= 2.0) high *= 10.0;
  const double less = is_signed ? 0.5 : 1.5, offset = cells * 8.0 / 9.0;
  // After the last decade, at y = 1 - 3 w / 4, a line that keeps negative numbers, of which there is no -1, below rank
  // 128. The others have kTopRise besides.
  const bool last = high > 0.5;
  const double middle = last ? 0.75 * (2.0 * cells - less - 0.75) : 1.6875 * offset - 0.25 - 0.75 * less;
  const double next = last ? kNowhere : 1.8 * offset - 0.8 * less;
  return {static_cast<float>(cells / (0.9 * high)), static_cast<float>(offset - less), static_cast<float>(middle),
          static_cast<float>(next)};
}

struct Bends {
  Bend row[kBendRows][2];  // of the signed map, of the unsigned one
};

constexpr Bends make_bends() {
  Bends bends{};
  for (int row = 0; row < kBendRows; ++row) {
    bends.row[row][0] = make_bend(true, row);
    bends.row[row][1] = make_bend(false, row);
  }
  return bends;
}

// As lanes read it. A multiprocessor serves 8 lanes' 16 bytes at once: each has a copy in banks of its own.
struct BendTable {
  static constexpr int kCopies = 8;
  static constexpr int kEntries = kBendRows * 2 * kCopies;
  Bend row[kBendRows][2][kCopies];

  PAGEDOPT_HD void fill(int entry, const Bends& from) {
    const int i = entry / (2 * kCopies), map = entry / kCopies % 2;
    row[i][map][entry % kCopies] = from.row[i][map];
  }

  // pre: kLeastY <= y < 2; `place` is the lane's
  PAGEDOPT_HD const Bend& of(float y, std::uint32_t place) const {
    static_assert(sizeof row[0] == 256 && sizeof row[0][0] == 128);
    constexpr std::uint32_t first = 64 / 2 * 256;  // 64: kLeastY's exponent, of which a row has two
    const auto* const bytes = reinterpret_cast<const std::byte*>(row);
    return *reinterpret_cast<const Bend*>(bytes + (high_above_low(bits_of(y), place) - first));
  }
};

template <bool is_signed>
PAGEDOPT_HD std::uint32_t bend_place(int lane) {
  return static_cast<std::uint32_t>(lane % BendTable::kCopies) * sizeof(Bend) + (is_signed ? 0u : 128u);
}

// What a kernel of 8-bit rows looks up, in shared memory on a GPU.
struct DeviceTables {
  CodeMaps maps;
  BendTable bends;
};

// ---- levels ----

// What depends on a block's absmax. pre: 2^-96 <= absmax <= 2^96
struct Scale {
  float inverse, top;
};

// The last decade's cells in [0, 1]: 1 / w.
template <bool is_signed>
inline constexpr float kTopCells = (is_signed ? 64.0f : 128.0f) / 0.9f;
// Over the last cell the level of positive numbers rises by this besides, so that code 255, the one, starts at
// 1 - w / 4: there the bent line is 5/8 below it.
inline constexpr float kTopRise = 5.0f / 6.0f;

template <bool is_signed>
PAGEDOPT_HD Scale scale_of(float absmax) {
  const float rough = rough_reciprocal(absmax), inverse = fused(rough, fused(-absmax, rough, 1.0f), rough);
  return {inverse, inverse * kTopCells<is_signed>};
}

// Signed as x is.
template <bool is_signed>
PAGEDOPT_HD float level_of(const BendTable& bends, std::uint32_t place, const Scale& scale, float x) {
  const float y = fused(magnitude(x), scale.inverse, kLeastY);
  const Bend bend = bends.of(y, place);
  const float a = fused(bend.slope, y, bend.offset);
  const float level = lesser(a, lesser(fused(a, 0.25f, bend.middle), fused(a, 0.2f, bend.next)));
  const float top = saturated(x, scale.top, 1.0f - kTopCells<is_signed>);
  const std::uint32_t sign = is_signed ? bits_of(x) & 0x80000000u : 0u;
  return fused(top, kTopRise, float_of(bits_of(level) ^ sign));
}

// ---- codes ----

// How far levels may be off, as a part of themselves, is less than 8.5 units of 2^-24: up to 4 for y and the line of a
// decade, 1 for another line, 2.5 for the map's own rounding; at the top 2.7 for the line that is there, 1.9 for the
// rise, 1 for their sum, 2.7 for the map. tests/native/lane_test.cpp finds less than 5.
inline constexpr float kLevelDoubt = 0x1.4p-21f;

// The code nearest to a level times `factor`, in the lowest byte: in the last bits of a sum with 1.5 * 2^23. Unsigned:
// at most the bits of x, so code 0 for zero, and for nothing else.
template <bool is_signed>
PAGEDOPT_HD std::uint32_t code_at(float level, float factor, float x) {
  constexpr float zero = 0x1.8p23f + static_cast<float>(kZeroCode<is_signed>);
  const std::uint32_t code = bits_of(fused(level, factor, zero));
  return is_signed ? code : least_with_sum(bits_of(x), bits_of(zero), code);
}

// x[i], where an index of registers would put x into memory.
PAGEDOPT_HD float chosen(const float (&x)[kLaneElements], int i) {
  const float a = i & 1 ? x[1] : x[0], b = i & 1 ? x[3] : x[2], c = i & 1 ? x[5] : x[4], d = i & 1 ? x[7] : x[6];
  const float low = i & 2 ? b : a, high = i & 2 ? d : c;
  return i & 4 ? high : low;
}

// Settles the codes that differ from those of `other`: fewer than one block in ten has one.
template <bool is_signed>
PAGEDOPT_HD void settle_lane(const CodeMap& map, float absmax, const float (&x)[kLaneElements], const Stored<1>& other,
                             Stored<1>& codes) {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int i = 0; i < kLaneElements; ++i) {
    const int shift = i % 4 * 8;
    const std::uint32_t word = i < 4 ? codes.word[0] : codes.word[1];
    const auto code = static_cast<int>(word >> shift & 255u);
    if (code == static_cast<int>((i < 4 ? other.word[0] : other.word[1]) >> shift & 255u)) continue;
    const auto change = static_cast<std::uint32_t>(code ^ settle<is_signed>(map, chosen(x, i), absmax, code)) << shift;
    codes.word[0] ^= i < 4 ? change : 0u;
    codes.word[1] ^= i < 4 ? 0u : change;
  }
}

// Outside of these bounds the inverse of an absmax, or the numbers of its block, are not exact enough: the block and
// its absmax are scaled, which changes no code. Numbers that would become zero then stay apart from it.
inline constexpr float kLargeScale = 0x1p96f;

PAGEDOPT_HD void scale_lane(float factor, float& absmax, float (&x)[kLaneElements]) {
  absmax *= factor;
  for (int i = 0; i < kLaneElements; ++i) {
    const float scaled = x[i] * factor;
    x[i] = scaled == 0.0f && x[i] > 0.0f ? FLT_MIN : scaled;
  }
}

// Numbers x to the nearest values of the map times absmax, their largest magnitude; to zero where that is not finite,
// as only a broken state makes it. May scale x.
template <bool is_signed>
PAGEDOPT_HD Stored<1> encode_lane(const DeviceTables& tables, int lane, float absmax, float (&x)[kLaneElements]) {
  Stored<1> codes = {}, other = {};
  if (!(absmax > 0.0f && absmax <= FLT_MAX)) {
    for (int i = 0; i < kLaneElements; ++i) codes.put(i, kZeroCode<is_signed>);
    return codes;
  }
  if (absmax < kSmallAbsmax) scale_lane(kLift, absmax, x);
  if (absmax > kLargeScale) scale_lane(1.0f / kLargeScale, absmax, x);
  const Scale scale = scale_of<is_signed>(absmax);
  const std::uint32_t place = bend_place<is_signed>(lane);
  for (int i = 0; i < kLaneElements; i += 4) {
    std::uint32_t low[4], high[4];
    for (int j = 0; j < 4; ++j) {
      const float level = level_of<is_signed>(tables.bends, place, scale, x[i + j]);
      low[j] = code_at<is_signed>(level, 1.0f - kLevelDoubt, x[i + j]);
      high[j] = code_at<is_signed>(level, 1.0f + kLevelDoubt, x[i + j]);
    }
    codes.word[i / 4] = low_bytes(low[0], low[1], low[2], low[3]);
    other.word[i / 4] = low_bytes(high[0], high[1], high[2], high[3]);
  }
  if (((codes.word[0] ^ other.word[0]) | (codes.word[1] ^ other.word[1])) != 0u)
    settle_lane<is_signed>(tables.maps.of<is_signed>(), absmax, x, other, codes);
  return codes;
}

}  // namespace pagedopt

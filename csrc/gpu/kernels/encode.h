// Numbers to 8-bit codes on a GPU, in another way than codec.h's but to the same codes: where a level is in doubt,
// `settle` says.
//
// With y = |x| / absmax, the level is the line on which codec.h's rank lies, less a half (unsigned: one), so that the
// rank (code) is the level plus a half (the level), rounded down. The first rank N of a decade starts one cell w of the
// decade before above their joint, and is 4 w wide. So a line through the two ends of that stands between the decades'
// own:
//   level = min(a, a / 4 + middle, a / 5 + next)     a = slope y + offset, a decade's; a / 5 + next: the next one's
// What depends on the decade is in a table, in which y's exponent finds it: a row is what one byte of y tells apart.
//
// Levels are whole numbers of 2^-16 in the bits of floats: up to 2^-125, the bits of a float say how many times 2^-149
// it is. So the sum of a fused multiplication is rounded to such a number, byte 2 of its bits is the code, and bytes 0
// and 1 are how far it is above an edge between two codes.
#pragma once

#include <cfloat>
#include <cstddef>
#include <cstdint>

#include "gpu/kernels/arithmetic.h"
#include "gpu/kernels/lane.h"
#include "rules/codec.h"

namespace pagedopt {

// ---- the table ----

struct alignas(16) Bend {
  float slope, offset, middle, next;
};

// What a level of one is: 2^16 times 2^-149.
inline constexpr double kLevel = 0x1p-133;

// How far levels may be off, in units of 2^-16, is less than this. Worst is the last edge: a quarter of the line's 2.7
// (1.7 for y and the slope, which are off by 3 parts in 2^24; two roundings of half a unit), 1.8 for the rise, four
// roundings, and 0.1 for the map's own. Signed levels are half as large, and so are those parts of them. Elsewhere the
// line's 2.7 and 0.3 for the map. tests/native/lane_test.cpp finds 1 (signed) and 2.
template <bool is_signed>
inline constexpr std::uint32_t kLevelDoubt = is_signed ? 4 : 5;
inline constexpr double kLevelUnits = 65536.0;

// y is times kScaleY besides: then its exponent is a small number, and a row is at its upper seven bits. Row i is for y
// from 2^(2 i - 27), or zero, to 2^(2 i - 25), where there is one joint at most.
inline constexpr int kBendRows = 14;
inline constexpr float kScaleY = 0x1p-100f;

// In rows before this one, up to y = 4.8e-7, there is one edge, below the first value (unsigned: none).
inline constexpr int kFirstBend = 3;
inline constexpr double kFirstValue = 5.5e-7;

inline constexpr double kNowhere = 1e4;  // for a line that is above all others

constexpr Bend in_levels(double slope, double offset, double middle, double next) {
  return {static_cast<float>(slope * kLevel / static_cast<double>(kScaleY)), static_cast<float>(offset * kLevel),
          static_cast<float>(middle * kLevel), static_cast<float>(next * kLevel)};
}

constexpr Bend make_bend(bool is_signed, int row) {
  // Unsigned levels are higher by their doubt, so that what is in doubt is just above an edge. Signed ones become so
  // with their sign.
  const double less = is_signed ? 0.5 : 1.0 - kLevelDoubt<false> / kLevelUnits;
  if (row < kFirstBend && !is_signed) return in_levels(0.0, 2.5 - less, kNowhere, kNowhere);
  if (row < kFirstBend) return in_levels(1.0 / kFirstValue, 0.0, kNowhere, kNowhere);
  double start = 0x1p-27, high = 1e-6, cells = is_signed ? 1.0 : 2.0;  // a decade's end and its cells
  for (int i = 0; i < row; ++i) start *= 4.0;
  for (; start >= high + 0.9 * high / cells; cells *= 2.0) high *= 10.0;
  const double offset = cells * 8.0 / 9.0;
  // After the last decade, at y = 1 - 3 w / 4, a line that keeps negative numbers, of which there is no -1, below rank
  // 128. The others have kTopRise besides.
  const bool last = high > 0.5;
  const double middle = last ? 0.75 * (2.0 * cells - less - 0.75) : 1.6875 * offset - 0.25 - 0.75 * less;
  const double next = last ? kNowhere : 1.8 * offset - 0.8 * less;
  return in_levels(cells / (0.9 * high), offset - less, middle, next);
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

  // pre: 0 <= y < 2 kScaleY; `place` is the lane's
  PAGEDOPT_HD const Bend& of(float y, std::uint32_t place) const {
    static_assert(sizeof row[0] == 256 && sizeof row[0][0] == 128);
    const auto* const bytes = reinterpret_cast<const std::byte*>(row);
    return *reinterpret_cast<const Bend*>(bytes + high_above_low(bits_of(y), place));
  }
};

template <bool is_signed>
PAGEDOPT_HD std::uint32_t bend_place(int lane) {
  return static_cast<std::uint32_t>(lane % BendTable::kCopies) * sizeof(Bend) + (is_signed ? 0u : 128u);
}

// What a kernel of 8-bit rows looks up, in shared memory on a GPU.
struct Lookups {
  CodeMaps maps;
  BendTable bends;
};

// ---- levels ----

// Outside of kSmallAbsmax and this the inverse of an absmax, or the numbers of its block, are not exact enough: the
// block and its absmax are scaled, which changes no code.
inline constexpr float kGreatAbsmax = 0x1p20f, kShrink = 0x1p-108f;

// What depends on a block's absmax. pre: kSmallAbsmax <= absmax <= kGreatAbsmax
struct Scale {
  float inverse, top;
};

// The last decade's cells in [0, 1]: 1 / w.
template <bool is_signed>
inline constexpr float kTopCells = (is_signed ? 64.0f : 128.0f) / 0.9f;
// Over the last cell the level of positive numbers rises by this besides, so that code 255, the one, starts at
// 1 - w / 4: there the bent line is 5/8 below it.
inline constexpr float kTopRise = static_cast<float>(5.0 / 6.0 * kLevel);

template <bool is_signed>
PAGEDOPT_HD Scale scale_of(float absmax) {
  const float rough = rough_reciprocal(absmax), inverse = fused(rough, fused(-absmax, rough, 1.0f), rough);
  return {inverse * kScaleY, inverse * kTopCells<is_signed>};
}

// The code in byte 2; in the bytes below it less than 2 kLevelDoubt where it is in doubt. Unsigned: code 0 for zero,
// and for nothing else.
template <bool is_signed>
PAGEDOPT_HD std::uint32_t level_of(const BendTable& bends, std::uint32_t place, const Scale& scale, float x) {
  const float y = (is_signed ? magnitude(x) : x) * scale.inverse;
  const Bend bend = bends.of(y, place);
  const float a = fused(bend.slope, y, bend.offset);
  const std::uint32_t level =
      least_of(bits_of(a), bits_of(fused(a, 0.25f, bend.middle)), bits_of(fused(a, 0.2f, bend.next)));
  const float top = saturated(x, scale.top, 1.0f - kTopCells<is_signed>);
  if constexpr (is_signed) {
    constexpr auto zero = static_cast<float>((kZeroCode<true> + 0.5 + kLevelDoubt<true> / kLevelUnits) * kLevel);
    const float rank = float_of(level | (bits_of(x) & 0x80000000u));
    return bits_of(fused(top, kTopRise, zero) + rank);
  }
  // The first is just below code 1 for zero, just above it, and so in doubt, for the very least numbers.
  return least_with_sum(bits_of(x), 0xffffu, bits_of(fused(top, kTopRise, float_of(level))));
}

// ---- codes ----

// x[i], where an index of registers would put x into memory.
PAGEDOPT_HD float chosen(const float (&x)[kLaneElements], int i) {
  const float a = i & 1 ? x[1] : x[0], b = i & 1 ? x[3] : x[2], c = i & 1 ? x[5] : x[4], d = i & 1 ? x[7] : x[6];
  const float low = i & 2 ? b : a, high = i & 2 ? d : c;
  return i & 4 ? high : low;
}

// Settles the codes in doubt: one block in fifteen has one. `above`: how far levels are above an edge.
template <bool is_signed>
PAGEDOPT_HD void settle_lane(const CodeMap& map, float absmax, const float (&x)[kLaneElements], const Stored<2>& above,
                             Stored<1>& codes) {
  std::uint32_t doubtful = 0;  // a bit each
  for (int i = 0; i < kLaneElements; ++i)
    doubtful |= static_cast<std::uint32_t>(static_cast<int>(above.get(i) - 2 * kLevelDoubt<is_signed>) >> 31) & 1u << i;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int i = 0; i < kLaneElements; ++i) {
    if ((doubtful >> i & 1u) == 0u) continue;
    const int shift = i % 4 * 8;
    const auto code = static_cast<int>((i < 4 ? codes.word[0] : codes.word[1]) >> shift & 255u);
    const auto change = static_cast<std::uint32_t>(code ^ settle<is_signed>(map, chosen(x, i), absmax, code)) << shift;
    codes.word[0] ^= i < 4 ? change : 0u;
    codes.word[1] ^= i < 4 ? 0u : change;
  }
}

// Numbers that would become zero stay apart from it.
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
PAGEDOPT_HD Stored<1> encode_lane(const Lookups& tables, int lane, float absmax, float (&x)[kLaneElements]) {
  Stored<1> codes = {};
  if (seldom(!(absmax >= kSmallAbsmax && absmax <= kGreatAbsmax))) {
    if (!(absmax > 0.0f && absmax <= FLT_MAX)) {
      for (int i = 0; i < kLaneElements; ++i) codes.put(i, kZeroCode<is_signed>);
      return codes;
    }
    scale_lane(absmax < kSmallAbsmax ? kLift : kShrink, absmax, x);
  }
  const Scale scale = scale_of<is_signed>(absmax);
  const std::uint32_t place = bend_place<is_signed>(lane);
  Stored<2> above;
  std::uint32_t least = ~0u;  // of both halves of `above`
  for (int i = 0; i < kLaneElements; i += 4) {
    std::uint32_t level[4];
    for (int j = 0; j < 4; ++j) level[j] = level_of<is_signed>(tables.bends, place, scale, x[i + j]);
    codes.word[i / 4] = third_bytes(level[0], level[1], level[2], level[3]);
    above.word[i / 2] = low_halves(level[0], level[1]);
    above.word[i / 2 + 1] = low_halves(level[2], level[3]);
    least = least_halves(least, above.word[i / 2], above.word[i / 2 + 1]);
  }
  if (seldom(least_half(least) < 2 * kLevelDoubt<is_signed>))
    settle_lane<is_signed>(tables.maps.of<is_signed>(), absmax, x, above, codes);
  return codes;
}

}  // namespace pagedopt

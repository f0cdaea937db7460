// Adam in two parts, moments and then parameters, with approximate roots and quotients where the exact ones do not
// decide a bit of the result: for 8-bit rows with parameters of 16 bits. (AMSGrad's third moment would not fit into the
// registers.)
#pragma once

#include <cfloat>
#include <cstdint>
#include <type_traits>

#include "gpu/kernels/arithmetic.h"
#include "gpu/kernels/rule_lane.h"
#include "rules/rules.h"

namespace pagedopt {

template <class K>
inline constexpr bool in_parts = std::is_same_v<typename K::Rule, Adam> && K::is_8bit && K::dtype != Dtype::f32;

// The scalars as Adam has them.
struct AdamScalars {
  CommonScalars<float> common;
  Adam::Scalars<float> own;
};

template <bool decay>
PAGEDOPT_HD void moments_lane(const AdamScalars& s, Registers<Adam>& r) {
  for (int i = 0; i < kLaneElements; ++i)
    Adam::moments(s.own, gradient_of(s.common, decay, r.g[i], r.p[i]), r.slot[0][i], r.slot[1][i]);
}

PAGEDOPT_HD void params_lane(const AdamScalars& s, Registers<Adam>& r) {
  for (int i = 0; i < kLaneElements; ++i) {
    float &m = r.slot[0][i], &v = r.slot[1][i];
    const bool finite = v <= FLT_MAX;
    r.p[i] = finite ? moved(s.common, r.p[i], Adam::move(s.common, s.own, m, v)) : r.p[i];
    m = finite ? m : 0.0f, v = finite ? v : 0.0f;
  }
}

// The move as it is approximated below and Adam::move are apart by less than this part of either: in units of
// 2^-24, 3.5 and 1 for the roots, 2 for adding eps, 3 for the reciprocal, 1 for its product, 1 for that of the rate, 1
// for the division, 1 for the rate with this doubt.
inline constexpr float kMoveDoubt = 0x1p-20f;

// Where that holds. A larger eps than the least also makes up for the root of a subnormal number being lost. Within
// these bounds no result but zero is below 2^-121, nor one above 2^118.
inline constexpr float kLeastEps = 0x1p-38f, kMostEps = 0x1p20f, kMostV = 0x1p40f;
inline constexpr float kLeastRate = 0x1p-40f, kMostRate = 0x1p40f, kLeastM = 0x1p-60f, kMostM = 0x1p40f;

// What is the same for all lanes: less the rate, at either end of the doubt, and whether the doubt holds.
struct QuickScalars {
  float least, most;
  bool is_quick;
};

PAGEDOPT_HD QuickScalars quick_scalars(const AdamScalars& s) {
  const float rate = s.common.rate, eps = s.own.eps, size = magnitude(rate);
  return {rate * (-1.0f + kMoveDoubt), rate * (-1.0f - kMoveDoubt),
          size >= kLeastRate && size <= kMostRate && eps >= kLeastEps && eps <= kMostEps};
}

// Without branches, whether all moments are within those bounds; sets r.most.
PAGEDOPT_HD bool is_moderate(Registers<Adam>& r) {
  std::uint32_t most = 0, least = ~0u;  // of magnitudes of m, as bits: twice, and less one, so that zero is the largest
  r.most[1] = 0;
  for (int i = 0; i < kLaneElements; i += 2) {
    const std::uint32_t twice[2] = {bits_of(r.slot[0][i]) * 2u, bits_of(r.slot[0][i + 1]) * 2u};
    most = most_of(most, twice[0], twice[1]);
    least = least_with_sum(twice[1], ~0u, least_with_sum(twice[0], ~0u, least));
    r.most[1] = most_of(r.most[1], bits_of(r.slot[1][i]), bits_of(r.slot[1][i + 1]));
  }
  r.most[0] = most >> 1;
  return r.most[0] <= bits_of(kMostM) && r.most[1] <= bits_of(kMostV) && least >= 2u * bits_of(kLeastM) - 1u;
}

// New parameters, if they are the same whatever the move is within its doubt: rounding is monotonic.
template <Dtype dtype>
PAGEDOPT_HD bool quick_params(const AdamScalars& s, const QuickScalars& quick, const Registers<Adam>& r,
                              Stored<2>& to) {
  std::uint32_t doubt = 0;
  for (int i = 0; i < kLaneElements; i += 2) {
    float least[2], most[2];
    for (int j = 0; j < 2; ++j) {
      const float root = rough_root(r.slot[1][i + j]), kept = r.p[i + j] * s.common.decoupled_keep;
      const float direction = r.slot[0][i + j] * rough_reciprocal(root + s.own.eps);
      least[j] = fused(direction, quick.least, kept);
      most[j] = fused(direction, quick.most, kept);
    }
    to.word[i / 2] = narrowed_pair<dtype>(least[0], least[1]);
    doubt |= to.word[i / 2] ^ narrowed_pair<dtype>(most[0], most[1]);
  }
  return doubt == 0;
}

// ---- parameters as they are stored ----

// What depends on the scalars of a row alone.
template <class R>
struct RowScalars {
  PAGEDOPT_HD explicit RowScalars(const Scalars<float>&) {}
};

template <>
struct RowScalars<Adam> {
  PAGEDOPT_HD explicit RowScalars(const Scalars<float>& s) : adam{s.common, s.of<Adam>()}, quick(quick_scalars(adam)) {}
  AdamScalars adam;
  QuickScalars quick;
};

// New slots, and the new parameters. Few lanes need correctly rounded roots and quotients: the bits that these decide
// are hardly ever among the 16 of a parameter.
template <class K, class R = typename K::Rule>
PAGEDOPT_HD Stored<kDtypeBytes<K::dtype>> update_lane(const Scalars<float>& s, const RowScalars<R>& row,
                                                      bool skip_zeros, Registers<R>& r) {
  if constexpr (in_parts<K>) {
    if (K::plain || !skip_zeros) {
      !K::plain&& s.common.coupled_decay != 0.0f ? moments_lane<true>(row.adam, r) : moments_lane<false>(row.adam, r);
      Stored<2> params;
      const bool is_right = quick_params<K::dtype>(row.adam, row.quick, r, params), is_within = is_moderate(r);
      if (!seldom(!(is_within && is_right && row.quick.is_quick))) return params;
      params_lane(row.adam, r);
    }
  }
  if (!in_parts<K> || (!K::plain && skip_zeros)) rule_lane<K>(s, skip_zeros, r);
  if constexpr (in_parts<K>) r.most[0] = largest_bits(r.slot[0]), r.most[1] = largest_bits(r.slot[1]);
  return narrow<K::dtype>(r.p);
}

}  // namespace pagedopt

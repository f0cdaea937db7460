// The rule for the eight elements of a lane.
#pragma once

#include <cfloat>
#include <cstdint>

#include "gpu/kernels/arithmetic.h"
#include "gpu/kernels/lane.h"
#include "rules/rules.h"

namespace pagedopt {

// What a lane has of a block.
struct Registers {
  float p[kLaneElements], g[kLaneElements];
  float m[kLaneElements], v[kLaneElements], vmax[kLaneElements];
  std::uint32_t most[2];  // largest_bits of new m and v, where they move in two parts
};

PAGEDOPT_HD void raise(std::uint32_t& most, std::uint32_t x) { most = x > most ? x : most; }

// New parameter and moments. 8-bit state: an element whose v' is not finite keeps its parameter and its moments become
// zero (a non-finite gradient makes v' so).
template <class K>
PAGEDOPT_HD void adam_lane(const AdamScalars& s, bool skip_zeros, Registers& r) {
  const bool decay = !K::plain && s.coupled_decay != 0.0f;
  for (int i = 0; i < kLaneElements; ++i) {
    if (!K::plain && skip_zeros && r.g[i] == 0.0f) continue;
    AdamElement e{r.p[i], r.m[i], r.v[i], K::amsgrad ? r.vmax[i] : 0.0f};
    adam<K::amsgrad>(s, decay, r.g[i], e);
    if (K::is_8bit && !(e.v <= FLT_MAX)) e = {r.p[i], 0.0f, 0.0f, 0.0f};
    r.p[i] = e.p, r.m[i] = e.m, r.v[i] = e.v;
    if (K::amsgrad) r.vmax[i] = e.vmax;
  }
}

// ---- the same in two parts, for 8-bit rows with parameters of 16 bits and without amsgrad (a third moment
// would not fit into the registers): moments, then parameters ----

template <class K>
inline constexpr bool in_parts = K::is_8bit && K::dtype != Dtype::f32 && !K::amsgrad;

template <bool decay>
PAGEDOPT_HD void moments_lane(const AdamScalars& s, Registers& r) {
  for (int i = 0; i < kLaneElements; ++i) {
    AdamElement e{r.p[i], r.m[i], r.v[i], 0.0f};
    adam_moments<false>(s, decay, r.g[i], e);
    r.m[i] = e.m, r.v[i] = e.v;
  }
}

PAGEDOPT_HD void params_lane(const AdamScalars& s, Registers& r) {
  for (int i = 0; i < kLaneElements; ++i) {
    const AdamElement e{r.p[i], r.m[i], r.v[i], 0.0f};
    const bool finite = e.v <= FLT_MAX;
    r.p[i] = finite ? e.p * s.decoupled_keep - adam_move<false>(s, e) : e.p;
    r.m[i] = finite ? e.m : 0.0f, r.v[i] = finite ? e.v : 0.0f;
  }
}

// The move as it is approximated below and adam_move are apart by less than this part of either: in units of 2^-24, 3.5
// and 1 for the roots, 2 for adding eps, 3 for the reciprocal, 1 for its product, 1 for that of the rate, 1 for the
// division, 1 for the rate with this doubt.
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
  const float rate = magnitude(s.rate);
  return {s.rate * (-1.0f + kMoveDoubt), s.rate * (-1.0f - kMoveDoubt),
          rate >= kLeastRate && rate <= kMostRate && s.eps >= kLeastEps && s.eps <= kMostEps};
}

// Without branches, whether all moments are within those bounds; sets r.most.
PAGEDOPT_HD bool is_moderate(Registers& r) {
  std::uint32_t most = 0, least = ~0u;  // of magnitudes of m, as bits: twice, and less one, so that zero is the largest
  r.most[1] = 0;
  for (int i = 0; i < kLaneElements; i += 2) {
    const std::uint32_t twice[2] = {bits_of(r.m[i]) * 2u, bits_of(r.m[i + 1]) * 2u};
    most = most_of(most, twice[0], twice[1]);
    least = least_with_sum(twice[1], ~0u, least_with_sum(twice[0], ~0u, least));
    r.most[1] = most_of(r.most[1], bits_of(r.v[i]), bits_of(r.v[i + 1]));
  }
  r.most[0] = most >> 1;
  return r.most[0] <= bits_of(kMostM) && r.most[1] <= bits_of(kMostV) && least >= 2u * bits_of(kLeastM) - 1u;
}

// New parameters, if they are the same whatever the move is within its doubt: rounding is monotonic.
template <Dtype dtype>
PAGEDOPT_HD bool quick_params(const AdamScalars& s, const QuickScalars& quick, const Registers& r, Stored<2>& to) {
  std::uint32_t doubt = 0;
  for (int i = 0; i < kLaneElements; i += 2) {
    float least[2], most[2];
    for (int j = 0; j < 2; ++j) {
      const float root = rough_root(r.v[i + j]), kept = r.p[i + j] * s.decoupled_keep;
      const float direction = r.m[i + j] * rough_reciprocal(root + s.eps);
      least[j] = fused(direction, quick.least, kept);
      most[j] = fused(direction, quick.most, kept);
    }
    to.word[i / 2] = narrowed_pair<dtype>(least[0], least[1]);
    doubt |= to.word[i / 2] ^ narrowed_pair<dtype>(most[0], most[1]);
  }
  return doubt == 0;
}

// ---- parameters as they are stored ----

// New moments, and the new parameters. Few lanes need correctly rounded roots and quotients: the bits that these decide
// are hardly ever among the 16 of a parameter.
template <class K>
PAGEDOPT_HD Stored<kDtypeBytes<K::dtype>> update_lane(const AdamScalars& s, const QuickScalars& quick, bool skip_zeros,
                                                      Registers& r) {
  if constexpr (in_parts<K>) {
    if (K::plain || !skip_zeros) {
      !K::plain&& s.coupled_decay != 0.0f ? moments_lane<true>(s, r) : moments_lane<false>(s, r);
      Stored<2> params;
      const bool is_right = quick_params<K::dtype>(s, quick, r, params), is_within = is_moderate(r);
      if (!seldom(!(is_within && is_right && quick.is_quick))) return params;
      params_lane(s, r);
    }
  }
  if (!in_parts<K> || (!K::plain && skip_zeros)) adam_lane<K>(s, skip_zeros, r);
  if constexpr (in_parts<K>) r.most[0] = largest_bits(r.m), r.most[1] = largest_bits(r.v);
  return narrow<K::dtype>(r.p);
}

}  // namespace pagedopt

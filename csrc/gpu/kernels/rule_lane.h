// The rule for the eight elements of a lane.
#pragma once

#include <cfloat>
#include <cstdint>

#include "gpu/kernels/arithmetic.h"
#include "gpu/kernels/lane.h"
#include "rules/rules.h"

namespace pagedopt {

// What a lane has of a block.
template <class R>
struct Registers {
  float p[kLaneElements], g[kLaneElements];
  float slot[kSlotEntries<R>][kLaneElements];
  std::uint32_t most[kSlotEntries<R>];  // largest_bits of the new slots, where they move in two parts
};

PAGEDOPT_HD void raise(std::uint32_t& most, std::uint32_t x) { most = x > most ? x : most; }

// Element i: new parameter and slots. Returns its move, 0 where nothing moves it. 8-bit state: where the new slots are
// not finite (as a gradient that is not makes them), the parameter stays and the slots become zero.
template <class K, class R = typename K::Rule>
PAGEDOPT_HD float update_element(const CommonScalars<float>& common, const typename R::template Scalars<float>& own,
                                 bool skip_zeros, int i, Registers<R>& r) {
  if (!K::plain && skip_zeros && r.g[i] == 0.0f) return 0.0f;
  Element<R, float> e;
  e.p = r.p[i];
  for (int slot = 0; slot < kSlotsOf<R>; ++slot) e.slot[slot] = r.slot[slot][i];
  const float move = update<R>(common, own, !K::plain && common.coupled_decay != 0.0f, r.g[i], e);
  const bool finite = !K::is_8bit || is_finite(e, FLT_MAX);
  r.p[i] = finite ? e.p : r.p[i];
  for (int slot = 0; slot < kSlotsOf<R>; ++slot) r.slot[slot][i] = finite ? e.slot[slot] : 0.0f;
  return !finite || R::is_still(e.slot) ? 0.0f : move;
}

template <class K, class R = typename K::Rule>
PAGEDOPT_HD void rule_lane(const Scalars<float>& s, bool skip_zeros, Registers<R>& r) {
  const auto own = s.of<R>();
  for (int i = 0; i < kLaneElements; ++i) update_element<K>(s.common, own, skip_zeros, i, r);
}

}  // namespace pagedopt

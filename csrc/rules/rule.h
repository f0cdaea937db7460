// What a rule is: the update formula of an optimizer, once, for one element, in the notation of its paper. CPU and GPU
// compile the same text. A rule is a struct with
// - kSlots: the arrays of its state, at most kMostSlots. A rule without state has none.
// - kNumbers: the options it reads besides those that every rule has; hyper.number[i] is the one named kNumbers[i].
// - kFiniteSlot: the slot that is not finite where the gradient is not; of a rule whose state may have 8 bits.
// - Scalars<Real>: what is equal for all elements of a parameter.
// - scalars<Real>(hyper, t, rate): makes them for step t = 1, 2, ...; may correct `rate`, the learning rate.
// - update(common, scalars, g, slot): makes the new slots of one element and returns its move, which is subtracted from
//   the parameter.
// and with what RuleDefaults has, where it differs. Real is float, or double for float64 parameters.
#pragma once

#include <cmath>
#include <type_traits>

#include "rules/host_device.h"
#include "rules/hyper.h"

namespace pagedopt {

inline constexpr int kMostSlots = 3;

struct Slot {
  const char* name;
  bool is_signed;  // whether its values have a sign: which 8-bit map it takes
};

// The scalars that every rule has. Made in double, then rounded.
template <class Real>
struct CommonScalars {
  Real grad_scale;      // multiplies the gradient: loss scale, clipping and the sign of `maximize`
  Real coupled_decay;   // wd, or 0
  Real decoupled_keep;  // 1 - lr wd, or 1
  Real rate;            // multiplies the direction
};

struct RuleDefaults {
  static constexpr Slot kSlots[] = {{nullptr, false}};  // none
  static constexpr const char* kNumbers[] = {nullptr};  // none

  // Whether its state may have 8 bits.
  static constexpr bool kHas8bit = true;

  // Whether an element with these new slots counts as one that does not move in the norm of the update (max_unorm).
  template <class Real, int n>
  PAGEDOPT_HD static bool is_still(const Real (&)[n]) {
    return false;
  }
};

// 1 - beta^t, which corrects a moment that started at zero; 1 without bias correction.
PAGEDOPT_HD double correction(const Hyper& hyper, double beta, double t) {
  return hyper.bias_correction ? 1.0 - std::pow(beta, t) : 1.0;
}

template <class R>
inline constexpr int kSlotsOf = R::kSlots[0].name ? static_cast<int>(sizeof(R::kSlots) / sizeof(Slot)) : 0;
template <class R>
inline constexpr int kNumbersOf = R::kNumbers[0] ? static_cast<int>(sizeof(R::kNumbers) / sizeof(const char*)) : 0;

// Of an array with an entry a slot, in C++ at least one.
template <class R>
inline constexpr int kSlotEntries = kSlotsOf<R> > 0 ? kSlotsOf<R> : 1;

// Calls visit(slot as a type) for every slot of a rule.
template <class R, class Visit>
PAGEDOPT_HD void for_slots(Visit visit) {
  static_assert(kMostSlots == 3, "a line a slot");
  if constexpr (kSlotsOf<R> > 0) visit(std::integral_constant<int, 0>{});
  if constexpr (kSlotsOf<R> > 1) visit(std::integral_constant<int, 1>{});
  if constexpr (kSlotsOf<R> > 2) visit(std::integral_constant<int, 2>{});
}

}  // namespace pagedopt

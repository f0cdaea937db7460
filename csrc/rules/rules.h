// All rules. Adding one: its header in the list of includes, its row in the list of rules.
#pragma once

#include <cstring>

#include "rules/adagrad.h"
#include "rules/adam.h"
#include "rules/ademamix.h"
#include "rules/amsgrad.h"
#include "rules/hyper.h"
#include "rules/lion.h"
#include "rules/rmsprop.h"
#include "rules/rule.h"
#include "rules/sgd.h"

// A rule for each number of slots, none to three. Builds with sanitizers have only these: compiling takes most of their
// time, and where a rule reads and writes depends on its slots alone.
#define PAGEDOPT_FEW_RULES(X) /* name in Python, struct */ \
  X(adam, Adam)                                            \
  X(adam_amsgrad, AmsGrad)                                 \
  X(lion, Lion)                                            \
  X(sgd, Sgd)

#if defined(PAGEDOPT_HAS_FEW_RULES)
#define PAGEDOPT_RULES PAGEDOPT_FEW_RULES
#else
#define PAGEDOPT_RULES(X)                               \
  PAGEDOPT_FEW_RULES(X)                                 \
  X(sgd_momentum, SgdMomentum)                          \
  X(rmsprop, RmsProp)                                   \
  X(rmsprop_momentum, RmsPropMomentum)                  \
  X(rmsprop_centered, RmsPropCentered)                  \
  X(rmsprop_momentum_centered, RmsPropMomentumCentered) \
  X(adagrad, Adagrad)                                   \
  X(ademamix, AdEMAMix)
#endif

namespace pagedopt {

#define PAGEDOPT_ID(id, Rule) id,
enum class RuleId : unsigned char { PAGEDOPT_RULES(PAGEDOPT_ID) };
#undef PAGEDOPT_ID

#define PAGEDOPT_ONE(id, Rule) +1
inline constexpr int kRules = PAGEDOPT_RULES(PAGEDOPT_ONE);
#undef PAGEDOPT_ONE

// Calls visit(an object of the rule's struct).
template <class Visit>
PAGEDOPT_HD void with_rule(RuleId rule, Visit visit) {
  switch (rule) {
#define PAGEDOPT_CASE(id, Rule) \
  case RuleId::id: visit(Rule{}); break;
    PAGEDOPT_RULES(PAGEDOPT_CASE)
#undef PAGEDOPT_CASE
  }
}

// How many slots a row of the rule has.
PAGEDOPT_HD int slots_of(RuleId rule) {
  int slots = 0;
  with_rule(rule, [&](auto r) { slots = kSlotsOf<decltype(r)>; });
  return slots;
}

// Whether the state of a row of the rule may have 8 bits.
PAGEDOPT_HD bool has_8bit(RuleId rule) {
  bool has = false;
  with_rule(rule, [&](auto r) { has = decltype(r)::kHas8bit; });
  return has;
}

// The scalars of any rule.
template <class Real>
struct Scalars {
  CommonScalars<Real> common;
  union Own {
#define PAGEDOPT_MEMBER(id, Rule) Rule::Scalars<Real> id;
    PAGEDOPT_RULES(PAGEDOPT_MEMBER)
#undef PAGEDOPT_MEMBER
  } own;

  template <class R>
  PAGEDOPT_HD typename R::template Scalars<Real> of() const {
    typename R::template Scalars<Real> scalars;
    std::memcpy(&scalars, &own, sizeof scalars);
    return scalars;
  }
};

template <class R, class Real>
PAGEDOPT_HD Scalars<Real> make_scalars(const Hyper& hyper, double t, double grad_scale) {
  Scalars<Real> s{};
  double rate = hyper.lr;
  const auto own = R::template scalars<Real>(hyper, t, rate);
  std::memcpy(&s.own, &own, sizeof own);
  s.common.grad_scale = static_cast<Real>(hyper.maximize ? -grad_scale : grad_scale);
  s.common.coupled_decay = static_cast<Real>(hyper.decoupled ? 0.0 : hyper.weight_decay);
  s.common.decoupled_keep = static_cast<Real>(hyper.decoupled ? 1.0 - hyper.lr * hyper.weight_decay : 1.0);
  s.common.rate = static_cast<Real>(rate);
  return s;
}

template <class Real>
PAGEDOPT_HD Scalars<Real> make_scalars(const Hyper& hyper, double t, double grad_scale) {
  Scalars<Real> s{};
  with_rule(hyper.rule, [&](auto rule) { s = make_scalars<decltype(rule), Real>(hyper, t, grad_scale); });
  return s;
}

// ---- one element ----

template <class R, class Real>
struct Element {
  Real p, slot[kSlotEntries<R>];
};

// The gradient as the rule takes it. `decay`: whether coupled decay is on.
template <class Real>
PAGEDOPT_HD Real gradient_of(const CommonScalars<Real>& common, bool decay, Real grad, Real p) {
  const Real g = common.grad_scale * grad;
  return decay ? g + common.coupled_decay * p : g;
}

template <class Real>
PAGEDOPT_HD Real moved(const CommonScalars<Real>& common, Real p, Real move) {
  return p * common.decoupled_keep - move;
}

// New parameter and slots; returns the move.
template <class R, class Real>
PAGEDOPT_HD Real update(const CommonScalars<Real>& common, const typename R::template Scalars<Real>& own, bool decay,
                        Real grad, Element<R, Real>& e) {
  const Real move = R::update(common, own, gradient_of(common, decay, grad, e.p), e.slot);
  e.p = moved(common, e.p, move);
  return move;
}

// Whether the new slots are finite: they are not where the gradient is not. For state of 8 bits.
template <class R, class Real>
PAGEDOPT_HD bool is_finite(const Element<R, Real>& e, Real most) {
  if constexpr (R::kHas8bit) {
    const Real x = e.slot[R::kFiniteSlot];
    return R::kSlots[R::kFiniteSlot].is_signed ? x <= most && x >= -most : x <= most;
  }
  return true;
}

}  // namespace pagedopt

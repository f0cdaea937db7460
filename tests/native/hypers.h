// Options of parameter groups for tests: every rule, with the numbers that its classes have by default.
#pragma once

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "rules/rules.h"

namespace pagedopt {

inline double default_of(const char* number) {
  const std::pair<const char*, double> numbers[] = {
      {"beta1", 0.9},   {"beta2", 0.999},  {"beta3", 0.9999},  {"eps", 1e-8},     {"alpha", 0.99},  {"t_alpha", 3.0},
      {"t_beta3", 5.0}, {"momentum", 0.9}, {"dampening", 0.1}, {"nesterov", 1.0}, {"lr_decay", 0.1}};
  for (const auto& [name, value] : numbers)
    if (std::strcmp(name, number) == 0) return value;
  fail(std::string("tests/native/hypers.h has no value for ") + number);
  return 0.0;
}

// The place of a number among those of the rule.
inline double& number_of(Hyper& hyper, const char* number) {
  double* found = nullptr;
  with_rule(hyper.rule, [&](auto rule) {
    for (int i = 0; i < kNumbersOf<decltype(rule)>; ++i)
      if (std::strcmp(rule.kNumbers[i], number) == 0) found = &hyper.number[i];
  });
  if (!found) fail(std::string("the rule has no ") + number);
  return *found;
}
inline double number_of(const Hyper& hyper, const char* number) { return number_of(const_cast<Hyper&>(hyper), number); }

inline Hyper hyper_of(RuleId rule = RuleId::adam) {
  Hyper hyper;
  hyper.rule = rule;
  with_rule(rule, [&](auto r) {
    for (int i = 0; i < kNumbersOf<decltype(r)>; ++i) hyper.number[i] = default_of(r.kNumbers[i]);
  });
  return hyper;
}

// Another rule, its numbers by default; the other options stay.
inline void set_rule(Hyper& hyper, RuleId rule) {
  const Hyper fresh = hyper_of(rule);
  hyper.rule = rule;
  std::memcpy(hyper.number, fresh.number, sizeof hyper.number);
}

inline std::vector<RuleId> all_rules() {
  std::vector<RuleId> rules;
  for (int i = 0; i < kRules; ++i) rules.push_back(static_cast<RuleId>(i));
  return rules;
}

inline const char* name_of(RuleId rule) {
#define PAGEDOPT_NAME_OF(id, Rule) #id,
  const char* const names[] = {PAGEDOPT_RULES(PAGEDOPT_NAME_OF)};
#undef PAGEDOPT_NAME_OF
  return names[static_cast<int>(rule)];
}

// Whether a slot of the rule has a sign.
inline bool is_signed(RuleId rule, int slot) {
  bool found = false;
  with_rule(rule, [&](auto r) {
    if constexpr (kSlotsOf<decltype(r)> > 0) found = slot < kSlotsOf<decltype(r)> && r.kSlots[slot].is_signed;
  });
  return found;
}

}  // namespace pagedopt

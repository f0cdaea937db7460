// What a parameter group asks for, as Python gives it.
#pragma once

namespace pagedopt {

enum class RuleId : unsigned char;  // see rules.h

inline constexpr int kMostNumbers = 8;

struct Hyper {
  RuleId rule{};
  double lr = 1e-3, weight_decay = 0.0;
  bool decoupled = false, maximize = false;
  bool bias_correction = true;       // of rules that correct their moments
  bool skip_zeros = false;           // elements whose gradient is zero are left alone: parameter, state and decay
  double max_unorm = 0.0;            // 0: off; else the norm of the update is held to max_unorm * ||p||
  int percentile_clipping = 100;     // 100: off; see clip_scale in step/step.h
  double number[kMostNumbers] = {};  // the rule's own options, in the order of its kNumbers
};

}  // namespace pagedopt

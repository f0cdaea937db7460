// Norms that bound a step: of the update (max_unorm) and of past gradients (percentile clipping).
#pragma once

#include <cmath>

#include "rules/host_device.h"

namespace pagedopt {

// The factor that holds the norm of the update, ||move|| / lr, to max_unorm times that of the parameter.
// `move_square` is of the moves, so with lr in them.
PAGEDOPT_HD double unorm_limit(double max_unorm, double lr, double move_square, double param_square) {
  const double unorm = std::sqrt(move_square) / (lr < 0.0 ? -lr : lr), most = max_unorm * std::sqrt(param_square);
  return unorm > most ? most / unorm : 1.0;
}

// ---- percentile clipping: see clip_scale in step/step.h ----

inline constexpr int kGnormHistory = 100;

// A norm as it counts: one that is not finite counts as infinite.
PAGEDOPT_HD double counted_norm(double norm) { return norm - norm == 0.0 ? norm : HUGE_VAL; }

// The place in the history of step t; within it whatever t is, for t comes from a tensor that anybody can write to.
PAGEDOPT_HD int history_place(double t) {
  constexpr double kMostSteps = 9007199254740992.0;  // 2^53: beyond, a double does not count every step
  return t >= 1.0 && t <= kMostSteps ? static_cast<int>(static_cast<long long>(t - 1.0) % kGnormHistory) : 0;
}

// The entry of rank floor(percentile * k / 100) of the k entries above zero, if it is one of history[first],
// history[first + stride], ...; else 0. By counting, so that lanes can share the work and nothing is moved.
PAGEDOPT_HD float percentile_entry(const float* history, int percentile, int first, int stride) {
  int positive = 0;
  for (int i = 0; i < kGnormHistory; ++i) positive += history[i] > 0.0f;
  const int rank = positive * percentile / 100;
  for (int i = first; i < kGnormHistory; i += stride) {
    int less = 0, equal = 0;
    for (int j = 0; j < kGnormHistory; ++j) {
      less += history[j] > 0.0f && history[j] < history[i];
      equal += history[j] == history[i];
    }
    if (history[i] > 0.0f && less <= rank && rank < less + equal) return history[i];
  }
  return 0.0f;
}

// min(1, clip / norm); 1 where nothing was seen yet (clip is 0).
PAGEDOPT_HD double clip_factor(double norm, float clip) {
  return clip > 0.0f && static_cast<float>(norm) > clip ? static_cast<double>(clip) / norm : 1.0;
}

}  // namespace pagedopt

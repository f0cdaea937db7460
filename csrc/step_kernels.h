// What step_host asks of one instruction set. step_kernels.cpp defines `kernels` in a namespace per instruction set.
#pragma once

#include <cstdint>

#include "step.h"

namespace pagedopt {

// The part of a row that one task works on: its pointers start at the task's first element.
struct Piece {
  void* param;
  const void* grad;
  void* slot[kSlots];
  float* absmax[kSlots];     // blockwise8: of the first block; tensorwise8: the tensor's, of the step before
  float new_absmax[kSlots];  // tensorwise8, update: the tensor's, of this step
  std::int64_t numel;
  Dtype dtype;
  Codec codec;
  bool amsgrad, skip_zeros;
  AdamScalars scalars;
};

// What the tasks of a pass find out, to be combined in task order.
struct Partial {
  double grad_square = 0.0;  // sum of squares of the gradient as it is stored
  double move_square = 0.0;  // of adam_move
  double param_square = 0.0;
  float absmax[kSlots] = {};  // largest magnitudes of the new moments
};

struct Kernels {
  const char* name;
  Partial (*gradient_norm)(const Piece& piece);
  Partial (*measure)(const Piece& piece);
  void (*update)(const Piece& piece);
  void (*encode)(const float* from, std::int64_t numel, std::uint8_t* codes, float* absmax, bool is_signed,
                 std::int64_t block);
  void (*decode)(const std::uint8_t* codes, const float* absmax, std::int64_t numel, float* to, bool is_signed,
                 std::int64_t block);
};

namespace portable {
extern const Kernels kernels;
}
#if defined(PAGEDOPT_X86)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

}  // namespace pagedopt

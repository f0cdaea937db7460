// What a step asks of its kernels, on every device; then what step_host asks of one instruction set:
// step/cpu/kernels.cpp defines `kernels` in a namespace per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "step/step.h"

namespace pagedopt {

// The part of a row that one task works on: its pointers start at the task's first element.
struct Piece {
  void* param;
  const void* grad;
  void* slot[kMostSlots];
  float* absmax[kMostSlots];     // blockwise8: of the first block; tensorwise8: the tensor's, of the step before
  float new_absmax[kMostSlots];  // tensorwise8, update: the tensor's, of this step
  std::int64_t numel;
  Dtype dtype;
  Codec codec;
  bool skip_zeros;
  Scalars<float> scalars;
  Scalars<double> scalars64;  // of float64 parameters
};

PAGEDOPT_HD bool is_8bit(const Row& row) { return is_8bit(row.codec); }
// Of parameter and gradient; of a slot.
PAGEDOPT_HD std::int64_t bytes_per_element(Dtype dtype) {
  return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2;
}
PAGEDOPT_HD std::int64_t bytes_per_element(Codec codec) { return is_8bit(codec) ? 1 : codec == Codec::f64 ? 8 : 4; }
PAGEDOPT_HD bool clips(const Hyper& hyper) { return hyper.percentile_clipping < 100; }
PAGEDOPT_HD bool measures(const Row& row, const Hyper& hyper) {
  return hyper.max_unorm > 0.0 || row.codec == Codec::tensorwise8;
}
PAGEDOPT_HD bool has_pass(const Row& row, Pass pass, const Hyper& hyper) {
  return pass == Pass::update || (pass == Pass::measure ? measures(row, hyper) : clips(hyper));
}

PAGEDOPT_HD std::int64_t blocks(std::int64_t elements) { return (elements + kBlockElements - 1) / kBlockElements; }

PAGEDOPT_HD std::int64_t first_absmax(const Row& row, std::int64_t element) {
  return row.codec == Codec::blockwise8 ? element / kBlockElements : 0;
}

// Elements [first, last) of a row; `first` starts a block. Its scalars and new_absmax are still to be given.
PAGEDOPT_HD Piece piece_of(const Row& row, std::int64_t first, std::int64_t last, int slots, bool skip_zeros) {
  const std::int64_t dtype_bytes = bytes_per_element(row.dtype), slot_bytes = bytes_per_element(row.codec);
  Piece piece{};
  piece.param = static_cast<std::byte*>(row.param) + first * dtype_bytes;
  piece.grad = static_cast<const std::byte*>(row.grad) + first * dtype_bytes;
  for (int slot = 0; slot < slots; ++slot) {
    piece.slot[slot] = static_cast<std::byte*>(row.slot[slot]) + first * slot_bytes;
    if (is_8bit(row)) piece.absmax[slot] = row.absmax[slot] + first_absmax(row, first);
  }
  piece.numel = last - first;
  piece.dtype = row.dtype;
  piece.codec = row.codec;
  piece.skip_zeros = skip_zeros;
  return piece;
}

// What the tasks of a pass find out, to be combined in task order.
struct Partial {
  double grad_square = 0.0;  // sum of squares of the gradient as it is stored
  double move_square = 0.0;  // of what is subtracted from the parameter
  double param_square = 0.0;
  float absmax[kMostSlots] = {};  // largest magnitudes of the new slots
};

PAGEDOPT_HD void add(Partial& sum, const Partial& part) {
  sum.grad_square += part.grad_square;
  sum.move_square += part.move_square;
  sum.param_square += part.param_square;
  for (int slot = 0; slot < kMostSlots; ++slot) sum.absmax[slot] = larger(sum.absmax[slot], part.absmax[slot]);
}

// Appends the tasks of one pass of a row.
void add_tasks(std::vector<Task>& tasks, std::size_t row, std::int64_t numel, Pass pass);

struct Kernels {
  const char* name;
  Partial (*gradient_norm)(const Piece& piece);
  struct OfRule {
    Partial (*measure)(const Piece& piece);
    void (*update)(const Piece& piece);
  } of_rule[kRules];
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

// One optimizer step on a GPU: the tables that its kernels read, the order of its tasks, and launching them. No CUDA
// header is needed here. The same kernels also run on the CPU, for tests: `emulated_kernels`.
//
//   run(gradient_norm stage)         if there is one; here and below, the parts of its tasks
//   begin_rows(all rows)             counts the step, makes the scalars
//   for each batch of rows
//     run(measure stage), finish_measure(its rows)      if there is one
//     run(update stage)
//
// What is equal to step_host to the bit: everything, but for
// - the norms of percentile_clipping and max_unorm, which are summed in another order (in double: about 1e-15);
// - beta^t in double, where a GPU's pow may differ in the last bit, which float32 scalars hardly ever show;
// - which NaN a NaN is.
#pragma once

#include <cstdint>
#include <vector>

#include "step/piece.h"
#include "step/step.h"

namespace pagedopt {

using StreamHandle = void*;  // a cudaStream_t

// Elements of a task that one CTA takes: 64 blocks for its 8 warps. A CTA so moves 450 KiB of float32 Adam, which is
// long beside its start (it reads its part, then its row and the row's scalars, about 2 us), while a small task still
// spreads over several multiprocessors.
inline constexpr std::int64_t kPartElements = std::int64_t{1} << 14;
static_assert(kTaskElements % kPartElements == 0 && kPartElements % kBlockElements == 0);

// Elements [index * kPartElements, (index + 1) * kPartElements) of a row, or to its end.
struct Part {
  std::uint32_t row, index;

  PAGEDOPT_HD std::int64_t first() const { return index * kPartElements; }
  PAGEDOPT_HD std::int64_t last(std::int64_t numel) const {
    return first() + kPartElements < numel ? first() + kPartElements : numel;
  }
};

struct DeviceHyper {
  Hyper hyper;
  const float* lr = nullptr;  // replaces hyper.lr when not null
};

// What kernels find out about a row, for the kernels after them.
struct RowWork {
  Scalars<float> scalars;           // with clipping, max_unorm and the sign of `maximize` in them
  float absmax_before[kMostSlots];  // tensorwise8: of the step before
  float new_absmax[kMostSlots];     // tensorwise8: of this step
  bool skip;                        // no gradient, or found_inf
  bool skip_zeros;                  // the group's
};

// Where a row's partial results start; part i of the row (elements from i * kPartElements) has the i-th from there.
struct RowPartials {
  std::uint64_t gradient_norm = 0, measure = 0;
};

// Addresses are the device's.
struct StepTables {
  const Row* rows = nullptr;
  const DeviceHyper* hypers = nullptr;
  const Part* parts = nullptr;
  const RowPartials* row_partials = nullptr;
  RowWork* work = nullptr;            // one a row
  Partial* partials = nullptr;        // DeviceTasks::partial_count; may be null when that is 0
  const float* found_inf = nullptr;   // when not null and not zero nothing changes, `step` included
  const float* grad_scale = nullptr;  // when not null gradients are divided by it
  double host_grad_scale = 1.0;       // multiplies every gradient
};

// What a launch runs: a pass, by the rule of its rows (gradient norms are the same for all).
struct Launch {
  Pass pass;
  RuleId rule{};
};

// Tasks that one launch, or one after another in order, may run; all that they build on is in stages before.
struct Stage {
  Launch launch;
  std::uint64_t first_task, last_task;
  std::uint32_t first_row, last_row;  // their rows are among [first_row, last_row)
};

struct DeviceTasks {
  std::vector<Task> tasks;
  std::vector<Part> parts;                // of the tasks, in order
  std::vector<std::uint64_t> first_part;  // of each task; at the end, of one after the last
  std::vector<Stage> stages;
  std::vector<RowPartials> row_partials;
  std::uint64_t partial_count = 0;
};

// The tasks of a step in the order of their launches: the gradient norms of all rows, which touch no state; then, batch
// of rows (of one rule) by batch, measure and update. To be made anew when rows or one of max_unorm,
// percentile_clipping changed.
DeviceTasks make_device_tasks(const std::vector<Row>& rows, const std::vector<Hyper>& hypers);

// Each returns a cudaError_t, 0 when the launch was accepted; an error of the launch is cleared. Nothing waits.
// pre: step_host's conditions on rows and hypers; empty ranges are allowed and launch nothing.
struct DeviceKernels {
  int (*begin_rows)(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle stream);
  int (*finish_measure)(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle stream);
  int (*run)(const StepTables& tables, Launch what, std::uint64_t first_part, std::uint64_t last_part,
             StreamHandle stream);
};

extern const DeviceKernels emulated_kernels;
#if defined(PAGEDOPT_CUDA)
extern const DeviceKernels cuda_kernels;
#endif

}  // namespace pagedopt

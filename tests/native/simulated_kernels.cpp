// The kernels of the simulated runtime: those that are emulated on the CPU, once they were launched as a GPU's are and
// what they use is the device's, managed, or locked memory of the host.
#include "gpu/kernels/tables.h"
#include "simulated_cuda.h"

namespace pagedopt {
namespace {

bool reaches(const void* memory, std::size_t bytes) {
  return bytes == 0 || memory == nullptr ||
         simulated_cuda::is_reachable(simulated_cuda::thread_context(), memory, bytes);
}

template <class T>
bool reaches(const T* first, std::size_t begin, std::size_t end) {
  return begin >= end || reaches(first + begin, (end - begin) * sizeof(T));
}

bool reaches_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row) {
  if (!reaches(tables.rows, first_row, last_row) || !reaches(tables.work, first_row, last_row) ||
      !reaches(tables.found_inf, 4) || !reaches(tables.grad_scale, 4))
    return false;
  for (std::uint32_t row = first_row; row < last_row; ++row)
    if (!reaches(tables.rows[row].step, 4) || !reaches(tables.hypers, 0, tables.rows[row].group + 1)) return false;
  return true;
}

bool reaches_parts(const StepTables& tables, std::uint64_t first_part, std::uint64_t last_part) {
  if (!reaches(tables.parts, first_part, last_part)) return false;
  for (std::uint64_t i = first_part; i < last_part; ++i) {
    const Part& part = tables.parts[i];
    if (!reaches_rows(tables, part.row, part.row + 1)) return false;
    const Row& row = tables.rows[part.row];
    const std::size_t bytes = static_cast<std::size_t>(row.numel) * (row.dtype == Dtype::f32 ? 4 : 2);
    if (!reaches(row.param, bytes) || !reaches(row.grad, bytes)) return false;
    Span spans[2 * kMostSlots];
    const std::size_t count = spans_of(row, {part.row, Pass::update, part.first(), part.last(row.numel)}, spans);
    for (std::size_t s = 0; s < count; ++s)
      for (const std::byte* edge : {spans[s].begin, spans[s].end - 1})  // locked memory is locked page by page
        if (spans[s].begin < spans[s].end && !reaches(edge, 1)) return false;
  }
  return true;
}

int begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle stream) {
  if (const int code = simulated_cuda::launch("begin_rows", static_cast<cudaStream_t>(stream))) return code;
  if (!reaches_rows(tables, first_row, last_row)) return cudaErrorIllegalAddress;
  return emulated_kernels.begin_rows(tables, first_row, last_row, stream);
}

int finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle stream) {
  if (const int code = simulated_cuda::launch("finish_measure", static_cast<cudaStream_t>(stream))) return code;
  if (!reaches_rows(tables, first_row, last_row)) return cudaErrorIllegalAddress;
  return emulated_kernels.finish_measure(tables, first_row, last_row, stream);
}

int run(const StepTables& tables, Launch what, std::uint64_t first_part, std::uint64_t last_part, StreamHandle stream) {
  if (const int code = simulated_cuda::launch("run", static_cast<cudaStream_t>(stream))) return code;
  if (!reaches_parts(tables, first_part, last_part)) return cudaErrorIllegalAddress;
  return emulated_kernels.run(tables, what, first_part, last_part, stream);
}

}  // namespace

const DeviceKernels cuda_kernels = {begin_rows, finish_measure, run};

}  // namespace pagedopt

// The kernels of a GPU. A CTA has one part of one task; a warp takes every eighth block of it. Compiled with
// -fmad=false, and without fast math, so that an element's numbers are those of step_host.
#include <cuda_runtime.h>

#include <cstdint>

#include "gpu/kernels/rows.h"
#include "gpu/kernels/tables.h"

namespace pagedopt {
namespace {

// Every function is for the device; the host compiler only has to read it.
struct DeviceWarp {
  template <class T>
  struct Lanes {
    T own;
  };
  static constexpr unsigned kAll = 0xffffffffu;
  int lane;

  template <class T, class F>
  PAGEDOPT_HD void each(Lanes<T>& lanes, F f) const {
    f(lane, lanes.own);
  }
  template <class T, class F>
  PAGEDOPT_HD std::uint32_t max(Lanes<T>& lanes, F f) const {
    std::uint32_t most = f(lanes.own);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    most = __reduce_max_sync(kAll, most);
#elif defined(__CUDA_ARCH__)
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2)
      most = ::max(most, __shfl_xor_sync(kAll, most, distance));
#endif
    return most;
  }
  template <class T, class F>
  PAGEDOPT_HD double sum(Lanes<T>& lanes, F f) const {
    double x = f(lanes.own);
#if defined(__CUDA_ARCH__)
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAll, x, distance);
#endif
    return x;
  }
  template <class F>
  PAGEDOPT_HD void first(F f) const {
    if (lane == 0) f();
  }
  PAGEDOPT_HD void sync() const {
#if defined(__CUDA_ARCH__)
    __syncwarp();
#endif
  }
};

constexpr int kThreads = kWarps * kWarpLanes;

// CTAs on a multiprocessor that the compiler leaves registers for, 80 a thread: without spilling in any kind of row.
// Each thread of a float32 row loads 128 bytes before it computes, so 3 * 256 threads have 96 KiB under way, three
// times what an H200's 4.8 TB/s and 700 ns of latency ask of one multiprocessor; bf16 rows of 8-bit state, 36 KiB.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kCtas = 2;  // of 128 registers: with 80, the compiler spills a few there
#else
constexpr int kCtas = 3;
#endif
constexpr int kMeasureCtas = 2;  // its sums in double take more registers

__device__ DeviceWarp this_warp() { return {static_cast<int>(threadIdx.x % kWarpLanes)}; }
__device__ int warp_index() { return static_cast<int>(threadIdx.x / kWarpLanes); }

// In global memory: a CTA copies it to shared memory, where lanes look up codes of their own.
__device__ const CodeMaps kDeviceMaps{kSignedMap, kUnsignedMap};
__device__ const Bends kDeviceBends = make_bends();

// pre: all threads of the CTA call it
__device__ void copy_maps(CodeMaps& to) {
  static_assert(kThreads == 256, "a thread copies an entry of each map");
  to.of_signed.value[threadIdx.x] = kDeviceMaps.of_signed.value[threadIdx.x];
  to.of_unsigned.value[threadIdx.x] = kDeviceMaps.of_unsigned.value[threadIdx.x];
  __syncthreads();
}

__device__ void copy_tables(Lookups& to) {
  static_assert(BendTable::kEntries <= kThreads, "a thread fills an entry");
  if (threadIdx.x < BendTable::kEntries) to.bends.fill(threadIdx.x, kDeviceBends);
  copy_maps(to.maps);
}

// The warps' sums, added in order; for the first warp only. pre: all threads of the CTA call it
__device__ Partial sum_warps(const Partial& of_warp) {
  __shared__ double squares[kWarps][3];
  __shared__ float absmax[kWarps][kMostSlots];
  if (threadIdx.x % kWarpLanes == 0) {
    double(&to)[3] = squares[warp_index()];
    to[0] = of_warp.grad_square, to[1] = of_warp.move_square, to[2] = of_warp.param_square;
    for (int slot = 0; slot < kMostSlots; ++slot) absmax[warp_index()][slot] = of_warp.absmax[slot];
  }
  __syncthreads();
  Partial sum;
  for (int i = 0; i < kWarps; ++i)
    add(sum, {squares[i][0], squares[i][1], squares[i][2], {absmax[i][0], absmax[i][1], absmax[i][2]}});
  return sum;
}

// ---- kernels ----

__global__ void __launch_bounds__(kThreads) begin_kernel(StepTables tables, std::uint32_t first_row) {
  const std::uint32_t row = first_row + blockIdx.x;
  const Partial sum = sum_warps(norm_sum(this_warp(), warp_index(), tables, row));
  if (warp_index() == 0) begin_row(this_warp(), tables, row, sum);
}

__global__ void __launch_bounds__(kThreads) finish_kernel(StepTables tables, std::uint32_t first_row) {
  const std::uint32_t row = first_row + blockIdx.x;
  const Partial sum = sum_warps(measure_sum(this_warp(), warp_index(), tables, row));
  if (warp_index() == 0) finish_row(this_warp(), tables, row, sum);
}

__global__ void __launch_bounds__(kThreads) norm_kernel(StepTables tables, std::uint64_t first_part) {
  const Part part = tables.parts[first_part + blockIdx.x];
  const Row& row = tables.rows[part.row];
  if (row.grad == nullptr) return;
  const Partial sum = sum_warps(norm_part(this_warp(), warp_index(), gradient_of(row, part)));
  if (threadIdx.x == 0) tables.partials[tables.row_partials[part.row].gradient_norm + part.index] = sum;
}

template <class R>
__global__ void __launch_bounds__(kThreads, kMeasureCtas) measure_kernel(StepTables tables, std::uint64_t first_part) {
  __shared__ CodeMaps maps;
  const Part part = tables.parts[first_part + blockIdx.x];
  const Row& row = tables.rows[part.row];
  RowWork& work = tables.work[part.row];
  const Piece piece = piece_of<R>(row, work, part, Pass::measure);  // read beside `skip`, not after it
  if (work.skip) return;
  const bool in_8bit = R::kHas8bit && is_8bit(row);
  if (in_8bit) copy_maps(maps);
  const Partial sum = sum_warps(in_8bit ? measure_part<R, R::kHas8bit>(this_warp(), warp_index(), piece, maps)
                                        : measure_part<R, false>(this_warp(), warp_index(), piece, maps));
  if (threadIdx.x == 0) tables.partials[tables.row_partials[part.row].measure + part.index] = sum;
}

template <class R>
__global__ void __launch_bounds__(kThreads, kCtas) update_kernel(StepTables tables, std::uint64_t first_part) {
  __shared__ Lookups lookups;
  const Part part = tables.parts[first_part + blockIdx.x];
  const Row& row = tables.rows[part.row];
  RowWork& work = tables.work[part.row];
  const Piece piece = piece_of<R>(row, work, part, Pass::update);  // read beside `skip`, not after it
  if (work.skip) return;
  if (R::kHas8bit && is_8bit(row)) {
    copy_tables(lookups);
    update_part<R, R::kHas8bit>(this_warp(), warp_index(), piece, lookups);
  } else {
    update_part<R, false>(this_warp(), warp_index(), piece, lookups);
  }
}

// ---- launches ----

// A grid has at most 2^31 - 1 CTAs: 3.5e13 elements. More go in several launches.
constexpr std::uint64_t kMostCtas = std::uint64_t{1} << 30;

template <class Index>
int launch(void (*kernel)(StepTables, Index), const StepTables& tables, Index first, Index last, StreamHandle stream) {
  for (Index at = first; at < last;) {
    const Index ctas = static_cast<std::uint64_t>(last - at) < kMostCtas ? last - at : static_cast<Index>(kMostCtas);
    kernel<<<static_cast<unsigned>(ctas), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(tables, at);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return static_cast<int>(error);
    at += ctas;
  }
  return static_cast<int>(cudaSuccess);
}

int begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle stream) {
  return launch(begin_kernel, tables, first_row, last_row, stream);
}

int finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle stream) {
  return launch(finish_kernel, tables, first_row, last_row, stream);
}

struct OfRule {
  void (*measure)(StepTables, std::uint64_t);
  void (*update)(StepTables, std::uint64_t);
};
#define PAGEDOPT_KERNELS(id, Rule) {measure_kernel<Rule>, update_kernel<Rule>},
const OfRule kOfRule[kRules] = {PAGEDOPT_RULES(PAGEDOPT_KERNELS)};
#undef PAGEDOPT_KERNELS

int run(const StepTables& tables, Launch what, std::uint64_t first, std::uint64_t last, StreamHandle stream) {
  if (what.pass == Pass::gradient_norm) return launch(norm_kernel, tables, first, last, stream);
  const OfRule& kernels = kOfRule[static_cast<int>(what.rule)];
  return launch(what.pass == Pass::measure ? kernels.measure : kernels.update, tables, first, last, stream);
}

}  // namespace

const DeviceKernels cuda_kernels = {begin_rows, finish_measure, run};

}  // namespace pagedopt

// The kernels of a GPU, run on the CPU at once: for tests where there is no GPU. A warp's 32 lanes are a loop; levels
// of the 8-bit codec are computed as a GPU does.
#define PAGEDOPT_EMULATED_KERNELS
#include <cstdint>

#include "gpu/kernels/rows.h"
#include "gpu/kernels/tables.h"

namespace pagedopt {
namespace {

struct EmulatedWarp {
  template <class T>
  struct Lanes {
    T lane[kWarpLanes];
  };

  template <class T, class F>
  void each(Lanes<T>& lanes, F f) const {
    for (int lane = 0; lane < kWarpLanes; ++lane) f(lane, lanes.lane[lane]);
  }
  template <class T, class F>
  std::uint32_t max(Lanes<T>& lanes, F f) const {
    std::uint32_t most = 0;
    for (T& lane : lanes.lane) most = f(lane) > most ? f(lane) : most;
    return most;
  }
  // Pairs at distances 16, 8, ... 1, as shuffles add them.
  template <class T, class F>
  double sum(Lanes<T>& lanes, F f) const {
    double x[kWarpLanes], y[kWarpLanes];
    for (int lane = 0; lane < kWarpLanes; ++lane) x[lane] = f(lanes.lane[lane]);
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
      for (int lane = 0; lane < kWarpLanes; ++lane) y[lane] = x[lane] + x[lane ^ distance];
      for (int lane = 0; lane < kWarpLanes; ++lane) x[lane] = y[lane];
    }
    return x[0];
  }
  template <class F>
  void first(F f) const {
    f();
  }
  void sync() const {}
};

constexpr EmulatedWarp kWarp;

Lookups make_tables() {
  Lookups tables{{kSignedMap, kUnsignedMap}, {}};
  for (int entry = 0; entry < BendTable::kEntries; ++entry) tables.bends.fill(entry, make_bends());
  return tables;
}

const Lookups kTables = make_tables();

// The warps of a CTA one after the other, their sums added in order.
template <class OfWarp>
Partial sum_warps(OfWarp of_warp) {
  Partial sum;
  for (int index = 0; index < kWarps; ++index) add(sum, of_warp(index));
  return sum;
}

int begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle) {
  for (std::uint32_t row = first_row; row < last_row; ++row)
    begin_row(kWarp, tables, row, sum_warps([&](int index) { return norm_sum(kWarp, index, tables, row); }));
  return 0;
}

int finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row, StreamHandle) {
  for (std::uint32_t row = first_row; row < last_row; ++row)
    finish_row(kWarp, tables, row, sum_warps([&](int index) { return measure_sum(kWarp, index, tables, row); }));
  return 0;
}

template <class R, bool is_8bit>
Partial measure(const Piece& piece) {
  return sum_warps([&](int index) { return measure_part<R, is_8bit>(kWarp, index, piece, kTables.maps); });
}

template <class R, bool is_8bit>
void update_warps(const Piece& piece) {
  for (int index = 0; index < kWarps; ++index) update_part<R, is_8bit>(kWarp, index, piece, kTables);
}

void run_norm(const StepTables& tables, const Part& part) {
  const Row& row = tables.rows[part.row];
  if (row.grad == nullptr) return;
  const Piece piece = gradient_of(row, part);
  tables.partials[tables.row_partials[part.row].gradient_norm + part.index] =
      sum_warps([&](int index) { return norm_part(kWarp, index, piece); });
}

template <class R>
void run_state(const StepTables& tables, const Part& part, Pass pass) {
  const Row& row = tables.rows[part.row];
  RowWork& work = tables.work[part.row];
  if (work.skip) return;
  const Piece piece = piece_of<R>(row, work, part, pass);
  if (pass == Pass::update)
    is_8bit(row) ? update_warps<R, R::kHas8bit>(piece) : update_warps<R, false>(piece);
  else
    tables.partials[tables.row_partials[part.row].measure + part.index] =
        is_8bit(row) ? measure<R, R::kHas8bit>(piece) : measure<R, false>(piece);
}

int run(const StepTables& tables, Launch what, std::uint64_t first_part, std::uint64_t last_part, StreamHandle) {
  for (std::uint64_t i = first_part; i < last_part; ++i) {
    const Part& part = tables.parts[i];
    if (what.pass == Pass::gradient_norm)
      run_norm(tables, part);
    else
      with_rule(what.rule, [&](auto rule) { run_state<decltype(rule)>(tables, part, what.pass); });
  }
  return 0;
}

}  // namespace

const DeviceKernels emulated_kernels = {begin_rows, finish_measure, run};

}  // namespace pagedopt

// What is done once a row between the passes of a step on a GPU, and the piece of a row that a CTA has.
#pragma once

#include <cmath>
#include <cstdint>

#include "gpu/kernels/tables.h"
#include "gpu/kernels/update.h"

namespace pagedopt {

// ---- parts ----

PAGEDOPT_HD std::uint64_t part_count(const Row& row) {
  return static_cast<std::uint64_t>((row.numel + kPartElements - 1) / kPartElements);
}

// The piece of a part, with the row's scalars. Under tensorwise8 the update reads the absmax of the step before from
// `work`, because finish_measure has written the new one over it.
template <class R>
PAGEDOPT_HD Piece piece_of(const Row& row, RowWork& work, const Part& part, Pass pass) {
  Piece piece = piece_of(row, part.first(), part.last(row.numel), kSlotsOf<R>, work.skip_zeros);
  piece.scalars = work.scalars;
  if (row.codec != Codec::tensorwise8 || pass != Pass::update) return piece;
  for (int slot = 0; slot < kSlotsOf<R>; ++slot) {
    piece.absmax[slot] = &work.absmax_before[slot];
    piece.new_absmax[slot] = work.new_absmax[slot];
  }
  return piece;
}

// A gradient by itself: the rest of the row is not known yet.
PAGEDOPT_HD Piece gradient_of(const Row& row, const Part& part) {
  Piece piece{};
  piece.grad = static_cast<const std::byte*>(row.grad) + part.first() * (row.dtype == Dtype::f32 ? 4 : 2);
  piece.numel = part.last(row.numel) - part.first();
  piece.dtype = row.dtype;
  return piece;
}

// ---- partial results ----

// Those of one pass of a row that the lanes of warp `index` add up: lane by lane, so in an order that is always the
// same. A CTA adds its warps' sums in order.
template <class Warp>
PAGEDOPT_HD Partial sum_partials(const Warp& warp, int index, const Partial* from, std::uint64_t count) {
  typename Warp::template Lanes<LaneSums> sums = {};
  warp.each(sums, [&](int lane, LaneSums& s) {
    for (std::uint64_t i = index * kWarpLanes + lane; i < count; i += kWarps * kWarpLanes) {
      s.grad_square += from[i].grad_square;
      s.move_square += from[i].move_square;
      s.param_square += from[i].param_square;
      for (int slot = 0; slot < kMostSlots; ++slot) raise(s.absmax[slot], bits_of(from[i].absmax[slot]));
    }
  });
  return sum_lanes(warp, sums);
}

PAGEDOPT_HD bool skips(const StepTables& tables, const Row& row) {
  return row.grad == nullptr || (tables.found_inf != nullptr && *tables.found_inf != 0.0f);
}

PAGEDOPT_HD double grad_scale_of(const StepTables& tables) {
  return tables.grad_scale == nullptr ? tables.host_grad_scale
                                      : tables.host_grad_scale / static_cast<double>(*tables.grad_scale);
}

PAGEDOPT_HD double lr_of(const DeviceHyper& group) {
  return group.lr == nullptr ? group.hyper.lr : static_cast<double>(*group.lr);
}

// ---- before the first pass that needs scalars ----

template <class Warp>
PAGEDOPT_HD Partial norm_sum(const Warp& warp, int index, const StepTables& tables, std::uint32_t row_index) {
  const Row& row = tables.rows[row_index];
  if (skips(tables, row) || !clips(tables.hypers[row.group].hyper)) return {};
  return sum_partials(warp, index, tables.partials + tables.row_partials[row_index].gradient_norm, part_count(row));
}

// clip_scale, its search shared by the lanes.
template <class Warp>
PAGEDOPT_HD double clip_row(const Warp& warp, const Row& row, int percentile, double norm, double t) {
  norm = counted_norm(norm);
  warp.first([&] { row.gnorm_history[history_place(t)] = static_cast<float>(norm); });
  warp.sync();
  typename Warp::template Lanes<std::uint32_t> found;
  warp.each(found, [&](int lane, std::uint32_t& bits) {
    bits = bits_of(percentile_entry(row.gnorm_history, percentile, lane, kWarpLanes));
  });
  return clip_factor(norm, float_of(warp.max(found, [](std::uint32_t bits) { return bits; })));
}

// Counts the row's step and makes its scalars. One warp does it, given the sum over all warps of norm_sum.
template <class Warp>
PAGEDOPT_HD void begin_row(const Warp& warp, const StepTables& tables, std::uint32_t row_index, const Partial& sum) {
  const Row& row = tables.rows[row_index];
  const DeviceHyper& group = tables.hypers[row.group];
  RowWork& work = tables.work[row_index];
  const bool skip = skips(tables, row);
  warp.first([&] { work.skip = skip; });
  if (skip) return;
  const double t = static_cast<double>(*row.step) + 1.0, grad_scale = grad_scale_of(tables);
  const double norm = std::sqrt(sum.grad_square) * (grad_scale < 0.0 ? -grad_scale : grad_scale);
  double clip = 1.0;
  if (clips(group.hyper)) clip = clip_row(warp, row, group.hyper.percentile_clipping, norm, t);
  warp.sync();  // every lane has read the step
  warp.first([&] {
    Hyper hyper = group.hyper;
    hyper.lr = lr_of(group);
    work.scalars = make_scalars<float>(hyper, t, grad_scale);
    work.scalars.common.grad_scale = static_cast<float>(work.scalars.common.grad_scale * clip);
    work.skip_zeros = hyper.skip_zeros;
    *row.step += 1.0f;
  });
}

// ---- between measure and update ----

PAGEDOPT_HD bool was_measured(const StepTables& tables, std::uint32_t row_index) {
  const Row& row = tables.rows[row_index];
  return !tables.work[row_index].skip && measures(row, tables.hypers[row.group].hyper);
}

template <class Warp>
PAGEDOPT_HD Partial measure_sum(const Warp& warp, int index, const StepTables& tables, std::uint32_t row_index) {
  if (!was_measured(tables, row_index)) return {};
  const Row& row = tables.rows[row_index];
  return sum_partials(warp, index, tables.partials + tables.row_partials[row_index].measure, part_count(row));
}

// The limit of max_unorm, and the tensor's new absmax. One warp does it, given the sum over all warps of measure_sum.
template <class Warp>
PAGEDOPT_HD void finish_row(const Warp& warp, const StepTables& tables, std::uint32_t row_index, const Partial& sum) {
  if (!was_measured(tables, row_index)) return;
  const Row& row = tables.rows[row_index];
  const DeviceHyper& group = tables.hypers[row.group];
  RowWork& work = tables.work[row_index];
  warp.first([&] {
    if (group.hyper.max_unorm > 0.0) {
      const double limit = unorm_limit(group.hyper.max_unorm, lr_of(group), sum.move_square, sum.param_square);
      work.scalars.common.rate = static_cast<float>(work.scalars.common.rate * limit);
    }
    if (row.codec != Codec::tensorwise8) return;
    const int slots = slots_of(group.hyper.rule);
    for (int slot = 0; slot < kMostSlots; ++slot) {  // a number known when it is compiled, so that `sum` is registers
      if (slot >= slots) break;
      work.absmax_before[slot] = *row.absmax[slot];
      work.new_absmax[slot] = sum.absmax[slot];
      *row.absmax[slot] = sum.absmax[slot];
    }
  });
}

}  // namespace pagedopt

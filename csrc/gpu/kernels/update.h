// The kernels of a step on a GPU, for one warp: load, update, encode, store. `Warp` says how a warp
// is there: its lanes are threads (gpu/kernels/kernels.cu) or a loop (emulated/kernels.cpp).
//
//   warp.each(lanes, f)     f(lane, registers of the lane), for every lane
//   warp.max(lanes, f)      largest f(registers), an unsigned number
//   warp.sum(lanes, f)      sum of f(registers), in double, in one order whatever the warp is
//   warp.first(f)           f() once
//   warp.sync()             what lanes wrote to memory before can be read after
#pragma once

#include <cfloat>
#include <cstdint>
#include <type_traits>

#include "gpu/kernels/encode.h"
#include "gpu/kernels/lane.h"
#include "gpu/kernels/quick.h"
#include "gpu/kernels/tables.h"

namespace pagedopt {

// Warps of a CTA. 256 threads: few enough that a part has several blocks for each warp, many enough that three CTAs
// fill a multiprocessor.
inline constexpr int kWarps = 8;

// ---- kinds of rows: what is compiled apart. skip_zeros costs a compare, so it is not. ----

// How the slots are stored; `run` as in element_of.
template <class R, bool is_8bit_, int run_>
struct State {
  using Rule = R;
  static constexpr bool is_8bit = is_8bit_, plain = false;
  static constexpr int run = run_, bytes = is_8bit ? 1 : 4;
};

template <class R, Dtype dtype_, bool is_8bit>
struct Kind : State<R, is_8bit, dtype_ == Dtype::f32 || !is_8bit ? 4 : 8> {
  static constexpr Dtype dtype = dtype_;
};

// Of a gradient by itself.
template <Dtype dtype_>
struct GradientKind {
  static constexpr Dtype dtype = dtype_;
  static constexpr bool plain = false;
  static constexpr int run = dtype_ == Dtype::f32 ? 4 : 8;
};

// Whole and aligned blocks with an absmax each, no coupled decay and nothing skipped: nearly all there are. So a block
// asks for none of that again.
template <class K>
struct Plain : K {
  static constexpr bool plain = true;
};

// Calls visit(Dtype as a type).
template <class Visit>
PAGEDOPT_HD void with_dtype(Dtype dtype, Visit visit) {
  if (dtype == Dtype::f32)
    visit(std::integral_constant<Dtype, Dtype::f32>{});
  else if (dtype == Dtype::bf16)
    visit(std::integral_constant<Dtype, Dtype::bf16>{});
  else
    visit(std::integral_constant<Dtype, Dtype::f16>{});
}

// ---- one block ----

template <class K>
PAGEDOPT_HD bool is_blockwise(const Piece& piece) {
  return K::plain || piece.codec == Codec::blockwise8;
}

template <class K>
PAGEDOPT_HD int absmax_index(const Piece& piece, const BlockAt& block) {
  return is_blockwise<K>(piece) ? block.first / kBlockElements : 0;
}

template <class K>
PAGEDOPT_HD bool params_aligned(const Piece& piece) {
  return piece.dtype == Dtype::f32 ? aligned<4, K::run>(piece.param) && aligned<4, K::run>(piece.grad)
                                   : aligned<2, K::run>(piece.param) && aligned<2, K::run>(piece.grad);
}

template <class K>
PAGEDOPT_HD BlockAt block_at(const Piece& piece, int first) {
  if (K::plain) return {first, kBlockElements, true};
  const int left = static_cast<int>(piece.numel) - first, n = left < kBlockElements ? left : kBlockElements;
  return {first, n, n == kBlockElements && params_aligned<K>(piece)};
}

// The slots as they are stored.
template <class K>
struct StoredSlots {
  Stored<K::bytes> slot[kSlotEntries<typename K::Rule>];
  float absmax[kSlotEntries<typename K::Rule>];
};

template <class K, bool whole, int slot>
PAGEDOPT_HD void load_slot(const Piece& piece, const BlockAt& block, int lane, StoredSlots<K>& to) {
  constexpr std::uint32_t fill = K::is_8bit ? kZeroCode<K::Rule::kSlots[slot].is_signed> : 0;
  to.slot[slot] = load_lane<K::bytes, K::run, whole>(piece.slot[slot], block, lane, fill);
  if (K::is_8bit) to.absmax[slot] = in_global(piece.absmax[slot])[absmax_index<K>(piece, block)];
}

template <class K, bool whole>
PAGEDOPT_HD void load_slots(const Piece& piece, const BlockAt& block, int lane, StoredSlots<K>& to) {
  for_slots<typename K::Rule>([&](auto slot) { load_slot<K, whole, decltype(slot)::value>(piece, block, lane, to); });
}

template <class K, int slot>
PAGEDOPT_HD void decode_slot(const StoredSlots<K>& from, const CodeMaps& maps, float (&to)[kLaneElements]) {
  if constexpr (K::is_8bit)
    decode_lane(from.slot[slot], maps.of<K::Rule::kSlots[slot].is_signed>(), from.absmax[slot], to);
  else
    widen<Dtype::f32>(from.slot[slot], to);
}

template <class K, class R = typename K::Rule>
PAGEDOPT_HD void decode_slots(const StoredSlots<K>& from, const CodeMaps& maps, Registers<R>& r) {
  for_slots<R>([&](auto slot) { decode_slot<K, decltype(slot)::value>(from, maps, r.slot[decltype(slot)::value]); });
}

// From an array of the parameter's type.
template <Dtype dtype, int run, bool whole>
PAGEDOPT_HD Stored<kDtypeBytes<dtype>> load_params(const void* base, const BlockAt& block, int lane) {
  return load_lane<kDtypeBytes<dtype>, run, whole>(base, block, lane, 0u);
}

// Calls visit(whether the block is whole, as a type).
template <class K, class Visit>
PAGEDOPT_HD void with_whole(const BlockAt& block, Visit visit) {
  if constexpr (K::plain)
    visit(std::true_type{});
  else if (block.whole)
    visit(std::true_type{});
  else
    visit(std::false_type{});
}

// Everything is under way before anything is waited for: the bytes in flight are what the bandwidth hangs on.
template <class K>
PAGEDOPT_HD void load_all(const Piece& piece, const BlockAt& block, const CodeMaps& maps, int lane,
                          Registers<typename K::Rule>& r) {
  Stored<kDtypeBytes<K::dtype>> p, g;
  StoredSlots<K> slots;
  with_whole<K>(block, [&](auto whole) {
    g = load_params<K::dtype, K::run, decltype(whole)::value>(piece.grad, block, lane);
    p = load_params<K::dtype, K::run, decltype(whole)::value>(piece.param, block, lane);
    load_slots<K, decltype(whole)::value>(piece, block, lane, slots);
  });
  widen<K::dtype>(g, r.g);
  widen<K::dtype>(p, r.p);
  decode_slots(slots, maps, r);
}

// ---- update ----

template <class K, int slot>
PAGEDOPT_HD void store_slot(const Stored<K::bytes>& stored, const Piece& piece, const BlockAt& block, int lane) {
  with_whole<K>(block, [&](auto whole) {
    store_lane<K::bytes, K::run, decltype(whole)::value>(stored, piece.slot[slot], block, lane);
  });
}

// Stores one slot; an 8-bit one with the absmax of the block, or of the tensor.
template <class K, int slot, class Warp, class Lanes>
PAGEDOPT_HD void encode_slot(const Warp& warp, const Piece& piece, const BlockAt& block, const Lookups& tables,
                             Lanes& lanes) {
  using R = typename K::Rule;
  float absmax = piece.new_absmax[slot];
  if (K::is_8bit && is_blockwise<K>(piece)) {
    absmax = float_of(warp.max(lanes, [&](Registers<R>& r) {
      if constexpr (in_parts<K>) return r.most[slot];
      return largest_bits(r.slot[slot]);
    }));
    warp.first([&] { in_global(piece.absmax[slot])[absmax_index<K>(piece, block)] = absmax; });
  }
  warp.each(lanes, [&](int lane, Registers<R>& r) {
    if constexpr (K::is_8bit)
      store_slot<K, slot>(encode_lane<R::kSlots[slot].is_signed>(tables, lane, absmax, r.slot[slot]), piece, block,
                          lane);
    else
      store_slot<K, slot>(narrow<Dtype::f32>(r.slot[slot]), piece, block, lane);
  });
}

template <class K>
PAGEDOPT_HD void store_params(const Stored<kDtypeBytes<K::dtype>>& params, const Piece& piece, const BlockAt& block,
                              int lane) {
  constexpr int bytes = kDtypeBytes<K::dtype>;
  with_whole<K>(
      block, [&](auto whole) { store_lane<bytes, K::run, decltype(whole)::value>(params, piece.param, block, lane); });
}

// Encoding anew could change the codes of a block whose gradients are all zero.
template <class K, class Warp, class Lanes>
PAGEDOPT_HD bool is_left_alone(const Warp& warp, const Piece& piece, const BlockAt& block, Lanes& lanes) {
  if (K::plain || !piece.skip_zeros || piece.codec == Codec::tensorwise8) return false;
  warp.each(lanes, [&](int lane, Registers<typename K::Rule>& r) {
    with_whole<K>(block, [&](auto whole) {
      widen<K::dtype>(load_params<K::dtype, K::run, decltype(whole)::value>(piece.grad, block, lane), r.g);
    });
  });
  return warp.max(lanes, [](Registers<typename K::Rule>& r) { return largest_bits(r.g); }) == 0u;
}

template <class K, class Warp, class R = typename K::Rule>
PAGEDOPT_HD void update_block(const Warp& warp, const Piece& piece, const RowScalars<R>& row, const Lookups& tables,
                              int first) {
  typename Warp::template Lanes<Registers<R>> lanes;
  const BlockAt block = block_at<K>(piece, first);
  if (is_left_alone<K>(warp, piece, block, lanes)) return;
  warp.each(lanes, [&](int lane, Registers<R>& r) {
    load_all<K>(piece, block, tables.maps, lane, r);
    store_params<K>(update_lane<K>(piece.scalars, row, piece.skip_zeros, r), piece, block, lane);
  });
  for_slots<R>([&](auto slot) { encode_slot<K, decltype(slot)::value>(warp, piece, block, tables, lanes); });
}

// ---- what passes before the update find out ----

struct LaneSums {
  double grad_square, move_square, param_square;
  std::uint32_t absmax[kMostSlots];
};

PAGEDOPT_HD double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

template <class Warp, class Lanes>
PAGEDOPT_HD Partial sum_lanes(const Warp& warp, Lanes& lanes) {
  Partial sum;
  sum.grad_square = warp.sum(lanes, [](const LaneSums& s) { return s.grad_square; });
  sum.move_square = warp.sum(lanes, [](const LaneSums& s) { return s.move_square; });
  sum.param_square = warp.sum(lanes, [](const LaneSums& s) { return s.param_square; });
  sum.absmax[0] = float_of(warp.max(lanes, [](const LaneSums& s) { return s.absmax[0]; }));
  sum.absmax[1] = float_of(warp.max(lanes, [](const LaneSums& s) { return s.absmax[1]; }));
  sum.absmax[2] = float_of(warp.max(lanes, [](const LaneSums& s) { return s.absmax[2]; }));
  return sum;
}

template <class K>
PAGEDOPT_HD void norm_lane(const Piece& piece, const BlockAt& block, int lane, LaneSums& sums) {
  float g[kLaneElements];
  with_whole<K>(block, [&](auto whole) {
    widen<K::dtype>(load_params<K::dtype, K::run, decltype(whole)::value>(piece.grad, block, lane), g);
  });
  for (int i = 0; i < kLaneElements; ++i) sums.grad_square += square(g[i]);
}

template <class K>
PAGEDOPT_HD void measure_lane(const Piece& piece, const BlockAt& block, const CodeMaps& maps, int lane,
                              LaneSums& sums) {
  using R = typename K::Rule;
  Registers<R> r;
  StoredSlots<K> slots;
  with_whole<K>(block, [&](auto whole) {
    load_slots<K, decltype(whole)::value>(piece, block, lane, slots);
    with_dtype(piece.dtype, [&](auto dtype) {  // not part of K: this pass need not be as quick as it is to compile
      constexpr Dtype d = decltype(dtype)::value;
      widen<d>(load_params<d, K::run, decltype(whole)::value>(piece.grad, block, lane), r.g);
      widen<d>(load_params<d, K::run, decltype(whole)::value>(piece.param, block, lane), r.p);
    });
  });
  decode_slots(slots, maps, r);
  for (int i = 0; i < kLaneElements; ++i) sums.param_square += square(r.p[i]);
  const auto own = piece.scalars.of<R>();
  for (int i = 0; i < kLaneElements; ++i)
    sums.move_square += square(update_element<K>(piece.scalars.common, own, piece.skip_zeros, i, r));
  for (int slot = 0; slot < kSlotsOf<R>; ++slot) raise(sums.absmax[slot], largest_bits(r.slot[slot]));
}

// ---- the blocks of a part that warp `index` of its CTA has ----

// From element `from`, where a block begins.
template <class Visit>
PAGEDOPT_HD void for_blocks_of(int index, int from, int numel, Visit visit) {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int first = from + index * kBlockElements; first < numel; first += kWarps * kBlockElements) visit(first);
}

// Not with three slots: their blocks are seldom, and the compiler would need more registers.
template <class K>
inline constexpr bool has_plain = K::is_8bit && kSlotsOf<typename K::Rule> < kMostSlots;

template <class K>
PAGEDOPT_HD bool is_plain(const Piece& piece) {
  return piece.codec == Codec::blockwise8 && !piece.skip_zeros && piece.scalars.common.coupled_decay == 0.0f &&
         params_aligned<K>(piece);
}

template <class K, class Warp>
PAGEDOPT_HD void update_blocks(const Warp& warp, int index, const Piece& piece, const Lookups& tables) {
  const RowScalars<typename K::Rule> row(piece.scalars);
  const int numel = static_cast<int>(piece.numel);
  int plain = 0;
  if constexpr (has_plain<K>) {
    if (is_plain<K>(piece)) plain = numel / kBlockElements * kBlockElements;
    for_blocks_of(index, 0, plain, [&](int first) { update_block<Plain<K>>(warp, piece, row, tables, first); });
  }
  for_blocks_of(index, plain, numel, [&](int first) { update_block<K>(warp, piece, row, tables, first); });
}

template <class R, bool is_8bit, class Warp>
PAGEDOPT_HD void update_part(const Warp& warp, int index, const Piece& piece, const Lookups& tables) {
  with_dtype(piece.dtype,
             [&](auto dtype) { update_blocks<Kind<R, decltype(dtype)::value, is_8bit>>(warp, index, piece, tables); });
}

template <class Warp>
PAGEDOPT_HD Partial norm_part(const Warp& warp, int index, const Piece& piece) {
  typename Warp::template Lanes<LaneSums> sums = {};
  with_dtype(piece.dtype, [&](auto dtype) {
    for_blocks_of(index, 0, static_cast<int>(piece.numel), [&](int first) {
      using K = GradientKind<decltype(dtype)::value>;
      const BlockAt block = block_at<K>(piece, first);
      warp.each(sums, [&](int lane, LaneSums& s) { norm_lane<K>(piece, block, lane, s); });
    });
  });
  return sum_lanes(warp, sums);
}

template <class R, bool is_8bit, class Warp>
PAGEDOPT_HD Partial measure_part(const Warp& warp, int index, const Piece& piece, const CodeMaps& maps) {
  using K = State<R, is_8bit, 4>;
  typename Warp::template Lanes<LaneSums> sums = {};
  for_blocks_of(index, 0, static_cast<int>(piece.numel), [&](int first) {
    const BlockAt block = block_at<K>(piece, first);
    warp.each(sums, [&](int lane, LaneSums& s) { measure_lane<K>(piece, block, maps, lane, s); });
  });
  return sum_lanes(warp, sums);
}

}  // namespace pagedopt

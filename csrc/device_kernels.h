// The kernels of a step on a GPU, for one warp: guard, load, the moments by name, move, store. `Warp` says how a warp
// is there: its lanes are threads (step_cuda.cu) or a loop (step_emulated.cpp).
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

#include "device_lane.h"
#include "step_device.h"

namespace pagedopt {

// Warps of a CTA. 256 threads: few enough that a part has several blocks for each warp, many enough that three CTAs
// fill a multiprocessor.
inline constexpr int kWarps = 8;

// ---- kinds of rows: what is compiled apart. Coupled decay and skip_zeros cost a compare, so they are not. ----

// How the slots are stored; `run` as in element_of.
template <bool is_8bit_, bool amsgrad_, int run_>
struct State {
  static constexpr bool is_8bit = is_8bit_, amsgrad = amsgrad_;
  static constexpr int run = run_;
};

template <Dtype dtype_, bool is_8bit, bool amsgrad>
struct Kind : State<is_8bit, amsgrad, dtype_ == Dtype::f32 || !is_8bit ? 4 : 8> {
  static constexpr Dtype dtype = dtype_;
};

// Calls visit(Dtype as a type).
template <class Visit>
PAGEDOPT_HD void with_dtype(Dtype dtype, Visit visit) {
  if (dtype == Dtype::f32) visit(std::integral_constant<Dtype, Dtype::f32>{});
  if (dtype == Dtype::bf16) visit(std::integral_constant<Dtype, Dtype::bf16>{});
  if (dtype == Dtype::f16) visit(std::integral_constant<Dtype, Dtype::f16>{});
}

// ---- one block ----

// What a lane has of a block.
struct Registers {
  float p[kLaneElements], g[kLaneElements];
  float m[kLaneElements], v[kLaneElements], vmax[kLaneElements];
};

// The block from element `first` of a piece, which is of one part: 32 bits do.
struct BlockAt {
  int first, n;

  PAGEDOPT_HD BlockAt(const Piece& piece, int first_element) : first(first_element) {
    const int left = static_cast<int>(piece.numel) - first;
    n = left < kBlockElements ? left : kBlockElements;
  }
  PAGEDOPT_HD Place place(int lane) const { return {lane, n, n == kBlockElements}; }
  // Of one array of the piece with `bytes` an element.
  template <class Base>
  PAGEDOPT_HD auto in(Base* base, int bytes) const {
    using Bytes = std::conditional_t<std::is_const_v<Base>, const std::byte, std::byte>;
    return static_cast<Bytes*>(base) + first * bytes;
  }
  PAGEDOPT_HD int absmax_index(const Piece& piece) const {
    return piece.codec == Codec::blockwise8 ? first / kBlockElements : 0;
  }
};

template <class K, int slot>
PAGEDOPT_HD void load_slot(const Piece& piece, const BlockAt& block, const CodeMaps& maps, int lane,
                           float (&to)[kLaneElements]) {
  if constexpr (K::is_8bit) {
    const float absmax = in_global(piece.absmax[slot])[block.absmax_index(piece)];
    load_codes<slot == 0, K::run>(block.in(piece.slot[slot], 1), block.place(lane), maps, absmax, to);
  } else {
    load_numbers<Dtype::f32, K::run>(block.in(piece.slot[slot], 4), block.place(lane), to);
  }
}

template <class K>
PAGEDOPT_HD void load_slots(const Piece& piece, const BlockAt& block, const CodeMaps& maps, int lane, Registers& r) {
  load_slot<K, 0>(piece, block, maps, lane, r.m);
  load_slot<K, 1>(piece, block, maps, lane, r.v);
  if constexpr (K::amsgrad) load_slot<K, 2>(piece, block, maps, lane, r.vmax);
}

// Of an array of the parameter's type.
template <Dtype dtype, int run>
PAGEDOPT_HD void load_params(const void* base, const BlockAt& block, int lane, float (&to)[kLaneElements]) {
  load_numbers<dtype, run>(block.in(base, kDtypeBytes<dtype>), block.place(lane), to);
}

// New parameter and moments. 8-bit state: an element whose v' is not finite keeps its parameter and its moments become
// zero (a non-finite gradient makes v' so).
template <class K>
PAGEDOPT_HD void adam_lane(const AdamScalars& s, bool skip_zeros, Registers& r) {
  const bool decay = s.coupled_decay != 0.0f;
  for (int i = 0; i < kLaneElements; ++i) {
    const AdamElement before{r.p[i], r.m[i], r.v[i], K::amsgrad ? r.vmax[i] : 0.0f};
    AdamElement e = before;
    adam<K::amsgrad>(s, decay, r.g[i], e);
    if (K::is_8bit && !(e.v <= FLT_MAX)) e = {before.p, 0.0f, 0.0f, 0.0f};
    if (skip_zeros && r.g[i] == 0.0f) e = before;
    r.p[i] = e.p, r.m[i] = e.m, r.v[i] = e.v;
    if (K::amsgrad) r.vmax[i] = e.vmax;
  }
}

// ---- update ----

// Stores one slot, x being its array in Registers; an 8-bit one with the absmax of the block, or of the tensor.
template <class K, int slot, class Warp, class Lanes>
PAGEDOPT_HD void store_slot(const Warp& warp, const Piece& piece, const BlockAt& block, const CodeMaps& maps,
                            float (Registers::*x)[kLaneElements], Lanes& lanes) {
  constexpr bool is_signed = slot == 0;  // exp_avg; the others are not
  if constexpr (!K::is_8bit) {
    warp.each(lanes, [&](int lane, Registers& r) {
      store_numbers<Dtype::f32, K::run>(r.*x, block.place(lane), block.in(piece.slot[slot], 4));
    });
  } else {
    float absmax = piece.new_absmax[slot];
    if (piece.codec == Codec::blockwise8) {
      absmax = float_of(warp.max(lanes, [&](Registers& r) { return largest_bits(r.*x); }));
      warp.first([&] { in_global(piece.absmax[slot])[block.absmax_index(piece)] = absmax; });
    }
    warp.each(lanes, [&](int lane, Registers& r) {
      const auto codes = encode_lane<is_signed>(maps.of<is_signed>(), absmax, r.*x);
      store_lane<1, K::run>(codes, block.place(lane), block.in(piece.slot[slot], 1));
    });
  }
}

template <class K, class Warp>
PAGEDOPT_HD void update_block(const Warp& warp, const Piece& piece, const CodeMaps& maps, int first) {
  typename Warp::template Lanes<Registers> lanes;
  const BlockAt block(piece, first);
  warp.each(lanes, [&](int lane, Registers& r) { load_params<K::dtype, K::run>(piece.grad, block, lane, r.g); });
  // Encoding anew could change the codes of a block whose gradients are all zero.
  if (piece.skip_zeros && piece.codec != Codec::tensorwise8)
    if (warp.max(lanes, [](Registers& r) { return largest_bits(r.g); }) == 0u) return;
  warp.each(lanes, [&](int lane, Registers& r) {
    load_params<K::dtype, K::run>(piece.param, block, lane, r.p);
    load_slots<K>(piece, block, maps, lane, r);
    adam_lane<K>(piece.scalars, piece.skip_zeros, r);
    store_numbers<K::dtype, K::run>(r.p, block.place(lane), block.in(piece.param, kDtypeBytes<K::dtype>));
  });
  store_slot<K, 0>(warp, piece, block, maps, &Registers::m, lanes);
  store_slot<K, 1>(warp, piece, block, maps, &Registers::v, lanes);
  if constexpr (K::amsgrad) store_slot<K, 2>(warp, piece, block, maps, &Registers::vmax, lanes);
}

// ---- what passes before the update find out ----

struct LaneSums {
  double grad_square, move_square, param_square;
  std::uint32_t absmax[kSlots];
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

template <Dtype dtype>
PAGEDOPT_HD void norm_lane(const Piece& piece, const BlockAt& block, int lane, LaneSums& sums) {
  float g[kLaneElements];
  load_numbers<dtype, dtype == Dtype::f32 ? 4 : 8>(block.in(piece.grad, kDtypeBytes<dtype>), block.place(lane), g);
  for (int i = 0; i < kLaneElements; ++i) sums.grad_square += square(g[i]);
}

PAGEDOPT_HD void raise(std::uint32_t& most, std::uint32_t x) { most = x > most ? x : most; }

template <class K>
PAGEDOPT_HD void measure_lane(const Piece& piece, const BlockAt& block, const CodeMaps& maps, int lane,
                              LaneSums& sums) {
  Registers r;
  with_dtype(piece.dtype, [&](auto dtype) {  // not part of K: this pass need not be as quick as it is to compile
    load_params<decltype(dtype)::value, K::run>(piece.grad, block, lane, r.g);
    load_params<decltype(dtype)::value, K::run>(piece.param, block, lane, r.p);
  });
  load_slots<K>(piece, block, maps, lane, r);
  for (int i = 0; i < kLaneElements; ++i) sums.param_square += square(r.p[i]);
  adam_lane<K>(piece.scalars, piece.skip_zeros, r);
  for (int i = 0; i < kLaneElements; ++i) {
    const AdamElement e{0.0f, r.m[i], r.v[i], K::amsgrad ? r.vmax[i] : 0.0f};
    const bool still = e.m == 0.0f || (piece.skip_zeros && r.g[i] == 0.0f);
    sums.move_square += still ? 0.0 : square(adam_move<K::amsgrad>(piece.scalars, e));
  }
  raise(sums.absmax[0], largest_bits(r.m));
  raise(sums.absmax[1], largest_bits(r.v));
  if (K::amsgrad) raise(sums.absmax[2], largest_bits(r.vmax));
}

// ---- the blocks of a part that warp `index` of its CTA has ----

template <class Visit>
PAGEDOPT_HD void for_blocks_of(int index, const Piece& piece, Visit visit) {
  const int numel = static_cast<int>(piece.numel);
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int first = index * kBlockElements; first < numel; first += kWarps * kBlockElements) visit(first);
}

template <bool is_8bit, class Warp>
PAGEDOPT_HD void update_part(const Warp& warp, int index, const Piece& piece, const CodeMaps& maps) {
  const auto all = [&](auto kind) {
    for_blocks_of(index, piece, [&](int first) { update_block<decltype(kind)>(warp, piece, maps, first); });
  };
  with_dtype(piece.dtype, [&](auto dtype) {
    piece.amsgrad ? all(Kind<decltype(dtype)::value, is_8bit, true>{})
                  : all(Kind<decltype(dtype)::value, is_8bit, false>{});
  });
}

template <class Warp>
PAGEDOPT_HD Partial norm_part(const Warp& warp, int index, const Piece& piece) {
  typename Warp::template Lanes<LaneSums> sums = {};
  with_dtype(piece.dtype, [&](auto dtype) {
    for_blocks_of(index, piece, [&](int first) {
      const BlockAt block(piece, first);
      warp.each(sums, [&](int lane, LaneSums& s) { norm_lane<decltype(dtype)::value>(piece, block, lane, s); });
    });
  });
  return sum_lanes(warp, sums);
}

template <bool is_8bit, class Warp>
PAGEDOPT_HD Partial measure_part(const Warp& warp, int index, const Piece& piece, const CodeMaps& maps) {
  typename Warp::template Lanes<LaneSums> sums = {};
  const auto all = [&](auto state) {
    for_blocks_of(index, piece, [&](int first) {
      const BlockAt block(piece, first);
      warp.each(sums, [&](int lane, LaneSums& s) { measure_lane<decltype(state)>(piece, block, maps, lane, s); });
    });
  };
  piece.amsgrad ? all(State<is_8bit, true, 4>{}) : all(State<is_8bit, false, 4>{});
  return sum_lanes(warp, sums);
}

}  // namespace pagedopt

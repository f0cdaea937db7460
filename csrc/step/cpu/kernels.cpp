// The kernels of one instruction set: loops over blocks of 256 elements in small arrays that the compiler vectorises.
// One source for all of them; -ffp-contract=off and the fixed order of every sum make the results equal to the bit.
//
// Nothing here may be shared by the linker with another instruction set: all is in an unnamed namespace or always
// inlined, and no function of the standard library is called but memcpy and memset.
#include <cfloat>

#include "step/cpu/blocks.h"
#include "step/cpu/float64.h"
#include "step/piece.h"

#define PAGEDOPT_STRING(x) #x
#define PAGEDOPT_NAME(x) PAGEDOPT_STRING(x)

namespace pagedopt {
namespace PAGEDOPT_ISA {
namespace {

// One block of elements in float32. Short blocks are filled up with zeros, so that every loop runs to kBlockElements.
struct Block {
  alignas(64) float p[kBlockElements], g[kBlockElements];
  alignas(64) float slot[kMostSlots][kBlockElements];
};

// Where the numbers of one block are while it is worked on: in a Block, or where they are stored.
struct Place {
  float* p;
  const float* g;
  float* slot[kMostSlots];
};

PAGEDOPT_HD Place place_of(Block& block) { return {block.p, block.g, {block.slot[0], block.slot[1], block.slot[2]}}; }

// ---- the rule over a run of elements ----

// The largest magnitude of each new slot, as bits: those of finite numbers compare like integers.
struct Largest {
  std::int32_t of_slot[kMostSlots] = {};

  PAGEDOPT_HD float of(int slot) const { return float_of(static_cast<std::uint32_t>(of_slot[slot])); }
};

PAGEDOPT_HD std::int32_t larger_magnitude(std::int32_t most, float x) {
  const auto size = static_cast<std::int32_t>(bits_of(x) & 0x7fffffffu);
  return size > most ? size : most;
}

// What is compiled apart.
template <bool decay_, bool skip_, bool guard_>
struct Flags {
  static constexpr bool decay = decay_, skip = skip_, guard = guard_;
};

// decay: coupled weight decay is on. skip: elements with a zero gradient stay as they are. guard, for 8-bit slots:
// where the new slots are not finite (as a gradient that is not makes them), the parameter stays and the slots become
// zero; returns the largest new slots. `moves`, where not null, takes what was subtracted from each parameter. A line a
// slot, and no branch: compilers vectorise no loop over an array of pointers.
template <class R, class F>
PAGEDOPT_HD Largest update_run(const Scalars<float>& s, F flags, std::int64_t n, float* __restrict p,
                               const float* __restrict g, float* __restrict slot0, float* __restrict slot1,
                               float* __restrict slot2, float* __restrict moves) {
  constexpr int slots = kSlotsOf<R>;
  static_assert(kMostSlots == 3);
  const CommonScalars<float> common = s.common;
  const auto own = s.of<R>();
  std::int32_t most0 = 0, most1 = 0, most2 = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    Element<R, float> before;
    before.p = p[i];
    if constexpr (slots > 0) before.slot[0] = slot0[i];
    if constexpr (slots > 1) before.slot[1] = slot1[i];
    if constexpr (slots > 2) before.slot[2] = slot2[i];
    Element<R, float> e = before;
    const float move = update<R>(common, own, flags.decay, g[i], e);
    const bool finite = !flags.guard || is_finite(e, FLT_MAX), keep = flags.skip && g[i] == 0.0f;
    if (moves) moves[i] = keep || !finite || R::is_still(e.slot) ? 0.0f : move;
    if (flags.guard) {
      e.p = finite ? e.p : before.p;
      if constexpr (slots > 0) e.slot[0] = finite ? e.slot[0] : 0.0f;
      if constexpr (slots > 1) e.slot[1] = finite ? e.slot[1] : 0.0f;
      if constexpr (slots > 2) e.slot[2] = finite ? e.slot[2] : 0.0f;
    }
    p[i] = keep ? before.p : e.p;
    if constexpr (slots > 0) slot0[i] = keep ? before.slot[0] : e.slot[0];
    if constexpr (slots > 1) slot1[i] = keep ? before.slot[1] : e.slot[1];
    if constexpr (slots > 2) slot2[i] = keep ? before.slot[2] : e.slot[2];
    if (!flags.guard) continue;
    if constexpr (slots > 0) most0 = larger_magnitude(most0, slot0[i]);
    if constexpr (slots > 1) most1 = larger_magnitude(most1, slot1[i]);
    if constexpr (slots > 2) most2 = larger_magnitude(most2, slot2[i]);
  }
  return {{most0, most1, most2}};
}

// Of one block.
template <class R, class F>
Largest update_block(const Scalars<float>& s, const Place& at) {
  return update_run<R>(s, F{}, kBlockElements, at.p, at.g, at.slot[0], at.slot[1], at.slot[2], nullptr);
}

using UpdateBlock = Largest (*)(const Scalars<float>&, const Place&);

template <class R>
void decode_slot(const Piece& piece, int slot, std::int64_t first, int n, float* to) {
  const auto* codes = static_cast<const std::uint8_t*>(piece.slot[slot]) + first;
  const float absmax = piece.absmax[slot][piece.codec == Codec::blockwise8 ? first / kBlockElements : 0];
  R::kSlots[slot].is_signed ? decode_block<true>(codes, n, absmax, to) : decode_block<false>(codes, n, absmax, to);
}

// `most`: the largest magnitude in `from`.
template <class R>
void encode_slot(const Piece& piece, int slot, std::int64_t first, int n, float* from, float most) {
  auto* codes = static_cast<std::uint8_t*>(piece.slot[slot]) + first;
  float absmax = piece.new_absmax[slot];
  if (piece.codec == Codec::blockwise8) piece.absmax[slot][first / kBlockElements] = absmax = most;
  R::kSlots[slot].is_signed ? encode_block<true>(from, n, absmax, codes) : encode_block<false>(from, n, absmax, codes);
}

// ---- passes ----

// Calls visit(first, n) for every block of `numel` elements.
template <class Visit>
PAGEDOPT_HD void for_blocks(std::int64_t numel, Visit visit) {
  for (std::int64_t first = 0; first < numel; first += kBlockElements) {
    const std::int64_t left = numel - first;
    visit(first, left < kBlockElements ? static_cast<int>(left) : kBlockElements);
  }
}

template <class R>
void load_slots(const Piece& piece, std::int64_t first, int n, Block& block) {
  for (int slot = 0; slot < kSlotsOf<R>; ++slot) {
    if (piece.codec == Codec::f32)
      load(piece.slot[slot], first, n, Dtype::f32, block.slot[slot]);
    else
      decode_slot<R>(piece, slot, first, n, block.slot[slot]);
  }
}

template <class R>
void store_slots(const Piece& piece, std::int64_t first, int n, Block& block, const Largest& most) {
  for (int slot = 0; slot < kSlotsOf<R>; ++slot) {
    if (piece.codec == Codec::f32)
      store(block.slot[slot], first, n, Dtype::f32, piece.slot[slot]);
    else
      encode_slot<R>(piece, slot, first, n, block.slot[slot], most.of(slot));
  }
}

bool all_zero(const float* x) {
  std::uint32_t any = 0;
  for (int i = 0; i < kBlockElements; ++i) any |= bits_of(x[i]) & 0x7fffffffu;
  return any == 0;
}

void fetch(const void* base, std::int64_t start, std::int64_t bytes) {
  constexpr std::int64_t kLineBytes = 64;
  const auto* const from = static_cast<const char*>(base) + start;
  for (std::int64_t at = 0; at < bytes; at += kLineBytes) __builtin_prefetch(from + at);
}

// Asks for the numbers of a block further on: while one is decoded and encoded, the hardware sees no stream to follow.
void fetch_ahead(const Piece& piece, std::int64_t first, int slots) {
  constexpr std::int64_t kBlocksAhead = 4;
  const std::int64_t item = piece.dtype == Dtype::f32 ? 4 : 2, start = first + kBlocksAhead * kBlockElements;
  fetch(piece.grad, start * item, kBlockElements * item);
  fetch(piece.param, start * item, kBlockElements * item);
  for (int slot = 0; slot < slots; ++slot) fetch(piece.slot[slot], start, kBlockElements);
}

template <class R>
void update_blocks(const Piece& piece, UpdateBlock update_block) {
  Block block;
  for_blocks(piece.numel, [&](std::int64_t first, int n) {
    if (is_8bit(piece.codec)) fetch_ahead(piece, first, kSlotsOf<R>);
    Place at = place_of(block);
    const bool whole = n == kBlockElements, params_in_place = whole && piece.dtype == Dtype::f32;
    const bool slots_in_place = whole && piece.codec == Codec::f32;
    if (params_in_place) at.g = static_cast<const float*>(piece.grad) + first;
    if (!params_in_place) load(piece.grad, first, n, piece.dtype, block.g);
    // Encoding anew could change the codes of a block whose gradients are all zero.
    if (piece.skip_zeros && piece.codec != Codec::tensorwise8 && all_zero(at.g)) return;
    if (params_in_place) at.p = static_cast<float*>(piece.param) + first;
    if (!params_in_place) load(piece.param, first, n, piece.dtype, block.p);
    for (int slot = 0; slots_in_place && slot < kSlotsOf<R>; ++slot)
      at.slot[slot] = static_cast<float*>(piece.slot[slot]) + first;
    if (!slots_in_place) load_slots<R>(piece, first, n, block);
    const Largest most = update_block(piece.scalars, at);
    if (!params_in_place) store(block.p, first, n, piece.dtype, piece.param);
    if (!slots_in_place) store_slots<R>(piece, first, n, block, most);
  });
}

template <class R, class F>
void update_in_place(const Piece& piece) {
  const auto slot = [&](int i) { return static_cast<float*>(piece.slot[i]); };
  update_run<R>(piece.scalars, F{}, piece.numel, static_cast<float*>(piece.param),
                static_cast<const float*>(piece.grad), slot(0), slot(1), slot(2), nullptr);
}

// Calls visit(Flags).
template <bool guard, class Visit>
PAGEDOPT_HD void with_flags(const Piece& piece, Visit visit) {
  const bool decay = piece.scalars.common.coupled_decay != 0.0f;
  if (piece.skip_zeros)
    decay ? visit(Flags<true, true, guard>{}) : visit(Flags<false, true, guard>{});
  else
    decay ? visit(Flags<true, false, guard>{}) : visit(Flags<false, false, guard>{});
}

template <class R, bool guard>
UpdateBlock update_block_for(const Piece& piece) {
  UpdateBlock chosen = nullptr;
  with_flags<guard>(piece, [&](auto flags) { chosen = update_block<R, decltype(flags)>; });
  return chosen;
}

template <class R>
void update_piece(const Piece& piece) {
  if (piece.codec == Codec::f64)
    update64<R>(piece);
  else if (R::kHas8bit && piece.codec != Codec::f32)
    update_blocks<R>(piece, update_block_for<R, R::kHas8bit>(piece));
  else if (piece.dtype != Dtype::f32)
    update_blocks<R>(piece, update_block_for<R, false>(piece));
  else
    with_flags<false>(piece, [&](auto flags) { update_in_place<R, decltype(flags)>(piece); });
}

Partial gradient_norm(const Piece& piece) {
  if (piece.dtype == Dtype::f64) return gradient_norm64(piece);
  Partial partial;
  alignas(64) float g[kBlockElements];
  for_blocks(piece.numel, [&](std::int64_t first, int n) {
    load(piece.grad, first, n, piece.dtype, g);
    partial.grad_square += square_sum(g);
  });
  return partial;
}

// As Flags, for the pass that need not be as quick as it is to compile.
struct AnyFlags {
  bool decay, skip, guard;
};

template <class R>
Partial measure_piece(const Piece& piece) {
  if (piece.codec == Codec::f64) return measure64<R>(piece);
  Partial partial;
  Block block;
  alignas(64) float moves[kBlockElements];
  const AnyFlags flags{piece.scalars.common.coupled_decay != 0.0f, piece.skip_zeros, piece.codec != Codec::f32};
  for_blocks(piece.numel, [&](std::int64_t first, int n) {
    load(piece.param, first, n, piece.dtype, block.p);
    load(piece.grad, first, n, piece.dtype, block.g);
    load_slots<R>(piece, first, n, block);
    partial.param_square += square_sum(block.p);
    update_run<R>(piece.scalars, flags, kBlockElements, block.p, block.g, block.slot[0], block.slot[1], block.slot[2],
                  moves);
    partial.move_square += square_sum(moves);
    for (int slot = 0; slot < kSlotsOf<R>; ++slot)
      partial.absmax[slot] = larger(partial.absmax[slot], largest(block.slot[slot]));
  });
  return partial;
}

// ---- the codec by itself ----

// What cannot be stored becomes zero.
template <bool is_signed>
void load_storable(const float* from, int n, float* to) {
  load(from, 0, n, Dtype::f32, to);
  for (int i = 0; i < kBlockElements; ++i) {
    const bool storable = magnitude(to[i]) <= FLT_MAX && (is_signed || to[i] > 0.0f);
    to[i] = storable ? to[i] : 0.0f;
  }
}

// One run of elements that share an absmax.
template <bool is_signed>
void encode_run(const float* from, std::int64_t numel, std::uint8_t* codes, float& absmax) {
  alignas(64) float x[kBlockElements];
  float most = 0.0f;
  for_blocks(numel, [&](std::int64_t first, int n) {
    load_storable<is_signed>(from + first, n, x);
    most = larger(most, largest(x));
  });
  for_blocks(numel, [&](std::int64_t first, int n) {
    load_storable<is_signed>(from + first, n, x);
    encode_block<is_signed>(x, n, most, codes + first);
  });
  absmax = most;
}

void encode_all(const float* from, std::int64_t numel, std::uint8_t* codes, float* absmax, bool is_signed,
                std::int64_t block) {
  for (std::int64_t first = 0; first < numel; first += block, ++absmax) {
    const std::int64_t n = numel - first < block ? numel - first : block;
    is_signed ? encode_run<true>(from + first, n, codes + first, *absmax)
              : encode_run<false>(from + first, n, codes + first, *absmax);
  }
}

template <bool is_signed>
void decode_run(const std::uint8_t* codes, std::int64_t numel, float absmax, float* to) {
  alignas(64) float x[kBlockElements];
  for_blocks(numel, [&](std::int64_t first, int n) {
    decode_block<is_signed>(codes + first, n, absmax, x);
    store(x, first, n, Dtype::f32, to);
  });
}

void decode_all(const std::uint8_t* codes, const float* absmax, std::int64_t numel, float* to, bool is_signed,
                std::int64_t block) {
  for (std::int64_t first = 0; first < numel; first += block, ++absmax) {
    const std::int64_t n = numel - first < block ? numel - first : block;
    is_signed ? decode_run<true>(codes + first, n, *absmax, to + first)
              : decode_run<false>(codes + first, n, *absmax, to + first);
  }
}

}  // namespace

#define PAGEDOPT_KERNELS(id, Rule) {measure_piece<Rule>, update_piece<Rule>},
const Kernels kernels = {
    PAGEDOPT_NAME(PAGEDOPT_ISA), gradient_norm, {PAGEDOPT_RULES(PAGEDOPT_KERNELS)}, encode_all, decode_all};
#undef PAGEDOPT_KERNELS

}  // namespace PAGEDOPT_ISA
}  // namespace pagedopt

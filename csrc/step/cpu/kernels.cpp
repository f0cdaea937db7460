// The kernels of one instruction set: loops over blocks of 256 elements in small arrays that the compiler vectorises.
// One source for all of them; -ffp-contract=off and the fixed order of every sum make the results equal to the bit.
//
// Nothing here may be shared by the linker with another instruction set: all is in an unnamed namespace or always
// inlined, and no function of the standard library is called but memcpy and memset.
#include <cfloat>
#include <type_traits>

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
  alignas(64) float slot[kSlots][kBlockElements];
};

// ---- the rule over a run of elements ----

// The largest magnitude of each moment, as bits: those of finite numbers compare like integers.
struct Largest {
  std::int32_t m = 0, v = 0, vmax = 0;

  PAGEDOPT_HD float of(int slot) const {
    return float_of(static_cast<std::uint32_t>(slot == 0 ? m : slot == 1 ? v : vmax));
  }
};

PAGEDOPT_HD std::int32_t larger_magnitude(std::int32_t most, float x) {
  const auto size = static_cast<std::int32_t>(bits_of(x) & 0x7fffffffu);
  return size > most ? size : most;
}

// skip: elements with a zero gradient stay as they are. guard, for 8-bit slots: an element whose v' is not finite keeps
// its parameter and its moments become zero (a non-finite gradient makes v' so); returns the largest new moments.
template <bool decay, bool amsgrad, bool skip, bool guard>
PAGEDOPT_HD Largest adam_run(const AdamScalars& s, std::int64_t n, float* __restrict p, const float* __restrict g,
                             float* __restrict m, float* __restrict v, float* __restrict vmax) {
  Largest most;
  for (std::int64_t i = 0; i < n; ++i) {
    const AdamElement before{p[i], m[i], v[i], amsgrad ? vmax[i] : 0.0f};
    AdamElement e = before;
    adam<decay, amsgrad>(s, g[i], e);
    if (guard) {
      const bool finite = e.v <= FLT_MAX;
      e.p = finite ? e.p : before.p;
      e.m = finite ? e.m : 0.0f;
      e.v = finite ? e.v : 0.0f;
      e.vmax = finite ? e.vmax : 0.0f;
    }
    const bool keep = skip && g[i] == 0.0f;
    p[i] = keep ? before.p : e.p;
    m[i] = keep ? before.m : e.m;
    v[i] = keep ? before.v : e.v;
    if (amsgrad) vmax[i] = keep ? before.vmax : e.vmax;
    if (!guard) continue;
    most.m = larger_magnitude(most.m, m[i]);
    most.v = larger_magnitude(most.v, v[i]);
    if (amsgrad) most.vmax = larger_magnitude(most.vmax, vmax[i]);
  }
  return most;
}

// exp_avg is signed, the others are not.
void decode_slot(const Piece& piece, int slot, std::int64_t first, int n, float* to) {
  const auto* codes = static_cast<const std::uint8_t*>(piece.slot[slot]) + first;
  const float absmax = piece.absmax[slot][piece.codec == Codec::blockwise8 ? first / kBlockElements : 0];
  slot == 0 ? decode_block<true>(codes, n, absmax, to) : decode_block<false>(codes, n, absmax, to);
}

// `most`: the largest magnitude in `from`.
void encode_slot(const Piece& piece, int slot, std::int64_t first, int n, float* from, float most) {
  auto* codes = static_cast<std::uint8_t*>(piece.slot[slot]) + first;
  float absmax = piece.new_absmax[slot];
  if (piece.codec == Codec::blockwise8) piece.absmax[slot][first / kBlockElements] = absmax = most;
  slot == 0 ? encode_block<true>(from, n, absmax, codes) : encode_block<false>(from, n, absmax, codes);
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

PAGEDOPT_HD int slots_of(const Piece& piece) { return piece.amsgrad ? 3 : 2; }

// Where the numbers of one block are while it is worked on: in a Block, or where they are stored.
struct Place {
  float* p;
  const float* g;
  float* slot[kSlots];
};

PAGEDOPT_HD Place place_of(Block& block) { return {block.p, block.g, {block.slot[0], block.slot[1], block.slot[2]}}; }

// New parameter and slots of one block.
template <bool decay, bool amsgrad, bool skip, bool guard>
Largest adam_block(const AdamScalars& s, const Place& at) {
  return adam_run<decay, amsgrad, skip, guard>(s, kBlockElements, at.p, at.g, at.slot[0], at.slot[1], at.slot[2]);
}

using AdamBlock = Largest (*)(const AdamScalars&, const Place&);

void load_slots(const Piece& piece, std::int64_t first, int n, Block& block) {
  for (int slot = 0; slot < slots_of(piece); ++slot) {
    if (piece.codec == Codec::f32)
      load(piece.slot[slot], first, n, Dtype::f32, block.slot[slot]);
    else
      decode_slot(piece, slot, first, n, block.slot[slot]);
  }
}

void store_slots(const Piece& piece, std::int64_t first, int n, Block& block, const Largest& most) {
  for (int slot = 0; slot < slots_of(piece); ++slot) {
    if (piece.codec == Codec::f32)
      store(block.slot[slot], first, n, Dtype::f32, piece.slot[slot]);
    else
      encode_slot(piece, slot, first, n, block.slot[slot], most.of(slot));
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
void fetch_ahead(const Piece& piece, std::int64_t first) {
  constexpr std::int64_t kBlocksAhead = 4;
  const std::int64_t item = piece.dtype == Dtype::f32 ? 4 : 2, start = first + kBlocksAhead * kBlockElements;
  fetch(piece.grad, start * item, kBlockElements * item);
  fetch(piece.param, start * item, kBlockElements * item);
  for (int slot = 0; slot < slots_of(piece); ++slot) fetch(piece.slot[slot], start, kBlockElements);
}

void update_blocks(const Piece& piece, AdamBlock adam_block) {
  Block block;
  for_blocks(piece.numel, [&](std::int64_t first, int n) {
    if (is_8bit(piece.codec)) fetch_ahead(piece, first);
    Place at = place_of(block);
    const bool whole = n == kBlockElements, params_in_place = whole && piece.dtype == Dtype::f32;
    const bool slots_in_place = whole && piece.codec == Codec::f32;
    if (params_in_place) at.g = static_cast<const float*>(piece.grad) + first;
    if (!params_in_place) load(piece.grad, first, n, piece.dtype, block.g);
    // Encoding anew could change the codes of a block whose gradients are all zero.
    if (piece.skip_zeros && piece.codec != Codec::tensorwise8 && all_zero(at.g)) return;
    if (params_in_place) at.p = static_cast<float*>(piece.param) + first;
    if (!params_in_place) load(piece.param, first, n, piece.dtype, block.p);
    for (int slot = 0; slots_in_place && slot < slots_of(piece); ++slot)
      at.slot[slot] = static_cast<float*>(piece.slot[slot]) + first;
    if (!slots_in_place) load_slots(piece, first, n, block);
    const Largest most = adam_block(piece.scalars, at);
    if (!params_in_place) store(block.p, first, n, piece.dtype, piece.param);
    if (!slots_in_place) store_slots(piece, first, n, block, most);
  });
}

template <bool decay, bool amsgrad, bool skip>
void update_in_place(const Piece& piece) {
  const auto slot = [&](int i) { return static_cast<float*>(piece.slot[i]); };
  adam_run<decay, amsgrad, skip, false>(piece.scalars, piece.numel, static_cast<float*>(piece.param),
                                        static_cast<const float*>(piece.grad), slot(0), slot(1), slot(2));
}

// Calls visit with every flag as a type.
template <class Visit>
PAGEDOPT_HD void with_flags(const Piece& piece, Visit visit) {
  const auto flag = [](bool on, auto next) { on ? next(std::true_type{}) : next(std::false_type{}); };
  flag(piece.scalars.coupled_decay != 0.0f, [&](auto decay) {
    flag(piece.amsgrad, [&](auto amsgrad) { flag(piece.skip_zeros, [&](auto skip) { visit(decay, amsgrad, skip); }); });
  });
}

AdamBlock adam_block_for(const Piece& piece) {
  AdamBlock chosen = nullptr;
  with_flags(piece, [&](auto decay, auto amsgrad, auto skip) {
    constexpr bool d = decltype(decay)::value, a = decltype(amsgrad)::value, s = decltype(skip)::value;
    chosen = piece.codec == Codec::f32 ? adam_block<d, a, s, false> : adam_block<d, a, s, true>;
  });
  return chosen;
}

void update(const Piece& piece) {
  if (piece.codec == Codec::f64) {
    update64(piece);
    return;
  }
  if (piece.codec != Codec::f32 || piece.dtype != Dtype::f32) {
    update_blocks(piece, adam_block_for(piece));
    return;
  }
  with_flags(piece, [&](auto decay, auto amsgrad, auto skip) {
    update_in_place<decltype(decay)::value, decltype(amsgrad)::value, decltype(skip)::value>(piece);
  });
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

// The move of every element, given its new moments: none where nothing is moved.
void moves(const Piece& piece, const Block& block, float* to) {
  for (int i = 0; i < kBlockElements; ++i) {
    const AdamElement e{0.0f, block.slot[0][i], 0.0f, block.slot[piece.amsgrad ? 2 : 1][i]};
    const bool still = e.m == 0.0f || (piece.skip_zeros && block.g[i] == 0.0f);
    to[i] = still ? 0.0f : adam_move<true>(piece.scalars, e);
  }
}

Partial measure(const Piece& piece) {
  if (piece.codec == Codec::f64) return measure64(piece);
  Partial partial;
  Block block;
  alignas(64) float move[kBlockElements];
  const AdamBlock adam_block = adam_block_for(piece);
  for_blocks(piece.numel, [&](std::int64_t first, int n) {
    load(piece.param, first, n, piece.dtype, block.p);
    load(piece.grad, first, n, piece.dtype, block.g);
    load_slots(piece, first, n, block);
    partial.param_square += square_sum(block.p);
    adam_block(piece.scalars, place_of(block));
    moves(piece, block, move);
    partial.move_square += square_sum(move);
    for (int slot = 0; slot < slots_of(piece); ++slot)
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

const Kernels kernels = {PAGEDOPT_NAME(PAGEDOPT_ISA), gradient_norm, measure, update, encode_all, decode_all};

}  // namespace PAGEDOPT_ISA
}  // namespace pagedopt

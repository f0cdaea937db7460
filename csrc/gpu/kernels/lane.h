// What one lane of a warp does with its eight elements of a block: load, decode, encode, store. A warp has the 256
// elements of a quantisation block. Everything is unrolled, so that arrays are registers.
#pragma once

#include <cstdint>
#include <cstring>

#include "gpu/kernels/arithmetic.h"
#include "rules/codec.h"
#include "step/step.h"

namespace pagedopt {

inline constexpr int kWarpLanes = 32;
inline constexpr int kLaneElements = kBlockElements / kWarpLanes;

// Both maps, where gathers are quick: in shared memory on a GPU.
struct CodeMaps {
  CodeMap of_signed, of_unsigned;

  template <bool is_signed>
  PAGEDOPT_HD const CodeMap& of() const {
    return is_signed ? of_signed : of_unsigned;
  }
};

// ---- which elements a lane has ----

// A lane has runs of `run` neighbours; the warp's lanes lie side by side, so that every access of a warp is one
// contiguous piece. Runs of 4 where numbers of 32 bits are among what is loaded, else 8: no access is over 16 bytes.
template <int run>
PAGEDOPT_HD int element_of(int lane, int i) {
  return i / run * (kWarpLanes * run) + lane * run + i % run;
}

// ---- as they are stored ----

// Eight numbers of `size` bytes, packed.
template <int size>
struct Stored {
  std::uint32_t word[kLaneElements * size / 4];

  PAGEDOPT_HD std::uint32_t get(int i) const {
    const std::uint32_t shifted = word[i * size / 4] >> (8 * (i * size % 4));
    return size == 4 ? shifted : shifted & ((1u << (8 * size % 32)) - 1u);
  }
  // pre: words are zero at first
  PAGEDOPT_HD void put(int i, std::uint32_t bits) { word[i * size / 4] |= bits << (8 * (i * size % 4)); }
};

// Addresses of rows come from memory: the compiler has to be told that they are not of shared memory.
template <class T>
PAGEDOPT_HD T* in_global(T* address) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

// One access of `words` * 4 bytes, aligned to its size.
template <int words>
PAGEDOPT_HD void load_words(const void* from, std::uint32_t* to) {
#if defined(__CUDA_ARCH__)
  if constexpr (words == 4) {
    const uint4 four = *static_cast<const uint4*>(in_global(from));
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  } else if constexpr (words == 2) {
    const uint2 two = *static_cast<const uint2*>(in_global(from));
    to[0] = two.x, to[1] = two.y;
  } else {
    to[0] = *static_cast<const std::uint32_t*>(in_global(from));
  }
#else
  std::memcpy(to, from, 4 * words);
#endif
}

template <int words>
PAGEDOPT_HD void store_words(const std::uint32_t* from, void* to) {
#if defined(__CUDA_ARCH__)
  if constexpr (words == 4)
    *static_cast<uint4*>(in_global(to)) = make_uint4(from[0], from[1], from[2], from[3]);
  else if constexpr (words == 2)
    *static_cast<uint2*>(in_global(to)) = make_uint2(from[0], from[1]);
  else
    *static_cast<std::uint32_t*>(in_global(to)) = from[0];
#else
  std::memcpy(to, from, 4 * words);
#endif
}

template <int size>
using Unsigned =
    std::conditional_t<size == 4, std::uint32_t, std::conditional_t<size == 2, std::uint16_t, std::uint8_t>>;

template <int size>
PAGEDOPT_HD std::uint32_t load_one(const std::byte* from) {
  Unsigned<size> bits;
#if defined(__CUDA_ARCH__)
  bits = *reinterpret_cast<const Unsigned<size>*>(in_global(from));
#else
  std::memcpy(&bits, from, size);
#endif
  return bits;
}

template <int size>
PAGEDOPT_HD void store_one(std::uint32_t from, std::byte* to) {
  const auto bits = static_cast<Unsigned<size>>(from);
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<Unsigned<size>*>(in_global(to)) = bits;
#else
  std::memcpy(to, &bits, size);
#endif
}

template <int size, int run>
PAGEDOPT_HD bool aligned(const void* base) {
  return reinterpret_cast<std::uintptr_t>(base) % (size * run) == 0;
}

// A block of an array: elements [first, first + n). `first` is of a part, so that 32 bits do for all offsets.
struct BlockAt {
  int first, n;
  bool whole;  // all accesses may be of whole runs; slots are always aligned for it

  // Of numbers of `size` bytes, where a lane's first run is.
  template <int size, int run>
  PAGEDOPT_HD int lane_bytes(int lane) const {
    return (first + lane * run) * size;
  }
};

// A lane's numbers of a block of an array. `whole`: the block is whole and its memory aligned for whole runs; else
// numbers go one by one, and those past its end are `fill`.
template <int size, int run, bool whole>
PAGEDOPT_HD Stored<size> load_lane(const void* base, const BlockAt& block, int lane, std::uint32_t fill) {
  const auto* const own = static_cast<const std::byte*>(base) + block.lane_bytes<size, run>(lane);
  Stored<size> stored = {};
  for (int i = 0; whole && i < kLaneElements; i += run)
    load_words<run * size / 4>(own + element_of<run>(0, i) * size, stored.word + i * size / 4);
  for (int i = 0; !whole && i < kLaneElements; ++i)
    stored.put(i, element_of<run>(lane, i) < block.n ? load_one<size>(own + element_of<run>(0, i) * size) : fill);
  return stored;
}

template <int size, int run, bool whole>
PAGEDOPT_HD void store_lane(const Stored<size>& stored, void* base, const BlockAt& block, int lane) {
  // Unsigned: this address is made anew where registers are short, and then without the instruction for its sign.
  auto* const own = static_cast<std::byte*>(base) + static_cast<unsigned>(block.lane_bytes<size, run>(lane));
  for (int i = 0; whole && i < kLaneElements; i += run)
    store_words<run * size / 4>(stored.word + i * size / 4, own + element_of<run>(0, i) * size);
  for (int i = 0; !whole && i < kLaneElements; ++i)
    if (element_of<run>(lane, i) < block.n) store_one<size>(stored.get(i), own + element_of<run>(0, i) * size);
}

// ---- numbers of a parameter, a gradient or a float32 slot ----

template <Dtype dtype>
inline constexpr int kDtypeBytes = dtype == Dtype::f32 ? 4 : 2;

template <Dtype dtype>
PAGEDOPT_HD float widened(std::uint32_t bits) {
  if constexpr (dtype == Dtype::f32) return float_of(bits);
  if constexpr (dtype == Dtype::bf16) return from_bf16(static_cast<std::uint16_t>(bits));
  if constexpr (dtype == Dtype::f16) return from_f16(static_cast<std::uint16_t>(bits));
}

template <Dtype dtype>
PAGEDOPT_HD std::uint32_t narrowed(float x) {
  if constexpr (dtype == Dtype::f32) return bits_of(x);
  if constexpr (dtype == Dtype::bf16) return to_bf16(x);
  if constexpr (dtype == Dtype::f16) return to_f16(x);
}

template <Dtype dtype>
PAGEDOPT_HD void widen(const Stored<kDtypeBytes<dtype>>& stored, float (&to)[kLaneElements]) {
  for (int i = 0; i < kLaneElements; ++i) to[i] = widened<dtype>(stored.get(i));
}

template <Dtype dtype>
PAGEDOPT_HD Stored<kDtypeBytes<dtype>> narrow(const float (&from)[kLaneElements]) {
  Stored<kDtypeBytes<dtype>> stored = {};
  for (int i = 0; i < kLaneElements; ++i) stored.put(i, narrowed<dtype>(from[i]));
  return stored;
}

// Largest magnitude of finite numbers, as bits, which compare like integers.
PAGEDOPT_HD std::uint32_t largest_bits(const float (&x)[kLaneElements]) {
  std::uint32_t most = 0;
  for (int i = 0; i < kLaneElements; i += 2)
    most = most_of(most, bits_of(x[i]) & 0x7fffffffu, bits_of(x[i + 1]) & 0x7fffffffu);
  return most;
}

// ---- 8-bit slots ----

PAGEDOPT_HD void decode_lane(const Stored<1>& codes, const CodeMap& map, float absmax, float (&to)[kLaneElements]) {
  for (int i = 0; i < kLaneElements; ++i) to[i] = map.value[byte_of(codes.word[i / 4], i % 4)] * absmax;
}

}  // namespace pagedopt

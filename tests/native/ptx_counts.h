// What the warps of launched kernels did.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ptx_program.h"

namespace ptx {

struct Counts {
  std::map<std::string, std::uint64_t> instructions;        // of a warp, by name
  std::uint64_t load_sectors = 0, store_sectors = 0;        // of 32 bytes, of global memory
  std::uint64_t load_wavefronts = 0, store_wavefronts = 0;  // of shared memory
};

inline constexpr std::size_t kSectorBytes = 32, kBanks = 32, kBankBytes = 4;

// Of the lanes' accesses, each of up to 16 bytes and aligned to its size.
inline std::uint64_t sectors_of(const std::uint64_t (&addresses)[kLanes], std::uint32_t active) {
  std::uint64_t found[kLanes], count = 0;
  for (; active != 0; active &= active - 1) {
    const std::uint64_t sector = addresses[__builtin_ctz(active)] / kSectorBytes;
    if (std::find(found, found + count, sector) == found + count) found[count++] = sector;
  }
  return count;
}

// A multiprocessor serves as many lanes at once as have 128 bytes; they take as many wavefronts as there are words in
// the fullest bank.
inline std::uint64_t wavefronts_of(const std::uint64_t (&addresses)[kLanes], std::size_t bytes, std::uint32_t active) {
  const int at_once = static_cast<int>(kBanks * kBankBytes / std::max(bytes, kBankBytes));
  std::uint64_t wavefronts = 0;
  for (int first = 0; first < kLanes; first += at_once) {
    std::uint64_t found[kLanes], count = 0, in_bank[kBanks] = {}, most = 0;
    for (int lane = first; lane < first + at_once; ++lane) {
      if ((active >> lane & 1) == 0) continue;
      for (std::uint64_t word = addresses[lane] / kBankBytes; word < (addresses[lane] + bytes) / kBankBytes; ++word) {
        if (std::find(found, found + count, word) != found + count) continue;
        found[count++] = word;
        most = std::max(most, ++in_bank[word % kBanks]);
      }
    }
    wavefronts += most;
  }
  return wavefronts;
}

}  // namespace ptx

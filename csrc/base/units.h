// Sizes and positions as types, so that a page number is never taken for a byte count.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pagedopt {

inline constexpr std::size_t kOsPageBytes = 4096;
inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;
inline constexpr std::size_t kSlotAlignmentBytes = 256;  // of every extent and every slot in it

using PageIndex = std::uint32_t;  // number of a page in its arena: 2^32 pages of 2 MiB are 8 PiB

// Where a page is, as policies and the monitor see it. `fresh` has no content yet (it reads as zeros) and costs
// nothing.
enum class Tier : std::uint8_t { fresh = 0, upper = 1, lower = 2 };

enum class MoveKind : std::uint8_t { prefetch = 0, evict = 1 };

// How pages are moved down: so many in a call, by so many threads.
struct EvictWay {
  std::size_t pages_at_once = 1;
  unsigned threads = 1;
};

// Why a page was evicted; counted apart.
enum class Reason : std::uint8_t { budget = 0, pressure = 1, behind = 2, explicit_ = 3 };

inline constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static_assert(kHugePageBytes % kOsPageBytes == 0);
static_assert(kOsPageBytes % kSlotAlignmentBytes == 0);

}  // namespace pagedopt

// Which bytes of an arena's range are in use: free ranges, how many extents touch each page, and what becomes of a page
// when its first extent comes and its last one goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_set>
#include <vector>

#include "base/annotations.h"
#include "base/free_ranges.h"
#include "base/mutex.h"
#include "base/zeroed.h"
#include "memory/counters.h"
#include "memory/pages.h"
#include "memory/pins.h"
#include "memory/sync.h"
#include "memory/vm.h"

namespace pagedopt {

class Extents {
 public:
  // While it is held no page becomes live, and none ceases to be. Taken before Sync::mutex.
  Mutex mutex;

  Extents(Vm& vm, PageTable& pages, Pins& pins, Sync& sync, Counters& counters);

  // Zeroed bytes. `keep`: small state, which is never evicted and shares pages with its like. Raises VmError when the
  // range is full, or the system promises no more memory. The size is a multiple of kSlotAlignmentBytes.
  std::byte* allocate(std::size_t bytes, bool keep) PAGEDOPT_WANTS_FREE(mutex, &Sync::mutex);
  // pre: they were allocated so. What cannot be given back is not used again.
  void release(std::byte* begin, std::size_t bytes, bool keep) noexcept PAGEDOPT_WANTS_FREE(mutex, &Sync::mutex);

  // No page from here on was ever in use.
  PageIndex end() const PAGEDOPT_WANTS(mutex) { return static_cast<PageIndex>(committed_bytes_ / vm_.page_bytes()); }
  std::size_t count() const PAGEDOPT_WANTS(mutex) { return count_; }
  std::size_t bytes() const PAGEDOPT_WANTS(mutex) { return bytes_; }
  // What does not hold of the live counts; null if all does.
  const char* fault() PAGEDOPT_WANTS(mutex);

 private:
  friend struct MemoryTest;
  Ranges& ranges(bool keep) PAGEDOPT_WANTS(mutex) { return keep ? kept_ : paged_; }
  std::size_t take(std::size_t bytes, bool keep) PAGEDOPT_WANTS(mutex);
  void commit_up_to(std::size_t bytes) PAGEDOPT_WANTS(mutex);
  void prepare(std::size_t offset, std::size_t bytes, bool keep) PAGEDOPT_WANTS(mutex);
  void add_live(std::size_t offset, std::size_t bytes, bool keep) PAGEDOPT_WANTS(mutex);
  std::vector<PageIndex> remove_live(std::size_t offset, std::size_t bytes) PAGEDOPT_WANTS(mutex);
  void give_back(std::size_t offset, std::size_t bytes, bool keep) PAGEDOPT_WANTS(mutex);
  void discard(const std::vector<PageIndex>& pages) PAGEDOPT_WANTS(mutex) PAGEDOPT_WANTS_FREE(&Sync::mutex);
  bool clear(std::size_t from, std::size_t to) noexcept;
  PageIndex page_at(std::size_t offset) const noexcept { return static_cast<PageIndex>(offset / vm_.page_bytes()); }

  Vm& vm_;
  PageTable& pages_;
  Pins& pins_;
  Sync& sync_;
  Counters& counters_;

  Ranges paged_ PAGEDOPT_GUARDED_BY(mutex);
  Ranges kept_ PAGEDOPT_GUARDED_BY(mutex);
  Zeroed<std::uint32_t> live_ PAGEDOPT_GUARDED_BY(mutex);       // extents that touch a page
  std::size_t touches_ PAGEDOPT_GUARDED_BY(mutex) = 0;          // the sum of those
  std::size_t committed_bytes_ PAGEDOPT_GUARDED_BY(mutex) = 0;  // from the start of the range
  // Pages that are not live and that could not be discarded.
  std::unordered_set<PageIndex> undiscarded_ PAGEDOPT_GUARDED_BY(mutex);
  std::size_t count_ PAGEDOPT_GUARDED_BY(mutex) = 0;
  std::size_t bytes_ PAGEDOPT_GUARDED_BY(mutex) = 0;
};

}  // namespace pagedopt

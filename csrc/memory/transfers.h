// Moves pages between the tiers: asks the page table for each, has the memory copied or remapped, and tells the page
// table how it ended. What runs together moves in one call of Vm.
//
// Locks: none. The page table gives a page to one thread at a time (begin_prefetch, begin_evict), so two threads may
// move different pages at once, or try the same one.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "memory/counters.h"
#include "memory/pages.h"
#include "memory/trace.h"
#include "memory/vm.h"

namespace pagedopt {

struct Move {
  MoveKind kind;
  Reason reason;
  PageIndex page;
  std::int64_t after;  // position in the order whose work has to be done first; -1: none
};

class Transfers {
 public:
  Transfers(Vm& vm, PageTable& pages, Counters& counters, Trace& trace)
      : vm_(vm), pages_(pages), counters_(counters), trace_(trace) {}

  // Return how many pages moved: some cannot now (pinned, in motion, already there).
  std::size_t prefetch(std::vector<Move> moves);
  std::size_t evict(std::vector<Move> moves);

  // Whether the upper tier had no memory for a page, since the last call.
  bool take_shortage() noexcept { return found_no_memory_.exchange(false); }

 private:
  using Pages = std::vector<PageIndex>;

  bool are_all(const Pages& pages, PageState state) const;  // for preconditions
  bool populate(PageIndex page);
  void end_arrivals(const Pages& pages, std::size_t done);
  void arrived(PageIndex page, PageTable::Source source);
  void cancel_arrival(PageIndex page, PageTable::Source source) noexcept;

  bool place_lower(PageIndex page);
  std::size_t demote(const std::vector<Move>& moves);
  void left(PageIndex page) noexcept;
  void cancel_leaving(PageIndex page, PageTable::Content content) noexcept;
  void cancel_leaving(const std::vector<Move>& moves) noexcept;
  bool begin_remap(PageIndex page) noexcept;
  void count_eviction(Reason reason) noexcept;

  Vm& vm_;
  PageTable& pages_;
  Counters& counters_;
  Trace& trace_;
  std::atomic<bool> found_no_memory_{false};
};

}  // namespace pagedopt

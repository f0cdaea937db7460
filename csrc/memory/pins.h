// Pins pages for those who use them, and waits for pages that are in motion. A pinned page stays in its tier.
//
// Locks: pinning a page that is there takes none. Waiting takes Sync::mutex.
#pragma once

#include <chrono>

#include "base/annotations.h"
#include "memory/counters.h"
#include "memory/mover.h"
#include "memory/pages.h"
#include "memory/plan_link.h"
#include "memory/sync.h"
#include "memory/trace.h"
#include "memory/vm.h"

namespace pagedopt {

class Pins {
 public:
  Pins(Vm& vm, PageTable& pages, Mover& mover, const PlanLink& link, Sync& sync, Counters& counters, Trace& trace)
      : vm_(vm), pages_(pages), mover_(mover), link_(link), sync_(sync), counters_(counters), trace_(trace) {}

  // Raises VmError where the page has to be used in the lower tier and that does not give it; it is not pinned then.
  void pin(PageIndex page) PAGEDOPT_WANTS_FREE(&Sync::mutex) {
    PageTable::Pin result = pages_.pin(page);
    if (result == PageTable::Pin::wait) result = wait_and_pin(page);
    pinned(page, result);
  }
  bool try_pin(PageIndex page) {  // false if the page has to be waited for
    const PageTable::Pin result = pages_.pin(page);
    pinned(page, result);
    return result != PageTable::Pin::wait;
  }
  void unpin(PageIndex page) noexcept { pages_.unpin(page); }
  // A page that was fresh is in the lower tier: the upper one had no memory for it. pre: pinned
  void begin_lower(PageIndex page) PAGEDOPT_WANTS_FREE(&Sync::mutex);

 private:
  PageTable::Pin wait_and_pin(PageIndex page) PAGEDOPT_WANTS_FREE(&Sync::mutex);
  void pinned(PageIndex page, PageTable::Pin how) {
    if (how == PageTable::Pin::first) vm_.keep(page);  // rather than at the first write
    if (how == PageTable::Pin::direct) use_in_place(page);
  }
  void use_in_place(PageIndex page);

  Vm& vm_;
  PageTable& pages_;
  Mover& mover_;
  const PlanLink& link_;
  Sync& sync_;
  Counters& counters_;
  Trace& trace_;
  int waiting_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;
  std::chrono::steady_clock::time_point stall_start_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
};

}  // namespace pagedopt

// The one lock of an arena's slow paths and what is waited for under it. Fast paths (pin, unpin of a resident page)
// take no lock: they work on the page's word (pages.h).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace pagedopt {

struct Sync {
  std::mutex mutex;
  std::condition_variable moved;  // a page finished moving, a plan arrived, or moves were cancelled: compute waits here
  std::condition_variable work;   // there may be something to move: the mover's threads wait here
  std::condition_variable events;  // order, cycle, budget or health changed: the pager waits here for `event`
  std::uint64_t event = 0;         // how often that was so far

  void announce() {  // pre: mutex held
    ++event;
    events.notify_all();
  }
};

}  // namespace pagedopt

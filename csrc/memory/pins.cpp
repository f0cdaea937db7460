#include "memory/pins.h"

#include <string>

#include "base/check.h"
#include "base/error.h"

namespace pagedopt {

// Whoever ends a motion changes the page's word first and notifies `moved` under the lock later. So between the last
// look at the word here, under the lock, and the wait no notification is lost.
PageTable::Pin Pins::wait_and_pin(PageIndex page) {
  Lock lock(sync_.mutex);
  PageTable::Pin result = pages_.pin(page);
  if (result != PageTable::Pin::wait) return result;
  ++counters_.stalled_pages;
  const Trace::Span span(trace_, TraceKind::stall, page);
  if (waiting_++ == 0) stall_start_ = std::chrono::steady_clock::now();
  while ((result = pages_.pin(page)) == PageTable::Pin::wait) {
    if (pages_.wanted(page)) mover_.demand(page);  // again after each wait: a new plan forgets who waits
    sync_.moved.wait(lock);
  }
  if (--waiting_ == 0)
    counters_.stall_ns += static_cast<std::uint64_t>((std::chrono::steady_clock::now() - stall_start_).count());
  return result;
}

void Pins::begin_lower(PageIndex page) {
  PAGEDOPT_PRE(pages_.is_pinned(page));
  pages_.begin_lower(page);
  ++counters_.direct_pages;
  const Lock lock(sync_.mutex);
  if (link_.is_attached()) mover_.shrink_budget();
}

void Pins::use_in_place(PageIndex page) {
  PAGEDOPT_PRE(pages_.is_pinned(page));
  ++counters_.direct_pages;
  try {
    vm_.use_in_place(page);
  } catch (const VmError& error) {
    unpin(page);
    throw VmError(std::string(error.what()) + "; " + mover_.outlook(error.code()), error.code());
  } catch (...) {
    unpin(page);
    throw;
  }
}

}  // namespace pagedopt

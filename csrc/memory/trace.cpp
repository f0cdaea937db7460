#include "memory/trace.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace pagedopt {
namespace {

std::uint32_t thread_number() noexcept {
  thread_local const auto number = static_cast<std::uint32_t>(::syscall(SYS_gettid));
  return number;
}

}  // namespace

void Trace::set(bool on) {
  const Lock lock(mutex_);
  if (on == is_on()) return;
  if (on) {
    events_.clear();
    events_.reserve(kMostEvents);
    lost_ = 0;
  }
  on_.store(on, std::memory_order_relaxed);
}

Trace::Taken Trace::take() {
  std::vector<TraceEvent> empty;
  if (is_on()) empty.reserve(kMostEvents);  // so that adding an event never allocates
  const Lock lock(mutex_);
  empty.swap(events_);
  return {std::move(empty), lost_};
}

void Trace::add(TraceEvent event) noexcept {
  event.duration_ns = now_ns() - event.begin_ns;
  event.thread = thread_number();
  const Lock lock(mutex_);
  if (!is_on()) return;
  if (events_.size() < events_.capacity())
    events_.push_back(event);
  else
    ++lost_;
}

}  // namespace pagedopt

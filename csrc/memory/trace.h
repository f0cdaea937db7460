// A record of moves, stalls and steps, made only while somebody asked for it; otherwise one relaxed load an event.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/annotations.h"
#include "base/mutex.h"
#include "base/units.h"

namespace pagedopt {

// `refused` moved nothing: the page was pinned, gone or already there.
enum class TraceKind : std::uint8_t {
  prefetch = 0,
  populate = 1,
  evict = 2,
  drop = 3,
  refused = 4,
  stall = 5,
  step = 6,
  plan_wait = 7,
  moment = 8  // with the budget as its bytes
};

// As Python reads it: "<QQQIIBB6x". Times are those of std::chrono::steady_clock, which is time.monotonic_ns of Python.
struct TraceEvent {
  std::uint64_t begin_ns, duration_ns, bytes;
  std::uint32_t page;    // kNoPage for a step
  std::uint32_t thread;  // as the operating system numbers it
  TraceKind kind;
  std::uint8_t reason;  // of an eviction
  std::uint8_t padding[6];
};
static_assert(sizeof(TraceEvent) == 40);

class Trace {
 public:
  static constexpr std::uint32_t kNoPage = 0xffffffffU;
  static constexpr std::size_t kMostEvents = std::size_t{1} << 16;  // 2.5 MiB; what finds no room is counted

  struct Taken {
    std::vector<TraceEvent> events;
    std::uint64_t lost;  // since the trace was started
  };

  void set(bool on);
  bool is_on() const noexcept { return on_.load(std::memory_order_relaxed); }
  Taken take();

  static std::uint64_t now_ns() noexcept {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
            .count());
  }

  // One event from construction to destruction.
  class Span {
   public:
    Span(Trace& trace, TraceKind kind, PageIndex page = kNoPage) : trace_(trace.is_on() ? &trace : nullptr) {
      if (!trace_) return;
      event_ = {now_ns(), 0, 0, page, 0, kind, 0, {}};
    }
    ~Span() {
      if (trace_) trace_->add(event_);
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

    void is(TraceKind kind, std::size_t bytes = 0, std::uint8_t reason = 0) noexcept {
      event_.kind = kind;
      event_.bytes = bytes;
      event_.reason = reason;
    }

   private:
    Trace* trace_;
    TraceEvent event_{};
  };

 private:
  void add(TraceEvent event) noexcept;

  std::atomic<bool> on_{false};
  Mutex mutex_;  // innermost: nothing is locked under it
  std::vector<TraceEvent> events_ PAGEDOPT_GUARDED_BY(mutex_);
  std::uint64_t lost_ PAGEDOPT_GUARDED_BY(mutex_) = 0;
};

}  // namespace pagedopt

// Points in the work of streams that other streams and threads can wait for. Fences are numbered from 1 in the order in
// which they were put up; each is behind those before it, also across streams. A few events serve them all: one that
// was used again stands for a later fence, so that waiting may take longer and is never too short.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>

#include "gpu/owned.h"

namespace pagedopt {

class Fences {
 public:
  // `spins`: threads wait for moments only, and are to be back at once.
  Fences(Gpu& gpu, bool spins) : gpu_(gpu) {
    while (events_.size() < kEvents) events_.emplace_back(gpu, spins);
  }
  Fences(const Fences&) = delete;
  Fences& operator=(const Fences&) = delete;

  // Behind the work on `stream` so far. Whether that is where the fence before was put up is not asked: a stream may
  // have the handle of one that is gone.
  std::uint64_t put_up(StreamHandle stream) {
    std::lock_guard lock(mutex_);
    if (last_ > passed_) gpu_.wait(event(last_), stream);  // the fences before come first
    gpu_.record(event(last_ + 1), stream);
    return ++last_;  // not if that failed
  }

  // Behind the tensor operations so far on the default stream: those put up no fences. While a blocking stream captures
  // a graph nothing may be put on that stream. Asking whether it captures then throws; recording would end the capture.
  std::uint64_t put_up_on_default_stream() {
    constexpr StreamHandle kDefaultStream = nullptr;
    (void)gpu_.is_capturing(kDefaultStream);
    return put_up(kDefaultStream);
  }

  // What comes on `stream` waits for the fence.
  void wait(std::uint64_t fence, StreamHandle stream) {
    if (fence <= passed_) return;
    std::lock_guard lock(mutex_);
    gpu_.wait(event(fence), stream);
  }

  // The calling thread waits for it.
  void synchronize(std::uint64_t fence) {
    if (is_passed(fence)) return;
    EventHandle event = nullptr;
    {
      std::lock_guard lock(mutex_);
      event = this->event(fence);
    }
    gpu_.synchronize(event);
    std::lock_guard lock(mutex_);
    passed_ = std::max(passed_.load(), fence);
  }

  // It waits for all of them.
  void synchronize() { synchronize(last()); }

  bool is_passed(std::uint64_t fence) {
    if (fence <= passed_) return true;
    std::lock_guard lock(mutex_);
    if (fence > passed_ && gpu_.is_done(event(fence))) passed_ = fence;
    return fence <= passed_;
  }

 private:
  static constexpr std::size_t kEvents = 64;

  std::uint64_t last() {
    std::lock_guard lock(mutex_);
    return last_;
  }
  EventHandle event(std::uint64_t fence) const { return events_[fence % kEvents]; }

  Gpu& gpu_;
  std::mutex mutex_;
  std::deque<Event> events_;
  std::uint64_t last_ = 0;
  std::atomic<std::uint64_t> passed_{0};
};

}  // namespace pagedopt

// The order in which pages will be used: the walks of the optimizers of an arena, the one expected next first. One
// round over them is a cycle. A walk that was passed over, because another one stepped when it was expected, is idle:
// it is in the order only while it steps, until it has come again within a round.
//
// Between steps an iteration passes moments, such as a gradient that has become whole. They are counted from the end of
// a cycle on, so the same count means the same place in every iteration.
//
// Locks: all functions want Sync::mutex, unless they say otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "base/annotations.h"
#include "base/units.h"
#include "memory/sync.h"

namespace pagedopt {

class PageWalk;

struct Order {
  std::uint64_t generation = 0;  // changes when the order does
  std::uint64_t cycle = 0;       // rounds over the order so far
  std::uint64_t cursor = 0;      // entries of `pages` that are done in this cycle
  std::uint64_t held_pages = 1;  // entries a step holds or waits for at one moment, at most
  std::vector<PageIndex> pages;  // each once
};

class Schedule {
 public:
  void add(PageWalk& walk) PAGEDOPT_WANTS(&Sync::mutex);  // its first step is expected next
  void remove(PageWalk& walk) PAGEDOPT_WANTS(&Sync::mutex);
  // Its next step is not expected: its pages are in no order until it steps, or is expected again. pre: it does not
  // step
  void dismiss(PageWalk& walk) PAGEDOPT_WANTS(&Sync::mutex);
  void dismiss_all() PAGEDOPT_WANTS(&Sync::mutex);
  void expect(PageWalk& walk) PAGEDOPT_WANTS(&Sync::mutex);  // next
  void expect_all() PAGEDOPT_WANTS(&Sync::mutex);
  void begin(PageWalk& walk)
      PAGEDOPT_WANTS(&Sync::mutex);  // a step starts; an unexpected one becomes the first of a new order
  void end() PAGEDOPT_WANTS(&Sync::mutex);

  std::uint64_t generation() const noexcept PAGEDOPT_WANTS(&Sync::mutex) { return generation_; }
  std::uint64_t cycle() const noexcept PAGEDOPT_WANTS(&Sync::mutex) { return cycle_; }
  void pass_moment() noexcept PAGEDOPT_WANTS(&Sync::mutex) { ++moment_; }
  std::uint64_t moment() const noexcept PAGEDOPT_WANTS(&Sync::mutex) { return moment_; }
  const PageWalk* active() const noexcept PAGEDOPT_WANTS(&Sync::mutex) { return active_; }
  Order order() PAGEDOPT_WANTS(&Sync::mutex);

  // Whether all work on the entries up to `position` of that cycle is done. If not, and a step is running that will get
  // there, asks for a nudge (see progressed) when it may have.
  enum class Waiter { reader = 0, writer = 1 };
  bool done(std::uint64_t cycle, std::int64_t position, Waiter waiter) PAGEDOPT_WANTS(&Sync::mutex);

  // Whether the running step is done with the page for good; if not, asks for a nudge likewise.
  bool finished(PageIndex page, Waiter waiter) PAGEDOPT_WANTS(&Sync::mutex);

  // No lock wanted: whether a waiter asked to be woken now that a worker has reached `task`.
  bool progressed(std::uint64_t task) noexcept {
    return task > wake_[0].load(std::memory_order_seq_cst) || task > wake_[1].load(std::memory_order_seq_cst);
  }
  void disarm() noexcept {
    for (auto& wake : wake_) wake.store(kNever);
  }

 private:
  struct Entry {
    PageIndex page;
    std::uint32_t walk;   // index into walks_
    std::uint64_t index;  // into that walk's order
  };
  void changed() PAGEDOPT_WANTS(&Sync::mutex);
  void end_cycle() PAGEDOPT_WANTS(&Sync::mutex);
  void build() PAGEDOPT_WANTS(&Sync::mutex);
  bool passed(const Entry& entry) const PAGEDOPT_WANTS(&Sync::mutex);
  void wake_after(std::uint64_t task, Waiter waiter) PAGEDOPT_WANTS(&Sync::mutex);

  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
  std::vector<PageWalk*> walks_
      PAGEDOPT_GUARDED_BY(&Sync::mutex);                        // those expected, in their order, before the idle ones
  std::size_t expected_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;  // how many those are
  std::size_t next_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;      // walk of walks_ that runs or is expected next
  PageWalk* active_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = nullptr;
  std::uint64_t generation_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 1;
  std::uint64_t cycle_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;
  std::uint64_t moment_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;  // moments passed in this cycle
  std::vector<Entry> entries_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
  bool built_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = false;
  bool visiting_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = false;    // the running step is of an idle walk
  std::uint64_t clock_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;  // steps begun
  std::unordered_map<const PageWalk*, std::uint64_t> last_step_ PAGEDOPT_GUARDED_BY(&Sync::mutex);  // by that clock
  std::atomic<std::uint64_t> wake_[2] = {kNever, kNever};
};

}  // namespace pagedopt

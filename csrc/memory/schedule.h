// The order in which pages will be used: the walks of the optimizers of an arena, the one expected next first. One
// round over them is a cycle. A walk that was passed over, because another one stepped when it was expected, is idle:
// it is in the order only while it steps, until it has come again within a round. All functions want Sync::mutex held,
// unless they say otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "base/units.h"

namespace pagedopt {

class PageWalk;

struct Order {
  std::uint64_t generation = 0;  // changes when the order does
  std::uint64_t cycle = 0;       // rounds over the order so far
  std::uint64_t cursor = 0;      // entries of `pages` that are done in this cycle
  std::uint64_t window = 1;      // entries a step holds or waits for at one moment, at most
  std::vector<PageIndex> pages;  // each once
  std::vector<PageIndex> idle;   // in the upper tier, free to leave, and of no walk that is expected; ascending
};

class Schedule {
 public:
  void add(PageWalk& walk);  // its first step is expected next
  void remove(PageWalk& walk);
  void begin(PageWalk& walk);  // a step starts; an unexpected one becomes the first of a new order
  void end();

  std::uint64_t generation() const noexcept { return generation_; }
  std::uint64_t cycle() const noexcept { return cycle_; }
  const PageWalk* active() const noexcept { return active_; }
  Order order();

  // Whether all work on the entries up to `position` of that cycle is done. If not, and a step is running that will get
  // there, asks for a nudge (see progressed) when it may have.
  enum class Waiter { reader = 0, writer = 1 };
  bool done(std::uint64_t cycle, std::int64_t position, Waiter waiter);

  // Whether the running step is done with the page for good; if not, asks for a nudge likewise.
  bool finished(PageIndex page, Waiter waiter);

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
  void changed();
  void build();
  bool passed(const Entry& entry) const;
  void wake_after(std::uint64_t task, Waiter waiter);

  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
  std::vector<PageWalk*> walks_;  // those expected, in their order, before the idle ones
  std::size_t expected_ = 0;      // how many those are
  std::size_t next_ = 0;          // walk of walks_ that runs or is expected next
  PageWalk* active_ = nullptr;
  std::uint64_t generation_ = 1;
  std::uint64_t cycle_ = 0;
  std::vector<Entry> entries_;
  bool built_ = false;
  bool visiting_ = false;                                         // the running step is of an idle walk
  std::uint64_t clock_ = 0;                                       // steps begun
  std::unordered_map<const PageWalk*, std::uint64_t> last_step_;  // by that clock
  std::atomic<std::uint64_t> wake_[2] = {kNever, kNever};
};

}  // namespace pagedopt

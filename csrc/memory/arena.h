// An arena owns one device's reserved address range: extents in it, the page table, the schedule of walks, the mover
// and the counters. Everything Python does to paged memory goes through here.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <unordered_set>
#include <vector>

#include "base/free_ranges.h"
#include "base/zeroed.h"
#include "memory/counters.h"
#include "memory/mover.h"
#include "memory/pages.h"
#include "memory/schedule.h"
#include "memory/sync.h"
#include "memory/trace.h"
#include "memory/vm.h"

namespace pagedopt {

class Arena;
class PageWalk;

// A run of bytes of an arena, zeroed at first; freed with its last owner.
class Extent {
 public:
  Extent(std::shared_ptr<Arena> arena, std::byte* begin, std::size_t bytes, bool keep)
      : arena_(std::move(arena)), begin_(begin), bytes_(bytes), keep_(keep) {}
  ~Extent();
  Extent(const Extent&) = delete;
  Extent& operator=(const Extent&) = delete;

  std::byte* data() const noexcept { return begin_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  std::shared_ptr<Arena> arena_;
  std::byte* begin_;
  std::size_t bytes_;
  bool keep_;
};

// Sums over the page table at one moment. upper + lower + fresh == allocated, in pages; `moving` of them are in motion.
struct Ledger {
  std::uint64_t page_bytes, reserved_pages, allocated_pages, upper_pages, lower_pages, fresh_pages, kept_pages;
  std::uint64_t lower_file_bytes, extents, extent_bytes, queued_moves, cycles;
  Visits visits;
};

class Arena : public std::enable_shared_from_this<Arena> {
 public:
  explicit Arena(std::unique_ptr<Vm> vm);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `keep`: small state that is never evicted and shares pages with its like. Raises VmError when the range is full.
  std::shared_ptr<Extent> allocate(std::size_t bytes, bool keep);
  bool owns(const std::byte* begin, const std::byte* end) const noexcept {
    return begin >= base() && end <= base() + reserved_bytes();
  }
  // Raises VmError, which says how much is lost, where not all of the range can be read: a use would raise SIGBUS
  // there. Brings what is in the lower tier into the page cache. pre: owns the range
  void check_readable(const std::byte* begin, std::size_t bytes);
  // Copies into the arena page by page, within the budget. pre: owns the range
  void write(std::byte* to, const std::byte* from, std::size_t bytes);
  // Explicit hints, synchronous; pages that cannot move now are skipped. Return the number of pages moved.
  std::size_t prefetch(std::byte* begin, std::size_t bytes);
  std::size_t evict(std::byte* begin, std::size_t bytes);

  std::byte* base() const noexcept { return vm_->base(); }
  std::size_t page_bytes() const noexcept { return vm_->page_bytes(); }
  std::size_t page_count() const noexcept { return vm_->page_count(); }
  std::size_t reserved_bytes() const noexcept { return page_count() * page_bytes(); }
  PageIndex page_of(const std::byte* address) const noexcept {
    return page_at(static_cast<std::size_t>(address - base()));
  }
  const PageTable& pages() const noexcept { return pages_; }
  const Counters& counters() noexcept {
    counters_.refused_hints = vm_->refused_hints();
    return counters_;
  }
  Trace& trace() noexcept { return trace_; }
  Ledger ledger();
  std::vector<Tier> tiers();  // of the pages up to the last one allocated; one in motion counts as being where it goes
  Measured measure();
  bool is_valid();                   // waits until nothing is in motion
  bool is_foreign() const noexcept;  // this process is a fork of the arena's owner
  void refuse_in_fork() const;       // throws ForkError there

  // For the pager.
  std::optional<std::uint64_t> budget_pages();
  // From the next start of the mover's threads on. pre: a GPU's arena
  void set_evict_way(EvictWay way);
  EvictWay evict_way();
  void set_budget_pages(std::optional<std::uint64_t> pages);
  std::uint64_t wait(std::uint64_t seen, std::chrono::nanoseconds timeout);  // for an event after `seen`
  void notify();                                                             // makes an event: settings changed
  Order order();
  // False if no pager is attached, the order or cycle has moved on, or moving has failed.
  bool submit(std::uint64_t generation, std::uint64_t cycle, const std::vector<Move>& moves);
  void attach();
  void detach();  // no more plans will come: queued moves are forgotten, steps wait for none
  std::string failure();

  // Waits for the moves under way; then no page moves until let_go(). A step uses pages where they are meanwhile, and
  // what is fresh or there takes memory over the budget. Neither is counted: one let_go() ends it.
  void hold();
  void let_go();
  // Whether a write to state counts whoever makes it, and when; else only within hold().
  bool watches_writes() const noexcept { return vm_->are_writes_safe(); }

  // For sweeps.
  void add(PageWalk& walk);
  void remove(PageWalk& walk);
  // Raises VmError where the page has to be used in the lower tier and that does not give it; it is not pinned then.
  void pin(PageIndex page) {
    PageTable::Pin result = pages_.pin(page);
    if (result == PageTable::Pin::wait) result = pin_slowly(page);
    pinned(page, result);
  }
  bool try_pin(PageIndex page) {  // false if the page has to be waited for
    const PageTable::Pin result = pages_.pin(page);
    pinned(page, result);
    return result != PageTable::Pin::wait;
  }
  void unpin(PageIndex page) noexcept { pages_.unpin(page); }
  // A page that was fresh is in the lower tier: the upper one had no memory for it. pre: pinned
  void begin_lower(PageIndex page);
  Vm& vm() noexcept { return *vm_; }
  void count_staged(std::size_t in_bytes, std::size_t out_bytes) noexcept {
    counters_.staged_in_bytes += in_bytes;
    counters_.staged_out_bytes += out_bytes;
  }
  void progressed(std::uint64_t task) noexcept {
    if (schedule_.progressed(task)) nudge();
  }

  // The life of one step in the arena.
  class Step {
   public:
    Step(Arena& arena, PageWalk& walk);
    ~Step();
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;
    void begin();
    void check();  // in builds with PAGEDOPT_CHECKED: raises std::logic_error where the arena is not valid

   private:
    Arena& arena_;
    PageWalk& walk_;
    std::unique_lock<std::mutex> one_at_a_time_;
    bool begun_ = false;
  };

 private:
  friend class Extent;
  void release(std::byte* begin, std::size_t bytes, bool keep) noexcept;
  void give_back(std::byte* begin, std::size_t bytes, bool keep);
  void discard_unused(const std::byte* begin, std::size_t bytes);
  bool clear(PageIndex page, std::byte* begin, std::byte* end) noexcept;
  void discard(const std::vector<PageIndex>& pages);
  PageTable::Pin pin_slowly(PageIndex page);
  void pinned(PageIndex page, PageTable::Pin how) {
    if (how == PageTable::Pin::first) vm_->keep(page);  // rather than at the first write
    if (how == PageTable::Pin::direct) use_in_place(page);
  }
  void use_in_place(PageIndex page);
  void nudge() noexcept;  // something may have changed for whoever waits
  bool needs_plan(const PageWalk& walk) const;
  void wait_for_plan(std::unique_lock<std::mutex>& lock);
  bool has_something_to_move() const;
  void commit_up_to(std::size_t bytes);
  std::byte* at(std::size_t page) const noexcept { return base() + page * page_bytes(); }
  PageIndex page_at(std::size_t offset) const noexcept { return static_cast<PageIndex>(offset / page_bytes()); }
  void prepare(std::size_t offset, std::size_t bytes, bool keep);
  void count_live(std::size_t offset, std::size_t bytes, bool keep);

  std::unique_ptr<Vm> vm_;
  PageTable pages_;
  Counters counters_;
  Trace trace_;
  Sync sync_;
  Schedule schedule_;
  Mover mover_;

  std::shared_mutex by_hand_;  // shared by whoever moves or writes pages outside a step; before allocating_
  std::mutex allocating_;      // before Sync::mutex
  Ranges paged_;
  Ranges kept_;
  Zeroed<std::uint32_t> live_;                 // extents that touch a page
  std::size_t committed_bytes_ = 0;            // from the start of the range; no page above it was ever in use
  std::unordered_set<PageIndex> undiscarded_;  // pages that are not live and that could not be discarded
  std::size_t extents_ = 0;
  std::size_t extent_bytes_ = 0;

  std::mutex stepping_;  // before Sync::mutex
  bool attached_ = false;
  std::uint64_t planned_generation_ = 0;
  std::uint64_t planned_cycle_ = 0;
  int waiting_ = 0;
  std::chrono::steady_clock::time_point stall_start_;
  int owner_pid_;
};

}  // namespace pagedopt

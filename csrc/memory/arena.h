// An arena owns one device's reserved address range: extents in it, the page table, the schedule of walks, the mover
// and the counters. Everything Python does to paged memory goes through here.
//
// Locks: functions take what they need, in the order stepping_, by_hand_, Extents::mutex, Sync::mutex.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "memory/counters.h"
#include "memory/extents.h"
#include "memory/mover.h"
#include "memory/pages.h"
#include "memory/pins.h"
#include "memory/plan_link.h"
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

// Sums over the page table at one moment: fresh + upper + lower == allocated, in pages. One in motion counts as upper.
struct Ledger {
  std::uint64_t page_bytes, reserved_pages, allocated_pages, upper_pages, lower_pages, fresh_pages, kept_pages;
  std::uint64_t lower_file_bytes, extents, extent_bytes, queued_moves, cycles, moments;
  Visits visits;
};

// What a plan is made from, all of one moment.
struct PlanInput {
  Order order;
  std::vector<Tier> tiers;  // of the pages up to the last one allocated; one in motion counts as being where it goes
  std::vector<PageIndex> idle;   // in the upper tier, free to leave, and of no walk that is expected; ascending
  std::uint64_t kept_pages = 0;  // in the upper tier, neither in the order nor idle
  std::optional<std::uint64_t> budget_pages;
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
    return static_cast<PageIndex>(static_cast<std::size_t>(address - base()) / page_bytes());
  }
  const PageTable& pages() const noexcept { return pages_; }
  const Counters& counters() noexcept {
    counters_.refused_hints = vm_->refused_hints();
    return counters_;
  }
  Trace& trace() noexcept { return trace_; }
  Ledger ledger();
  std::vector<Tier> tiers();  // as in PlanInput
  Measured measure();
  // Which of the invariants of docs/architecture.md does not hold; empty if all do. Waits until nothing is in motion.
  std::string fault();
  bool is_valid() { return fault().empty(); }
  bool is_foreign() const noexcept;  // this process is a fork of the arena's owner
  void refuse_in_fork() const;       // throws ForkError there

  // For the pager.
  std::optional<std::uint64_t> budget_pages();
  // Returns whether it is another one than before. `announce`: then the pager wakes and plans anew; a pager that plans
  // next anyway does without.
  bool set_budget_pages(std::optional<std::uint64_t> pages, bool announce = true);
  // From the next start of the mover's threads on. pre: a GPU's arena
  void set_evict_way(EvictWay way);
  EvictWay evict_way();
  std::uint64_t wait(std::uint64_t seen, std::chrono::nanoseconds timeout) { return link_.wait(seen, timeout); }
  void notify();  // makes an event: settings changed
  // A moment of the iteration is past (schedule.h): the pager looks at the memory. Does nothing in a forked child.
  void pass_moment();
  PlanInput look();
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
  // Evicts the pages of a walk, or of all, and expects no step of it. What is in use meanwhile stays. Returns how many
  // pages left. Then its pages come back ahead of the step that is expected next.
  std::size_t release(PageWalk& walk);
  std::size_t release_all();
  void restore(PageWalk& walk);
  void restore_all();
  // See Pins.
  void pin(PageIndex page) { pins_.pin(page); }
  bool try_pin(PageIndex page) { return pins_.try_pin(page); }
  void unpin(PageIndex page) noexcept { pins_.unpin(page); }
  void begin_lower(PageIndex page) { pins_.begin_lower(page); }
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
    // In builds with PAGEDOPT_CHECKED: raises std::logic_error where the arena is not valid, or a page is still pinned.
    void check();

   private:
    Arena& arena_;
    PageWalk& walk_;
    std::unique_lock<std::mutex> one_at_a_time_;
    bool begun_ = false;
  };

 private:
  friend class Extent;
  friend struct MemoryTest;
  void release(std::byte* begin, std::size_t bytes, bool keep) noexcept;
  std::size_t move_by_hand(MoveKind kind, const std::byte* begin, std::size_t bytes);
  std::size_t move_by_hand(MoveKind kind, const std::vector<Move>& moves);
  std::size_t evict_all_of(const std::vector<PageIndex>& pages);
  void order_changed() PAGEDOPT_WANTS(&Sync::mutex);
  std::vector<Move> moves_of(MoveKind kind, const std::byte* begin, std::size_t bytes) const;
  void nudge() noexcept PAGEDOPT_WANTS_FREE(&Sync::mutex);  // something may have changed for whoever waits
  std::string fault_at_rest() PAGEDOPT_WANTS(extents_.mutex, &Sync::mutex);
  bool needs_plan(const PageWalk& walk) const PAGEDOPT_WANTS(&Sync::mutex);
  void wait_for_plan(Lock& lock) PAGEDOPT_WANTS(&Sync::mutex);
  bool has_something_to_move() const PAGEDOPT_WANTS(&Sync::mutex);
  Tier next_tier(PageIndex page) const noexcept { return pages_.is_leaving(page) ? Tier::lower : pages_.tier(page); }
  std::byte* at(std::size_t page) const noexcept { return base() + page * page_bytes(); }

  std::unique_ptr<Vm> vm_;
  PageTable pages_;
  Counters counters_;
  Trace trace_;
  Sync sync_;
  Schedule schedule_;
  PlanLink link_{sync_, schedule_};
  Mover mover_;
  Pins pins_;
  Extents extents_;

  std::mutex stepping_;
  std::atomic<std::thread::id> stepper_;  // who holds it
  std::shared_mutex by_hand_;             // shared by whoever moves or writes pages outside a step; whole for fault()
  int owner_pid_;
};

}  // namespace pagedopt

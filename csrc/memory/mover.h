// Carries moves out: one thread reads (prefetch), one or more write (evict), in the order of the plan. It decides
// nothing but when a planned move is due: `after` is done, and for a prefetch, there is room within the budget.
//
// Locks: everything here wants Sync::mutex, except move_up and move_down, which do the I/O and want it free.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "memory/counters.h"
#include "memory/pages.h"
#include "memory/schedule.h"
#include "memory/sync.h"
#include "memory/trace.h"
#include "memory/vm.h"

namespace pagedopt {

struct Move {
  MoveKind kind;
  Reason reason;
  PageIndex page;
  std::int64_t after;  // position in the order whose work has to be done first; -1: none
};

class Mover {
 public:
  Mover(Vm& vm, PageTable& pages, Schedule& schedule, Sync& sync, Counters& counters, Trace& trace)
      : vm_(vm), pages_(pages), schedule_(schedule), sync_(sync), counters_(counters), trace_(trace) {}
  ~Mover();

  void submit(std::uint64_t cycle, const std::vector<Move>& moves);  // replaces what is queued
  void cancel();                                                     // forgets what is queued
  void demand(PageIndex page);  // compute waits for this wanted page; saying so twice does no harm
  void set_budget(std::optional<std::uint64_t> pages) {
    budget_pages_ = pages;
    sync_.work.notify_all();
  }
  void set_writers(std::size_t threads) { most_writers_ = threads; }  // from their next start on
  std::size_t writers() const { return most_writers_; }
  std::optional<std::uint64_t> budget() const { return budget_pages_; }
  bool has_room() const {
    return !budget_pages_ || pages_.upper() + taken_ < static_cast<std::int64_t>(*budget_pages_);
  }
  bool is_idle() const { return running_ == 0; }
  void pause(bool is_paused) {  // begins no move until it is called again
    is_paused_ = is_paused;
    sync_.work.notify_all();
  }
  // While pages are held nothing moves: what is queued is forgotten, and nothing new begins. The moves under way end.
  void hold(bool is_held);
  bool is_held() const { return is_held_; }
  std::size_t queued() const { return up_.size() + down_.size() + postponed_.size(); }
  const std::string& failure() const { return failure_; }
  void forget_failure() { failure_.clear(); }
  std::string outlook(int code) const;  // after a call that failed with this errno, what became of the state

  // Synchronous, from any thread, without the lock. What moves together; return how many did, for some cannot now
  // (pinned, in motion, already there), and none while pages are held.
  std::size_t move_up_now(std::vector<PageIndex> pages);
  std::size_t move_down_now(std::vector<Move> moves);

  // The upper tier had no memory for a page: from here on it may hold what it holds now, and the pager plans anew.
  void shrink_budget();

  void stop(std::unique_lock<std::mutex>& lock);  // ends the threads; queued moves are forgotten
  void abandon_threads() noexcept;                // in a forked child, where they do not exist

 private:
  template <class Work>
  std::size_t run_now(Work&& work);
  bool move_up(PageIndex page);
  bool move_down(PageIndex page, Reason reason);
  std::size_t move_up(std::vector<PageIndex> pages);
  std::size_t move_down(std::vector<Move> moves);
  void start_threads();
  void begin_thread(std::unique_lock<std::mutex>& lock);
  void read_loop();
  void write_loop();
  void forget(const std::unordered_set<PageIndex>& but);  // what is queued; pages of `but` stay wanted
  std::optional<PageIndex> next_up();
  std::optional<Move> next_down();
  std::vector<PageIndex> next_ups();
  std::vector<Move> next_downs();
  void arrived(PageIndex page, PageTable::Source source);
  void cancel_arrival(PageIndex page, PageTable::Source source) noexcept;
  void cancel_leaving(PageIndex page, PageTable::Content content) noexcept;
  void left(PageIndex page) noexcept;
  bool begin_remap(PageIndex page) noexcept;
  bool bring(PageIndex page, PageTable::Source source);
  void finish_arrivals(const std::vector<PageIndex>& pages, std::size_t done);
  bool write_back(PageIndex page, PageTable::Content content);
  bool drop(PageIndex page, Reason reason, PageTable::Content content);
  std::size_t demote(const std::vector<Move>& moves);
  bool is_due(const Move& move, Schedule::Waiter waiter) { return schedule_.done(cycle_, move.after, waiter); }
  bool nothing_will_leave();
  std::optional<Move> next_postponed();
  void fail(const std::string& what);
  std::string told(const std::exception& error) const;
  void count_eviction(Reason reason);
  // Returns the bytes it copied; nothing if the page stays.
  std::optional<std::size_t> evict_content(PageIndex page, PageTable::Content content);

  Vm& vm_;
  PageTable& pages_;
  Schedule& schedule_;
  Sync& sync_;
  Counters& counters_;
  Trace& trace_;

  std::uint64_t cycle_ = 0;  // that the queued moves are for
  std::deque<Move> up_;
  std::deque<Move> down_;
  std::deque<Move> postponed_;      // evictions that were due, of pages the step will use once more
  std::deque<PageIndex> demanded_;  // pages compute waits for
  std::optional<std::uint64_t> budget_pages_;
  std::int64_t taken_ = 0;  // pages of the batch being put together: their room is spoken for
  int running_ = 0;         // moves under way
  bool is_held_ = false;
  int writing_ = 0;  // of them, moves down
  bool stopping_ = false;
  bool is_paused_ = false;
  std::atomic<bool> found_no_memory_{false};  // a prefetch, since the reader last looked
  std::string failure_;
  std::thread reader_;
  std::size_t most_writers_ = 1;
  std::vector<std::thread> writers_;
};

}  // namespace pagedopt

// Carries plans out: one thread reads (prefetch), one or more write (evict), in the order of the plan. It decides
// nothing but when a planned move is due: `after` is done, and for a prefetch, there is room within the budget.
//
// Locks: functions want Sync::mutex held or free, as they say; transfers run without it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "base/annotations.h"
#include "memory/counters.h"
#include "memory/pages.h"
#include "memory/plan_link.h"
#include "memory/schedule.h"
#include "memory/sync.h"
#include "memory/trace.h"
#include "memory/transfers.h"
#include "memory/vm.h"

namespace pagedopt {

class Mover {
 public:
  Mover(Vm& vm, PageTable& pages, Schedule& schedule, PlanLink& link, Sync& sync, Counters& counters, Trace& trace)
      : vm_(vm),
        pages_(pages),
        schedule_(schedule),
        link_(link),
        sync_(sync),
        counters_(counters),
        transfers_(vm, pages, counters, trace) {}
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;

  // ---- plans

  // Replaces what is queued. pre: moving has not failed
  void submit(std::uint64_t cycle, const std::vector<Move>& moves) PAGEDOPT_WANTS(&Sync::mutex);
  void cancel() PAGEDOPT_WANTS(&Sync::mutex) { forget({}); }
  // Compute waits for this wanted page; to say so twice does no harm.
  void demand(PageIndex page) PAGEDOPT_WANTS(&Sync::mutex);
  std::size_t queued() const PAGEDOPT_WANTS(&Sync::mutex) { return up_.size() + down_.size() + postponed_.size(); }

  // ---- budget

  void set_budget(std::optional<std::uint64_t> pages) PAGEDOPT_WANTS(&Sync::mutex);
  std::optional<std::uint64_t> budget() const PAGEDOPT_WANTS(&Sync::mutex) { return budget_pages_; }
  bool is_over_budget(std::int64_t more_pages = 0) const PAGEDOPT_WANTS(&Sync::mutex) {
    return budget_pages_ && pages_.upper() + more_pages > static_cast<std::int64_t>(*budget_pages_);
  }
  // The upper tier had no memory for a page: from here on it may hold what it holds now, and the pager plans anew.
  void shrink_budget() PAGEDOPT_WANTS(&Sync::mutex);

  // ---- pauses

  // Between the two no planned move begins, and none is under way.
  void pause(Lock& lock) PAGEDOPT_WANTS(&Sync::mutex);
  void resume() PAGEDOPT_WANTS(&Sync::mutex);
  // While pages are held nothing moves: what is queued is forgotten, and nothing new begins. The moves under way end.
  void hold(Lock& lock) PAGEDOPT_WANTS(&Sync::mutex);
  void let_go() PAGEDOPT_WANTS(&Sync::mutex) { is_held_ = false; }
  bool is_held() const PAGEDOPT_WANTS(&Sync::mutex) { return is_held_; }

  // ---- moves on request

  // Synchronous, from any thread. What moves together; return how many did, and none while pages are held.
  std::size_t prefetch_now(const std::vector<Move>& moves) PAGEDOPT_WANTS_FREE(&Sync::mutex);
  std::size_t evict_now(const std::vector<Move>& moves) PAGEDOPT_WANTS_FREE(&Sync::mutex);

  // ---- threads

  void set_writers(std::size_t threads) PAGEDOPT_WANTS(&Sync::mutex) { most_writers_ = threads; }  // when next started
  std::size_t writers() const PAGEDOPT_WANTS(&Sync::mutex) { return most_writers_; }
  // Forgets what is queued and ends the threads; the caller joins them without the lock. A later plan starts others.
  [[nodiscard]] std::vector<std::thread> stop() PAGEDOPT_WANTS(&Sync::mutex);
  void abandon_threads() noexcept;  // in a forked child, where they do not exist

  // After a call that failed with this errno, what became of the state.
  std::string outlook(int code) const;

 private:
  void start_threads() PAGEDOPT_WANTS(&Sync::mutex);
  void serve(MoveKind kind, std::uint64_t life) PAGEDOPT_WANTS_FREE(&Sync::mutex);
  std::string begin_thread();
  std::string carry_out(MoveKind kind, const std::vector<Move>& moves);
  void finish(MoveKind kind, const std::vector<Move>& moves) PAGEDOPT_WANTS(&Sync::mutex);
  void fail(const std::string& why) PAGEDOPT_WANTS(&Sync::mutex);
  std::string reason_of(const std::exception& error) const;
  template <class Work>
  std::size_t run_now(Work&& work) PAGEDOPT_WANTS_FREE(&Sync::mutex);
  void wait_until_idle(Lock& lock) PAGEDOPT_WANTS(&Sync::mutex);

  void forget(const std::unordered_set<PageIndex>& but) PAGEDOPT_WANTS(&Sync::mutex);  // `but` stay wanted
  bool has_room() const PAGEDOPT_WANTS(&Sync::mutex) { return !is_over_budget(taken_ + 1); }
  bool is_due(const Move& move, Schedule::Waiter waiter) PAGEDOPT_WANTS(&Sync::mutex) {
    return schedule_.done(cycle_, move.after, waiter);
  }
  bool nothing_will_leave() PAGEDOPT_WANTS(&Sync::mutex);
  std::vector<Move> next(MoveKind kind) PAGEDOPT_WANTS(&Sync::mutex);
  std::optional<Move> next_up() PAGEDOPT_WANTS(&Sync::mutex);
  std::optional<Move> next_demanded() PAGEDOPT_WANTS(&Sync::mutex);
  std::optional<Move> next_down() PAGEDOPT_WANTS(&Sync::mutex);
  std::optional<Move> next_postponed() PAGEDOPT_WANTS(&Sync::mutex);

  Vm& vm_;
  PageTable& pages_;
  Schedule& schedule_;
  PlanLink& link_;
  Sync& sync_;
  Counters& counters_;
  Transfers transfers_;

  std::uint64_t cycle_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;  // that the queued moves are for
  std::deque<Move> up_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
  std::deque<Move> down_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
  // Evictions that were due, of pages the step will use once more.
  std::deque<Move> postponed_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
  std::deque<PageIndex> demanded_ PAGEDOPT_GUARDED_BY(&Sync::mutex);  // pages compute waits for
  std::optional<std::uint64_t> budget_pages_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
  std::int64_t taken_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;  // pages of the batch being put together
  int running_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;         // batches under way
  int writing_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;         // of them, planned evictions
  bool is_held_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = false;
  bool is_paused_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = false;
  std::uint64_t life_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;  // threads started in an earlier one end
  std::size_t most_writers_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 1;
  std::thread reader_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
  std::vector<std::thread> writers_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
};

}  // namespace pagedopt

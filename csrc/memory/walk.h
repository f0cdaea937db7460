// The pages that the tasks of a step need, in order of first use, and how far the running step is in that order. A
// policy plans by it. A walk knows neither what a task does nor where a page is.
//
// Locks: none. Pages and tasks do not change once the walk is made; progress and held_pages are atomic.
#pragma once

#include <atomic>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/units.h"

namespace pagedopt {

class PageWalk {
 public:
  static constexpr unsigned kMostWorkers = 512;

  // The pages of each task, one task after another.
  class TaskPages {
   public:
    void add(std::vector<PageIndex> pages);  // of the next task, in any order

   private:
    friend class PageWalk;
    std::vector<std::uint64_t> begin_{0};  // task -> index into pages_; one entry more than there are tasks
    std::vector<PageIndex> pages_;
  };

  // `runs`: in how many places of the range a task uses memory, at most (its slots and their absmax).
  PageWalk(TaskPages pages, std::size_t runs);
  PageWalk(const PageWalk&) = delete;
  PageWalk& operator=(const PageWalk&) = delete;

  // Pages of tasks [first, last), ascending within a task.
  const PageIndex* begin(std::size_t first) const noexcept { return pages_.pages_.data() + pages_.begin_[first]; }
  const PageIndex* end(std::size_t task) const noexcept { return begin(task + 1); }

  // Pages in order of first use, each once.
  const std::vector<PageIndex>& order() const noexcept { return order_; }
  // Whether the running step is past order()[index]. Some pages are used again much later (where two slots of a tensor
  // meet, or the absmax of all of it): finished() says when those are done with. pre: a step is running
  bool passed(std::size_t index) const noexcept { return first_unfinished() > past_task_[index]; }
  bool finished(PageIndex page) const noexcept { return first_unfinished() > last_task_of(page); }
  // Entries of order() that the workers of a step hold or wait for at one moment, at most.
  std::uint64_t held_pages() const noexcept { return held_pages_.load(std::memory_order_relaxed); }
  // The tasks after which passed(index) and finished(page) can become true.
  std::uint64_t past_task(std::size_t index) const noexcept { return past_task_[index]; }
  std::uint64_t last_task_of(PageIndex page) const noexcept {
    const auto it = used_again_.find(page);
    return it == used_again_.end() ? 0 : it->second;
  }

  // A step begins, at its first task. `also_held`: pages beyond those of the workers' tasks that may be held at one
  // moment. pre: workers <= kMostWorkers; no step of this walk is running
  void start(unsigned workers, std::uint64_t also_held);
  // The worker is done with every task before `task`. Sequentially consistent: a mover that has set its wake-up before
  // it reads this progress is either woken by the worker or sees that the task is done (schedule.h).
  void reach(std::size_t task, unsigned worker) noexcept {
    progress_[worker].task.store(task, std::memory_order_seq_cst);
  }

 private:
  struct alignas(64) WorkerProgress {  // a cache line each: workers write theirs at every task
    std::atomic<std::uint64_t> task{0};
  };
  void find_order(std::size_t runs);
  std::uint64_t first_unfinished() const noexcept;

  TaskPages pages_;
  std::vector<PageIndex> order_;
  std::vector<std::uint64_t> first_task_;                    // that uses order_[index]; ascending
  std::vector<std::uint64_t> past_task_;                     // after which the step is past order_[index]
  std::unordered_map<PageIndex, std::uint64_t> used_again_;  // pages used after that: their last task
  std::vector<WorkerProgress> progress_;                     // the task each worker is at
  unsigned workers_ = 0;
  std::atomic<std::uint64_t> held_pages_{1};  // read by the pager at any time
};

}  // namespace pagedopt

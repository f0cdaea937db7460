// A sweep: the tasks of one optimizer step and, with an arena, the pages each task needs. It is the step's gate: a task
// enters once its pages are pinned. The order of pages in a sweep, and how far the step is in it, is what a policy plans by.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "step.h"
#include "units.h"

namespace pagedopt {

class Arena;

class Sweep final : public Gate {
 public:
  Sweep(std::shared_ptr<std::vector<Row>> rows, const std::vector<Hyper>& hypers, std::shared_ptr<Arena> arena);
  ~Sweep() override;
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  void step(const std::vector<Hyper>& hypers, double grad_scale, unsigned threads);

  // Gate.
  void enter(std::size_t task, unsigned worker) override;
  void leave(std::size_t task, unsigned worker) noexcept override;
  void idle(unsigned worker) noexcept override;
  void reach(std::size_t task, unsigned worker) noexcept override;

  // Pages in order of first use, each once.
  const std::vector<PageIndex>& order() const noexcept { return order_; }
  // Whether all work on order()[index] is done in the running step. pre: a step is running
  bool passed(std::size_t index) const noexcept { return first_unfinished() > last_task_[index]; }
  // Entries of order() that the workers of a step hold or wait for at one moment, at most.
  std::uint64_t window() const noexcept { return window_; }
  // The task after which passed(index) can become true.
  std::uint64_t last_task(std::size_t index) const noexcept { return last_task_[index]; }

 private:
  void find_pages();
  void set_workers(unsigned workers);
  std::uint64_t first_unfinished() const noexcept;

  static constexpr unsigned kMostWorkers = 512;
  struct alignas(64) Progress {
    std::atomic<std::uint64_t> task{0};
  };

  std::shared_ptr<std::vector<Row>> rows_;
  std::shared_ptr<Arena> arena_;
  std::vector<Task> tasks_;
  std::vector<std::uint64_t> task_pages_begin_;  // task -> index into task_pages_; tasks_.size() + 1 entries
  std::vector<PageIndex> task_pages_;
  struct Reach {
    std::uint64_t first, last;  // entries of order_
  };
  std::vector<Reach> task_reach_;  // first > last for a task without pages
  std::vector<PageIndex> order_;
  std::vector<std::uint64_t> last_task_;
  std::vector<Progress> progress_;  // the task each worker is at
  unsigned workers_ = 0;
  std::uint64_t window_ = 1;
};

}  // namespace pagedopt

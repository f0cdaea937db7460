// A sweep: the tasks of one optimizer step and, with an arena, the pages each task needs. It is the step's gate: a task
// enters once its pages are pinned. The order of pages in a sweep, and how far the step is in it, is what a policy
// plans by.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/units.h"
#include "step/step.h"

namespace pagedopt {

class Arena;
class DeviceStep;
class Gpu;
struct DeviceArguments;
struct Home;
struct RingMemory;
using StreamHandle = void*;

class Sweep final : public Gate {
 public:
  // With a GPU, rows and state are there. pre: the arena is this GPU's, or the host's if there is none
  Sweep(std::shared_ptr<std::vector<Row>> rows, const std::vector<Hyper>& hypers, std::shared_ptr<Arena> arena,
        std::shared_ptr<Gpu> gpu = nullptr);
  ~Sweep() override;
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  void step(const std::vector<Hyper>& hypers, double grad_scale, unsigned threads);
  // Puts the step on the stream. Memory of the device for a ring may be given. pre: made with a GPU
  void step_on(const std::vector<Hyper>& hypers, const DeviceArguments& arguments, const RingMemory& ring,
               StreamHandle stream);
  // What memory a ring is to have; 0 where it is of no use now, because no page is on the host.
  std::size_t ring_bytes() const;

  // Gate.
  void enter(std::size_t task, unsigned worker) override;
  void leave(std::size_t task, unsigned worker) noexcept override;
  void idle(unsigned worker) noexcept override;
  void reach(std::size_t task, unsigned worker) noexcept override;

  // For work on a stream: enters unless a page has to be waited for, without a word on progress.
  bool try_enter(std::size_t task);
  std::size_t arriving_pages(std::size_t task);  // that it would wait for on a stream
  // Whether some of the task's pages are on the host, or it has none. pre: entered
  enum class Where : std::uint8_t { nowhere, near, far };
  Where where(std::size_t task) const;
  // Orders what comes on `stream` behind the pages of tasks [first, last), and the pages behind what is on it; leaves
  // the tasks. pre: entered
  void enter_on(std::size_t first, std::size_t last, StreamHandle stream);
  void leave_on(std::size_t first, std::size_t last, StreamHandle stream);

  // Pages in order of first use, each once.
  const std::vector<PageIndex>& order() const noexcept { return order_; }
  // Whether the running step is past order()[index]. Some pages are used again much later (where two slots of a tensor
  // meet, or the absmax of all of it): finished() says when those are done with. pre: a step is running
  bool passed(std::size_t index) const noexcept { return first_unfinished() > past_task_[index]; }
  bool finished(PageIndex page) const noexcept { return first_unfinished() > last_task_of(page); }
  // Entries of order() that the workers of a step hold or wait for at one moment, at most.
  std::uint64_t window() const noexcept { return window_.load(std::memory_order_relaxed); }
  // The tasks after which passed(index) and finished(page) can become true.
  std::uint64_t past_task(std::size_t index) const noexcept { return past_task_[index]; }
  std::uint64_t last_task_of(PageIndex page) const noexcept {
    const auto it = used_again_.find(page);
    return it == used_again_.end() ? 0 : it->second;
  }

 private:
  void find_pages();
  bool is_far(PageIndex page) const;
  Home home() const;
  void add_pages_of(const Row& row, const Task& task);
  void set_workers(unsigned workers, std::uint64_t also_held = 0);
  std::uint64_t first_unfinished() const noexcept;

  static constexpr unsigned kMostWorkers = 512;
  struct alignas(64) Progress {
    std::atomic<std::uint64_t> task{0};
  };

  std::shared_ptr<std::vector<Row>> rows_;
  std::shared_ptr<Arena> arena_;
  std::unique_ptr<DeviceStep> device_;
  std::size_t ring_bytes_ = 0;
  std::vector<Task> tasks_;
  std::vector<std::uint64_t> task_pages_begin_;  // task -> index into task_pages_; tasks_.size() + 1 entries
  std::vector<PageIndex> task_pages_;
  std::vector<PageIndex> order_;
  std::vector<std::uint64_t> first_task_;                    // that uses order_[index]; ascending
  std::vector<std::uint64_t> past_task_;                     // after which the step is past order_[index]
  std::unordered_map<PageIndex, std::uint64_t> used_again_;  // pages used after that: their last task
  std::vector<Progress> progress_;                           // the task each worker is at
  unsigned workers_ = 0;
  std::atomic<std::uint64_t> window_{1};  // read by the pager at any time
};

}  // namespace pagedopt

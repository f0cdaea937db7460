// A step on a GPU: puts the kernels of a sweep on a stream, each behind the arrival of its pages, and returns. It waits
// only for pages that are not yet on their way; with a ring, for a window to be used again; and where three steps are
// under way already, for the first of them.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "gpu/launch/ring.h"
#include "gpu/owned.h"

namespace pagedopt {

class PageGate;

// What differs from step to step.
struct DeviceArguments {
  double grad_scale = 1.0;           // multiplies every gradient
  const float* found_inf = nullptr;  // on the device; not zero: nothing changes
  const float* scale = nullptr;      // on the device: divides every gradient
  std::vector<const float*> lr;      // on the device, by group; null: the group's number
};

class DeviceStep {
 public:
  // `paged`: where paged state is.
  DeviceStep(std::shared_ptr<Gpu> gpu, DeviceTasks tasks, std::size_t rows, std::size_t groups,
             const StateRange& paged);
  ~DeviceStep();  // waits for what was sent
  DeviceStep(const DeviceStep&) = delete;
  DeviceStep& operator=(const DeviceStep&) = delete;

  // `pages`: of the paged state, whose arena's step has begun; null: there is none, or nothing moves it. With memory
  // for a ring, state on the host passes through that. Returns the bytes copied through it.
  Ring::Copied run(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const DeviceArguments& arguments,
                   PageGate* pages, const RingMemory& ring, StreamHandle stream);

  // What memory a ring is to have for these rows.
  std::size_t ring_bytes(const std::vector<Row>& rows, std::size_t page_bytes) const {
    return Ring::bytes_for(rows, tasks_.tasks, kBatchPages / 2 * page_bytes);
  }

  const std::vector<Task>& tasks() const noexcept { return tasks_.tasks; }

  // Pages that a launch waits for together: 32 MiB of them are long beside a launch (0.6 ms of a 55 GB/s link) and
  // short beside a step, so that work begins soon after the first have arrived.
  static constexpr std::size_t kBatchPages = 4;

 private:
  struct TableRange {  // of a table among the others
    std::size_t begin, bytes;
  };
  struct Staging {
    Staging(Gpu& gpu, std::size_t bytes) : memory(gpu, Memory::pinned, bytes), sent(gpu, false) {}
    GpuMemory memory;
    Event sent;
  };
  static constexpr std::size_t kStagings = 3;

  TableRange add_table(std::size_t bytes);
  template <class T>
  T* in_tables(const TableRange& table) const {
    return reinterpret_cast<T*>(device_->get() + table.begin);
  }
  void upload(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const DeviceArguments& arguments,
              StreamHandle stream);
  void send(StreamHandle stream, std::size_t bytes);
  void begin(const DeviceArguments& arguments);
  template <class Launch>
  void walk(StreamHandle stream, Launch&& launch);
  Ring::Copied run_in_batches(const std::vector<Row>& rows, PageGate* pages, Ring* ring, const RingMemory& memory,
                              StreamHandle stream);

  std::shared_ptr<Gpu> gpu_;
  DeviceTasks tasks_;
  std::size_t rows_, groups_;
  StateRange paged_;
  std::size_t bytes_ = 0;  // of all tables
  TableRange row_table_, hyper_table_, part_table_, row_partials_table_, work_table_, partial_table_;
  std::optional<GpuMemory> device_;
  std::vector<std::byte> sent_;  // what the device's rows and hypers are, so that only a change is sent
  bool has_parts_ = false;
  std::deque<Staging> stagings_;
  std::size_t next_staging_ = 0;
  StepTables tables_;
  std::optional<Ring> ring_;  // from the first step that has memory for one
};

}  // namespace pagedopt

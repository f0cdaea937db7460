// A step on a GPU: puts the kernels of a sweep on a stream, each behind the arrival of its pages, and returns. It waits
// only for pages that are not yet on their way, and, where three steps are under way already, for the first of them.
#pragma once

#include <memory>
#include <vector>

#include "gpu.h"

namespace pagedopt {

class Sweep;

// What differs from step to step.
struct DeviceArguments {
  double grad_scale = 1.0;           // multiplies every gradient
  const float* found_inf = nullptr;  // on the device; not zero: nothing changes
  const float* scale = nullptr;      // on the device: divides every gradient
  std::vector<const float*> lr;      // on the device, by group; null: the group's number
};

class DeviceStep {
 public:
  DeviceStep(std::shared_ptr<Gpu> gpu, DeviceTasks tasks, std::size_t rows, std::size_t groups);
  ~DeviceStep();
  DeviceStep(const DeviceStep&) = delete;
  DeviceStep& operator=(const DeviceStep&) = delete;

  // Without paged state; all at once.
  void run(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const DeviceArguments& arguments,
           StreamHandle stream);
  // With it: window by window. pre: the arena's step has begun.
  void run(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const DeviceArguments& arguments,
           Sweep& sweep, StreamHandle stream);

  const std::vector<Task>& tasks() const noexcept { return tasks_.tasks; }

  // Pages that a launch waits for together: 32 MiB of them are long beside a launch (0.6 ms of a 55 GB/s link) and
  // short beside a step, so that work begins soon after the first have arrived.
  static constexpr std::size_t kWindowPages = 4;

 private:
  struct Part {  // of the tables, by its place in them
    std::size_t begin, bytes;
  };
  struct Staging {
    std::byte* memory = nullptr;
    EventHandle sent = nullptr;
  };
  static constexpr std::size_t kStagings = 3;

  Part add_part(std::size_t bytes);
  void upload(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const DeviceArguments& arguments,
              StreamHandle stream);
  void send(StreamHandle stream, std::size_t bytes);
  void begin(const DeviceArguments& arguments);
  template <class Launch>
  void walk(StreamHandle stream, Launch&& launch);

  std::shared_ptr<Gpu> gpu_;
  DeviceTasks tasks_;
  std::size_t rows_, groups_;
  std::size_t bytes_ = 0;  // of all tables
  Part row_part_, hyper_part_, task_part_, place_part_, work_part_, partial_part_;
  std::byte* device_ = nullptr;
  std::vector<std::byte> sent_;  // what the device's rows and hypers are, so that only a change is sent
  bool has_tasks_ = false;
  Staging stagings_[kStagings];
  std::size_t next_staging_ = 0;
  StepTables tables_;
};

}  // namespace pagedopt

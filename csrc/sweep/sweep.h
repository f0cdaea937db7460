// A sweep: the rows of one optimizer, the tasks of its step and, with an arena, the gate that pins the pages of a task.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "step/step.h"

namespace pagedopt {

class Arena;
class DeviceStep;
class Gpu;
class PageGate;
struct DeviceArguments;
struct RingMemory;
using StreamHandle = void*;

class Sweep {
 public:
  // With a GPU, rows and state are there. pre: the arena is this GPU's, or the host's if there is none
  Sweep(std::shared_ptr<std::vector<Row>> rows, const std::vector<Hyper>& hypers, std::shared_ptr<Arena> arena,
        std::shared_ptr<Gpu> gpu = nullptr);
  ~Sweep();
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  void step(const std::vector<Hyper>& hypers, double grad_scale, unsigned threads);
  // Puts the step on the stream. Memory of the device for a ring may be given. pre: made with a GPU
  void step_on(const std::vector<Hyper>& hypers, const DeviceArguments& arguments, const RingMemory& ring,
               StreamHandle stream);
  // See Arena::release. Nothing, where the state is in ordinary memory.
  std::size_t release();
  void restore();
  // What memory a ring is to have; 0 where it is of no use now, because no page is on the host.
  std::size_t ring_bytes() const;

 private:
  std::shared_ptr<std::vector<Row>> rows_;
  std::unique_ptr<DeviceStep> device_;
  std::size_t ring_bytes_ = 0;
  std::vector<Task> tasks_;
  std::unique_ptr<PageGate> gate_;  // none: the state is in ordinary memory
};

}  // namespace pagedopt

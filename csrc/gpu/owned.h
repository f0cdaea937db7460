// What is taken of a GPU, and given back with its owner.
#pragma once

#include <memory>
#include <utility>

#include "gpu/gpu.h"

namespace pagedopt {

class Stream {
 public:
  explicit Stream(Gpu& gpu) : gpu_(gpu), handle_(gpu.make_stream()) {}
  ~Stream() { gpu_.free_stream(handle_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator StreamHandle() const noexcept { return handle_; }

 private:
  Gpu& gpu_;
  StreamHandle handle_;
};

class Event {
 public:
  // `spins`: see Gpu::make_event.
  Event(Gpu& gpu, bool spins) : gpu_(gpu), handle_(gpu.make_event(spins)) {}
  ~Event() { gpu_.free_event(handle_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator EventHandle() const noexcept { return handle_; }

 private:
  Gpu& gpu_;
  EventHandle handle_;
};

// Given back to the runtime, which waits for what is on the device: but locked memory of the host may only go when
// nothing uses it.
class GpuMemory {
 public:
  GpuMemory(Gpu& gpu, Memory kind, std::size_t bytes) : gpu_(gpu), kind_(kind), begin_(gpu.allocate(kind, bytes)) {}
  ~GpuMemory() { gpu_.free(kind_, begin_); }
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  std::byte* get() const noexcept { return begin_; }

 private:
  Gpu& gpu_;
  Memory kind_;
  std::byte* begin_;
};

}  // namespace pagedopt

// A GPU, as the core uses it: memory, streams, events, moves of managed memory and the kernels of a step. Everything
// that takes a stream only puts work on it; what blocks the calling thread says so. Every failure is a GpuError.
//
// gpu_cuda.cpp is the real one. emulated/gpu.cpp runs the same kernels on the CPU behind simulated streams, so that the
// order in which things may happen is tested where there is no GPU.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "gpu/kernels/tables.h"

namespace pagedopt {

using EventHandle = void*;

enum class Memory : std::uint8_t { managed, device, pinned };
enum class Place : std::uint8_t { device, host };  // ends of a move of managed memory

// Managed memory that moves.
struct Run {
  std::byte* begin;
  std::size_t bytes;
};

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
};

// What copy_state tells the runtime about managed memory that is on the host. Which of these the device's copy engines
// are quickest by, in both directions at once, is for each driver to be measured (placement.h).
enum class CopyHint : std::uint8_t {
  device,     // the device reaches both ends, this one through its mapping
  none,       // nothing
  direction,  // from the host to the device, or back
  batch,      // in one call for all copies, where either end is, and that kernels run beside them (CUDA 13)
};
inline constexpr std::array kCopyHints = {CopyHint::device, CopyHint::none, CopyHint::direction, CopyHint::batch};

// A call to the GPU's runtime that failed. `code` is its cudaError_t.
class GpuError : public std::runtime_error {
 public:
  GpuError(const std::string& text, int code) : std::runtime_error(text), code_(code) {}
  int code() const noexcept { return code_; }

 private:
  int code_;
};

struct GpuInfo {
  std::string name;
  int device = 0;  // number, as the runtime counts
  std::size_t total_bytes = 0;
  bool can_migrate = false;          // concurrentManagedAccess
  bool shares_host_address = false;  // registered host memory has one address for both
  bool is_integrated = false;        // its memory is the host's
  bool is_coherent = false;  // it uses the host's page tables, and the driver may move what is on the host to it
  int major = 0, minor = 0;  // compute capability
};

class Gpu {
 public:
  virtual ~Gpu() = default;

  virtual const GpuInfo& info() const noexcept = 0;
  // Of the device's memory. Managed pages count as used, and mostly stay so when they leave (pager/driver_cache.py).
  virtual std::size_t free_bytes() = 0;

  // pre (free): allocated with the same kind. In a forked child free does nothing: the memory is the parent's.
  virtual std::byte* allocate(Memory kind, std::size_t bytes) = 0;
  virtual void free(Memory kind, void* memory) noexcept = 0;
  // Locks host memory and maps it for the device, at the same address where info().shares_host_address.
  virtual void register_host(void* memory, std::size_t bytes) = 0;
  virtual void unregister_host(void* memory) noexcept = 0;

  // The calling thread works for this GPU alone from now on, whatever other threads do with theirs.
  virtual void begin_thread() = 0;

  virtual StreamHandle make_stream() = 0;
  virtual void free_stream(StreamHandle stream) noexcept = 0;
  // `spins`: a thread that waits for it does not sleep, which is soonest back and takes a core.
  virtual EventHandle make_event(bool spins) = 0;
  virtual void free_event(EventHandle event) noexcept = 0;
  virtual bool is_capturing(StreamHandle stream) = 0;  // into a graph
  virtual void record(EventHandle event, StreamHandle stream) = 0;
  virtual void wait(EventHandle event, StreamHandle stream) = 0;  // an event never recorded counts as done
  virtual bool is_done(EventHandle event) = 0;
  virtual void synchronize(EventHandle event) = 0;  // blocks until what was recorded last is done
  virtual void synchronize() = 0;                   // blocks until everything on the device is done

  virtual void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) = 0;
  // Between the device's memory and managed or locked host memory, by the device's copy engines: managed memory is
  // copied from where it is, and stays there. `to`: the end that all of them go to.
  virtual void copy_state(const std::vector<Copy>& copies, Place to, StreamHandle stream) = 0;
  void set_copy_hint(CopyHint hint) noexcept { copy_hint_ = hint; }
  CopyHint copy_hint() const noexcept { return copy_hint_; }
  virtual void clear(void* memory, std::size_t bytes, StreamHandle stream) = 0;
  // The calling thread clears managed memory. What nobody had placed before is on the host then.
  virtual void clear_on_host(std::byte* memory, std::size_t bytes) = 0;

  // ---- hints: false where the driver has no memory for one, or for its own tables. Managed memory reads right all the
  // same; a part of it may have moved.

  // Moves managed memory, in one call where the runtime can. To the host it may block until the copies are done.
  virtual bool prefetch(const std::vector<Run>& runs, Place place, StreamHandle stream) = 0;
  // What managed memory holds is of no use any more: nothing is copied when it moves, and it reads as anything until it
  // is written or prefetched. pre: nothing uses it at the same time. It may block as a move to the host does.
  virtual bool discard(const std::vector<Run>& runs, StreamHandle stream) = 0;
  // The device keeps a mapping of managed memory wherever it is: it reads and writes over the link what is on the host.
  virtual bool map_for_device(std::byte* memory, std::size_t bytes) = 0;
  // Managed memory that is to stay there. On the device: the driver prefers to take other memory away. On the host: it
  // does not move to the device but by prefetch.
  virtual bool prefer(std::byte* memory, std::size_t bytes, Place place) = 0;

  // The kernels of a step; see gpu/kernels/tables.h.
  virtual void begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                          StreamHandle stream) = 0;
  virtual void finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                              StreamHandle stream) = 0;
  virtual void run(const StepTables& tables, Launch what, std::uint64_t first_part, std::uint64_t last_part,
                   StreamHandle stream) = 0;

 private:
  std::atomic<CopyHint> copy_hint_{CopyHint::device};
};

// The CUDA devices of this machine; 0 without a driver, or when the core was built without CUDA.
int cuda_device_count() noexcept;
// Why there is no CUDA device, in words.
std::string cuda_absence();
// Throws GpuError for a number that is no device.
std::shared_ptr<Gpu> make_cuda_gpu(int device);

}  // namespace pagedopt

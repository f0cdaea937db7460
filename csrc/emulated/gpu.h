// A GPU that is simulated: kernels run on the CPU, streams are queues whose work is done at any moment that streams and
// events allow, drawn at random, with one of them lagging far behind. What depends on an order that nothing enforces
// then fails under some seed. For tests; not a way to train.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>

#include "emulated/managed_memory.h"
#include "gpu/gpu.h"

namespace pagedopt {

class EmulatedGpu final : public Gpu {
 public:
  // eager: work is done as soon as it may be, so that other code need not synchronise before it reads results.
  EmulatedGpu(std::size_t total_bytes, std::uint64_t seed, bool eager, bool can_migrate, bool is_integrated = false,
              bool is_coherent = false);
  ~EmulatedGpu() override;

  // The call after so many that put work on a stream fails, once, and what it would have put there is not.
  void fail_after(std::uint64_t calls);
  // Of the hints from now on, so many are refused after so many that are not.
  void refuse(std::uint64_t after, std::uint64_t times);
  std::uint64_t hints();  // so far

  // What was done, in the order in which it was.
  struct Done {
    std::string what;
    std::uint64_t stream;
    std::uint64_t begin;        // address, or the first part of a kernel
    std::uint64_t bytes;        // or the number of parts
    std::uint64_t lower_bytes;  // of state a kernel used that was on the host
  };
  std::vector<Done> take_log();
  std::size_t device_bytes();       // managed memory on the device now
  std::size_t kept_bytes();         // the device's memory that is kept for what left it
  std::size_t peak_device_bytes();  // the most managed memory there was on the device
  std::uint64_t overlaps();         // moves to the host begun while moves to the device were under way
  // Bytes that nobody had placed yet when the device used them, and that it had no memory for. A real one cannot go on
  // then: the driver ends its context (nvidia-uvm: service_fault_batch_block_locked, NV_ERR_NO_MEMORY).
  std::uint64_t starved_bytes();

  // Memory that others allocate and free: torch, other processes.
  void take(std::size_t bytes);
  void give(std::size_t bytes);

  // Kernels in place of those emulated on the CPU, from the next step on.
  void use(const DeviceKernels& kernels);

  const GpuInfo& info() const noexcept override { return info_; }
  std::size_t free_bytes() override;
  std::byte* allocate(Memory kind, std::size_t bytes) override;
  void free(Memory kind, void* memory) noexcept override;
  void register_host(void* memory, std::size_t bytes) override;
  void unregister_host(void* memory) noexcept override;
  void begin_thread() override {}
  bool is_capturing(StreamHandle) override { return false; }
  StreamHandle make_stream() override;
  void free_stream(StreamHandle stream) noexcept override;
  EventHandle make_event(bool spins) override;
  void free_event(EventHandle event) noexcept override;
  void record(EventHandle event, StreamHandle stream) override;
  void wait(EventHandle event, StreamHandle stream) override;
  bool is_done(EventHandle event) override;
  void synchronize(EventHandle event) override;
  void synchronize() override;
  void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) override;
  void copy_state(const std::vector<Copy>& copies, Place to, StreamHandle stream) override;
  void clear(void* memory, std::size_t bytes, StreamHandle stream) override;
  void clear_on_host(std::byte* memory, std::size_t bytes) override;
  bool prefetch(const std::vector<Run>& runs, Place place, StreamHandle stream) override;
  bool discard(const std::vector<Run>& runs, StreamHandle stream) override;
  bool map_for_device(std::byte* memory, std::size_t bytes) override;
  bool prefer(std::byte* memory, std::size_t bytes, Place place) override;
  void begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                  StreamHandle stream) override;
  void finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                      StreamHandle stream) override;
  void run(const StepTables& tables, Launch what, std::uint64_t first_part, std::uint64_t last_part,
           StreamHandle stream) override;

 private:
  struct Event {
    std::uint64_t recorded = 0, done = 0;
  };
  struct Work {
    std::function<void()> run;
    const Event* after = nullptr;  // may run once after->done >= generation
    std::uint64_t generation = 0;
    bool is_upload = false;  // a move to the device
  };
  std::deque<Work>& queue(StreamHandle stream) { return streams_[reinterpret_cast<std::uint64_t>(stream)]; }
  void submit(StreamHandle stream, Work work);
  void check_registration(const std::byte* memory, std::size_t bytes) const;
  void submit_copy(const char* what, void* to, const void* from, std::size_t bytes, StreamHandle stream);
  bool takes_hint();
  // Of what may be done, any; false if nothing may. `last_too`: also what lags behind.
  bool do_one(bool last_too);
  std::size_t lower_bytes(const StepTables& tables, std::uint64_t first_part, std::uint64_t last_part);

  GpuInfo info_;
  const DeviceKernels* kernels_ = &emulated_kernels;
  bool eager_;
  std::mutex mutex_;
  std::mt19937_64 draw_;
  std::map<std::uint64_t, std::deque<Work>> streams_;
  std::uint64_t next_stream_ = 1;
  std::uint64_t last_stream_ = 0;  // which lags behind
  std::int64_t until_failure_ = -1;
  std::map<std::byte*, std::size_t> registered_;
  std::map<void*, std::size_t> other_;
  std::vector<Done> log_;
  ManagedMemory memory_;
  std::uint64_t overlaps_ = 0;
  std::uint64_t hints_ = 0, first_refused_ = 0, last_refused_ = 0;  // those from the first up to the last are refused
};

}  // namespace pagedopt

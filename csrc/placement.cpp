#include "placement.h"

#include <algorithm>
#include <chrono>

#include "device_step.h"

namespace pagedopt {
namespace {

constexpr std::int64_t kElements = std::int64_t{1} << 22;  // 32 MiB of float32 Adam state: 0.6 ms of a 55 GB/s link
constexpr int kRepeats = 3;                                // the best counts

class DeviceMemory {
 public:
  DeviceMemory(Gpu& gpu, std::size_t bytes) : gpu_(gpu), memory_(gpu.allocate(Memory::device, bytes)) {}
  ~DeviceMemory() { gpu_.free(Memory::device, memory_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  std::byte* get() const noexcept { return memory_; }

 private:
  Gpu& gpu_;
  std::byte* memory_;
};

// pre: the device is idle
template <class Work>
double seconds(Gpu& gpu, Work&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  gpu.synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

PlacementTimes measure_placement(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
  const std::size_t slot_bytes = kElements * sizeof(float);
  const auto extent = arena->allocate(2 * slot_bytes, false);
  const DeviceMemory tensors(*gpu, 2 * slot_bytes + kSlotAlignmentBytes);
  Row row;
  row.param = tensors.get();
  row.grad = tensors.get() + slot_bytes;
  row.step = reinterpret_cast<float*>(tensors.get() + 2 * slot_bytes);
  row.slot[0] = extent->data();
  row.slot[1] = extent->data() + slot_bytes;
  row.numel = kElements;
  const std::vector<Row> rows{row};
  const std::vector<Hyper> hypers(1);
  DeviceStep step(gpu, make_device_tasks(rows, hypers), rows.size(), hypers.size());
  gpu->clear(tensors.get(), 2 * slot_bytes + kSlotAlignmentBytes, nullptr);
  arena->evict(extent->data(), 2 * slot_bytes);
  gpu->synchronize();
  double direct_s = 1e30, in_s = 1e30, out_s = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    direct_s = std::min(direct_s, seconds(*gpu, [&] { step.run(rows, hypers, {}, nullptr); }));
    in_s = std::min(in_s, seconds(*gpu, [&] { arena->prefetch(extent->data(), 2 * slot_bytes); }));
    out_s = std::min(out_s, seconds(*gpu, [&] { arena->evict(extent->data(), 2 * slot_bytes); }));
  }
  return {std::max(in_s, out_s), direct_s};
}

}  // namespace pagedopt

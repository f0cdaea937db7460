#include "placement.h"

#include <algorithm>
#include <chrono>

#include "device_step.h"

namespace pagedopt {
namespace {

constexpr std::int64_t kElements = std::int64_t{1} << 23;  // 64 MiB of float32 Adam state: 1.2 ms of a 55 GB/s link
constexpr int kRepeats = 3;                                // the best counts

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
  const GpuMemory tensors(*gpu, Memory::device, 2 * slot_bytes + kSlotAlignmentBytes);
  Row row;
  row.param = tensors.get();
  row.grad = tensors.get() + slot_bytes;
  row.step = reinterpret_cast<float*>(tensors.get() + 2 * slot_bytes);
  row.slot[0] = extent->data();
  row.slot[1] = extent->data() + slot_bytes;
  row.numel = kElements;
  const std::vector<Row> rows{row};
  const std::vector<Hyper> hypers(1);
  const Home home{extent->data(), extent->data() + 2 * slot_bytes, 2 * slot_bytes};
  DeviceStep step(gpu, make_device_tasks(rows, hypers), rows.size(), hypers.size(), home);
  const std::size_t ring_bytes = step.ring_bytes(rows, arena->page_bytes());
  const GpuMemory ring(*gpu, Memory::device, ring_bytes);
  gpu->clear(tensors.get(), 2 * slot_bytes + kSlotAlignmentBytes, nullptr);
  arena->evict(extent->data(), 2 * slot_bytes);
  gpu->synchronize();
  const auto run = [&](const RingMemory& memory) {
    return seconds(*gpu, [&] { step.run(rows, hypers, {}, nullptr, memory, nullptr); });
  };
  double direct_s = 1e30, staged_s = 1e30, in_s = 1e30, out_s = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    direct_s = std::min(direct_s, run({}));
    staged_s = std::min(staged_s, run({ring.get(), ring_bytes}));
    in_s = std::min(in_s, seconds(*gpu, [&] { arena->prefetch(extent->data(), 2 * slot_bytes); }));
    out_s = std::min(out_s, seconds(*gpu, [&] { arena->evict(extent->data(), 2 * slot_bytes); }));
  }
  return {std::max(in_s, out_s), direct_s, staged_s};
}

}  // namespace pagedopt

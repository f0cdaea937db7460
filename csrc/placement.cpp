#include "placement.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "device_step.h"

namespace pagedopt {
namespace {

constexpr std::int64_t kElements = std::int64_t{1} << 23;  // 64 MiB of float32 Adam state: 1.2 ms of a 55 GB/s link
constexpr int kRepeats = 3, kHintRepeats = 2;              // the best counts
// Windows are so many times smaller than a step's: over so little state, filling the first and emptying the last, which
// nothing runs beside, would count for a quarter.
constexpr std::size_t kWindowShare = 4;
constexpr double kNever = std::numeric_limits<double>::infinity();

// A step over state in an arena.
class Trial {
 public:
  Trial(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena)
      : gpu_(gpu),
        arena_(arena),
        extent_(arena->allocate(2 * kSlotBytes, false)),
        tensors_(*gpu, Memory::device, kTensorBytes),
        rows_{row()},
        step_(gpu, make_device_tasks(rows_, hypers_), rows_.size(), hypers_.size(),
              Home{extent_->data(), extent_->data() + 2 * kSlotBytes, 2 * kSlotBytes}),
        ring_bytes_(step_.ring_bytes(rows_, arena->page_bytes() / kWindowShare)),
        ring_(*gpu, Memory::device, ring_bytes_) {
    gpu->clear(tensors_.get(), kTensorBytes, nullptr);
    (void)arena->evict(extent_->data(), 2 * kSlotBytes);
    gpu->synchronize();
  }

  double direct_s() { return step_s({}); }
  double staged_s() { return step_s({ring_.get(), ring_bytes_}); }
  double in_s() {
    return seconds([&] { arena_->prefetch(extent_->data(), 2 * kSlotBytes); });
  }
  double out_s() {
    return seconds([&] { arena_->evict(extent_->data(), 2 * kSlotBytes); });
  }

 private:
  static constexpr std::size_t kSlotBytes = kElements * sizeof(float);
  static constexpr std::size_t kTensorBytes = 2 * kSlotBytes + kSlotAlignmentBytes;

  Row row() const {
    Row row;
    row.param = tensors_.get();
    row.grad = tensors_.get() + kSlotBytes;
    row.step = reinterpret_cast<float*>(tensors_.get() + 2 * kSlotBytes);
    row.slot[0] = extent_->data();
    row.slot[1] = extent_->data() + kSlotBytes;
    row.numel = kElements;
    return row;
  }

  // pre: the device is idle
  template <class Work>
  double seconds(Work&& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    gpu_->synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  double step_s(const RingMemory& memory) {
    return seconds([&] { step_.run(rows_, hypers_, {}, nullptr, memory, nullptr); });
  }

  std::shared_ptr<Gpu> gpu_;
  std::shared_ptr<Arena> arena_;
  std::shared_ptr<Extent> extent_;
  GpuMemory tensors_;
  std::vector<Row> rows_;
  std::vector<Hyper> hypers_{Hyper()};
  DeviceStep step_;
  std::size_t ring_bytes_;
  GpuMemory ring_;
};

HintTimes choose_copy_hint(Gpu& gpu, Trial& trial) {
  HintTimes times;
  times.fill(kNever);
  for (std::size_t i = 0; i < times.size(); ++i) {
    gpu.set_copy_hint(kCopyHints[i]);
    try {
      for (int repeat = 0; repeat < kHintRepeats; ++repeat) times[i] = std::min(times[i], trial.staged_s());
    } catch (const GpuError&) {
      times[i] = kNever;
      gpu.synchronize();
    }
  }
  gpu.set_copy_hint(kCopyHints[std::min_element(times.begin(), times.end()) - times.begin()]);
  return times;
}

}  // namespace

HintTimes choose_copy_hint(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
  Trial trial(gpu, arena);
  return choose_copy_hint(*gpu, trial);
}

PlacementTimes measure_placement(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
  Trial trial(gpu, arena);
  const HintTimes staged = choose_copy_hint(*gpu, trial);
  double direct_s = kNever, in_s = kNever, out_s = kNever;
  for (int i = 0; i < kRepeats; ++i) {
    direct_s = std::min(direct_s, trial.direct_s());
    in_s = std::min(in_s, trial.in_s());
    out_s = std::min(out_s, trial.out_s());
  }
  return {std::max(in_s, out_s), direct_s, *std::min_element(staged.begin(), staged.end())};
}

}  // namespace pagedopt

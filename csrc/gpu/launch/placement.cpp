#include "gpu/launch/placement.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <limits>

#include "gpu/launch/launcher.h"

namespace pagedopt {
namespace {

constexpr std::int64_t kElements = std::int64_t{1} << 23;  // 64 MiB of float32 Adam state: 1.2 ms of a 55 GB/s link
constexpr int kRepeats = 3, kHintRepeats = 2, kWayRepeats = 2;  // the best counts
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
              StateRange{extent_->data(), extent_->data() + 2 * kSlotBytes, 2 * kSlotBytes}),
        ring_bytes_(step_.ring_bytes(rows_, arena->page_bytes() / kWindowShare)),
        ring_(*gpu, Memory::device, ring_bytes_) {
    gpu->clear(tensors_.get(), kTensorBytes, nullptr);
    (void)arena->evict(extent_->data(), kStateBytes);
    gpu->synchronize();
  }

  double direct_s() { return step_s({}); }
  double staged_s() { return step_s({ring_.get(), ring_bytes_}); }
  double in_s() {
    return seconds_of_moves([&] { return arena_->prefetch(extent_->data(), kStateBytes); });
  }
  // Each thread moves a part.
  double out_s(EvictWay way) {
    arena_->set_evict_way(way);
    const std::size_t part = kStateBytes / way.threads;
    return seconds_of_moves([&] {
      std::vector<std::future<std::size_t>> others;
      for (std::size_t begin = part; begin < kStateBytes; begin += part)
        others.push_back(std::async(std::launch::async, [this, begin, part] {
          gpu_->begin_thread();
          return arena_->evict(extent_->data() + begin, part);
        }));
      std::size_t moved = arena_->evict(extent_->data(), part);
      for (auto& other : others) moved += other.get();
      return moved;
    });
  }

 private:
  static constexpr std::size_t kSlotBytes = kElements * sizeof(float), kStateBytes = 2 * kSlotBytes;
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
  // Never, where a tier had no memory for all of them.
  template <class Moves>
  double seconds_of_moves(Moves&& moves) {
    std::size_t moved = 0;
    const double taken = seconds([&] { moved = moves(); });
    return moved * arena_->page_bytes() >= kStateBytes ? taken : kNever;
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

// Also the least of the seconds in which they came back between two ways.
EvictTimes choose_evict_way(Arena& arena, Trial& trial, double& in_s) {
  EvictTimes times;
  times.fill(kNever);
  in_s = kNever;
  for (int repeat = 0; repeat < kWayRepeats; ++repeat)
    for (std::size_t i = 0; i < times.size(); ++i) {
      in_s = std::min(in_s, trial.in_s());
      times[i] = std::min(times[i], trial.out_s(kEvictWays[i]));
    }
  arena.set_evict_way(kEvictWays[std::min_element(times.begin(), times.end()) - times.begin()]);
  return times;
}

}  // namespace

EvictTimes choose_evict_way(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
  Trial trial(gpu, arena);
  double in_s = kNever;
  return choose_evict_way(*arena, trial, in_s);
}

HintTimes choose_copy_hint(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
  Trial trial(gpu, arena);
  return choose_copy_hint(*gpu, trial);
}

PlacementTimes measure_placement(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
  Trial trial(gpu, arena);
  const HintTimes staged = choose_copy_hint(*gpu, trial);
  double direct_s = kNever, in_s = kNever;
  for (int i = 0; i < kRepeats; ++i) direct_s = std::min(direct_s, trial.direct_s());
  const EvictTimes out = choose_evict_way(*arena, trial, in_s);
  const auto least = [](const auto& times) { return *std::min_element(times.begin(), times.end()); };
  return {std::max(in_s, least(out)), direct_s, least(staged)};
}

}  // namespace pagedopt

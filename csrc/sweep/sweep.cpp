#include "sweep/sweep.h"

#include <algorithm>
#include <stdexcept>

#include "base/workers.h"
#include "gpu/launch/launcher.h"
#include "memory/page_gate.h"

namespace pagedopt {
namespace {

Workers& process_workers() {
  static auto* workers = new Workers;  // never destroyed: its threads may outlive static destruction
  return *workers;
}

// Where the state in an arena is. Memory that the device cannot migrate is locked by runs of whole pages, and no copy
// may cross from one to another.
StateRange state_range_of(const Arena* arena, bool can_move) {
  if (arena == nullptr) return {};
  const std::size_t bytes = arena->reserved_bytes();
  return {arena->base(), arena->base() + bytes, can_move ? bytes : arena->page_bytes()};
}

class StepGate final : public Gate {
 public:
  explicit StepGate(PageGate& pages) : pages_(pages) {}
  void enter(std::size_t task, unsigned worker) override { pages_.enter(task, worker); }
  void leave(std::size_t task, unsigned) noexcept override { pages_.leave(task); }
  void idle(unsigned worker) noexcept override { pages_.idle(worker); }
  void reach(std::size_t task, unsigned worker) noexcept override { pages_.reach(task, worker); }

 private:
  PageGate& pages_;
};

}  // namespace

Sweep::Sweep(std::shared_ptr<std::vector<Row>> rows, const std::vector<Hyper>& hypers, std::shared_ptr<Arena> arena,
             std::shared_ptr<Gpu> gpu)
    : rows_(std::move(rows)) {
  if (gpu) {
    device_ = std::make_unique<DeviceStep>(std::move(gpu), make_device_tasks(*rows_, hypers), rows_->size(),
                                           hypers.size(), state_range_of(arena.get(), arena && arena->vm().can_move()));
    if (arena) ring_bytes_ = device_->ring_bytes(*rows_, arena->page_bytes());
    tasks_ = device_->tasks();
  } else {
    tasks_ = make_tasks(*rows_, hypers);
  }
  if (!arena) return;
  constexpr std::size_t kMostSpans = 2 * kMostSlots;  // slots, and their absmax
  gate_ = std::make_unique<PageGate>(
      std::move(arena), tasks_.size(), kMostSpans, [this](std::size_t task, std::vector<ByteSpan>& spans) {
        Span state[kMostSpans];
        const std::size_t count = spans_of((*rows_)[tasks_[task].row], tasks_[task], state);
        for (std::size_t i = 0; i < count; ++i) spans.push_back({state[i].begin, state[i].end});
      });
}

Sweep::~Sweep() = default;

void Sweep::step(const std::vector<Hyper>& hypers, double grad_scale, unsigned threads) {
  threads = std::clamp(threads, 1U, PageWalk::kMostWorkers);
  const auto run = [&](Gate* gate) { step_host(*rows_, hypers, tasks_, grad_scale, threads, process_workers(), gate); };
  if (!gate_) return run(nullptr);
  StepGate gate(*gate_);
  gate_->step(threads, 0, [&] { run(&gate); });
}

void Sweep::step_on(const std::vector<Hyper>& hypers, const DeviceArguments& arguments, const RingMemory& ring,
                    StreamHandle stream) {
  if (!device_) throw std::logic_error("this sweep was made without a GPU");
  if (!gate_) {
    device_->run(*rows_, hypers, arguments, nullptr, {}, stream);
    return;
  }
  gate_->step(1, DeviceStep::kBatchPages, [&] {
    const Ring::Copied copied = device_->run(*rows_, hypers, arguments, gate_.get(), ring, stream);
    gate_->arena().count_staged(copied.in_bytes, copied.out_bytes);
    gate_->idle(0);
  });
}

std::size_t Sweep::release() { return gate_ ? gate_->release() : 0; }

void Sweep::restore() {
  if (gate_) gate_->restore();
}

std::size_t Sweep::ring_bytes() const { return gate_ && gate_->any_lower() ? ring_bytes_ : 0; }

}  // namespace pagedopt

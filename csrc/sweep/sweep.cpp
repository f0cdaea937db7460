#include "sweep/sweep.h"

#include <algorithm>
#include <limits>

#include "base/workers.h"
#include "gpu/launch/launcher.h"
#include "memory/arena.h"

namespace pagedopt {
namespace {

Workers& process_workers() {
  static auto* workers = new Workers;  // never destroyed: its threads may outlive static destruction
  return *workers;
}

}  // namespace

Sweep::Sweep(std::shared_ptr<std::vector<Row>> rows, const std::vector<Hyper>& hypers, std::shared_ptr<Arena> arena,
             std::shared_ptr<Gpu> gpu)
    : rows_(std::move(rows)), arena_(std::move(arena)) {
  if (gpu) {
    device_ = std::make_unique<DeviceStep>(std::move(gpu), make_device_tasks(*rows_, hypers), rows_->size(),
                                           hypers.size(), home());
    if (arena_) ring_bytes_ = device_->ring_bytes(*rows_, arena_->page_bytes());
    tasks_ = device_->tasks();
  } else {
    tasks_ = make_tasks(*rows_, hypers);
  }
  if (!arena_) return;
  progress_ = std::vector<Progress>(kMostWorkers);
  find_pages();
  arena_->add(*this);
}

// Memory that the device cannot migrate is locked by runs of whole pages, and no copy may cross from one to another.
Home Sweep::home() const {
  if (!arena_) return {};
  const std::size_t bytes = arena_->reserved_bytes();
  return {arena_->base(), arena_->base() + bytes, arena_->vm().can_move() ? bytes : arena_->page_bytes()};
}

Sweep::~Sweep() {
  if (arena_) arena_->remove(*this);
}

void Sweep::find_pages() {
  std::unordered_map<PageIndex, std::uint64_t> index_of;
  std::vector<std::uint64_t> last_task;
  task_pages_begin_.push_back(0);
  for (std::size_t task = 0; task < tasks_.size(); ++task) {
    const std::size_t begin = task_pages_.size();
    add_pages_of((*rows_)[tasks_[task].row], tasks_[task]);
    std::sort(task_pages_.begin() + begin, task_pages_.end());
    task_pages_.erase(std::unique(task_pages_.begin() + begin, task_pages_.end()), task_pages_.end());
    for (std::size_t i = begin; i < task_pages_.size(); ++i) {
      const auto [place, is_new] = index_of.try_emplace(task_pages_[i], order_.size());
      if (is_new) {
        order_.push_back(task_pages_[i]);
        first_task_.push_back(task);
        last_task.push_back(task);
      }
      last_task[place->second] = task;
    }
    task_pages_begin_.push_back(task_pages_.size());
  }
  // A page that one slot runs through is done with before each of the row's slots and absmax has come to its next page.
  for (std::size_t index = 0; index < order_.size(); ++index) {
    const std::size_t ahead = index + 2 * kMostSlots;
    past_task_.push_back(ahead < order_.size() ? std::min(last_task[index], first_task_[ahead]) : last_task[index]);
    if (last_task[index] > past_task_[index]) used_again_.emplace(order_[index], last_task[index]);
  }
}

void Sweep::add_pages_of(const Row& row, const Task& task) {
  Span spans[2 * kMostSlots];
  const std::size_t count = spans_of(row, task, spans);
  for (std::size_t i = 0; i < count; ++i) {
    if (spans[i].begin == spans[i].end || !arena_->owns(spans[i].begin, spans[i].end)) continue;
    const PageIndex last = arena_->page_of(spans[i].end - 1);
    for (PageIndex page = arena_->page_of(spans[i].begin); page <= last; ++page)
      if (!arena_->pages().kept(page)) task_pages_.push_back(page);
  }
}

// `also_held`: pages beyond those of the workers' tasks that may be held at one moment.
void Sweep::set_workers(unsigned workers, std::uint64_t also_held) {
  if (workers == workers_) return;
  workers_ = workers;
  std::uint64_t window = 1;
  // The slowest worker is at the first task that keeps the step from being past entry `index`; the others are ahead.
  for (std::size_t index = 0, end = 0; index < order_.size(); ++index) {
    while (end < order_.size() && first_task_[end] < past_task_[index] + workers) ++end;
    window = std::max<std::uint64_t>(window, end - index);
  }
  window_.store(window + also_held, std::memory_order_relaxed);
}

void Sweep::step(const std::vector<Hyper>& hypers, double grad_scale, unsigned threads) {
  threads = std::clamp(threads, 1U, kMostWorkers);
  if (!arena_) {
    step_host(*rows_, hypers, tasks_, grad_scale, threads, process_workers(), nullptr);
    return;
  }
  Arena::Step running(*arena_, *this);  // one step at a time in an arena
  const Trace::Span span(arena_->trace(), TraceKind::step);
  set_workers(threads);
  for (unsigned worker = 0; worker < threads; ++worker) progress_[worker].task.store(0);
  running.begin();
  step_host(*rows_, hypers, tasks_, grad_scale, threads, process_workers(), this);
  running.check();
}

void Sweep::step_on(const std::vector<Hyper>& hypers, const DeviceArguments& arguments, const RingMemory& ring,
                    StreamHandle stream) {
  if (!device_) throw std::logic_error("this sweep was made without a GPU");
  if (!arena_) {
    device_->run(*rows_, hypers, arguments, nullptr, {}, stream);
    return;
  }
  Arena::Step running(*arena_, *this);
  const Trace::Span span(arena_->trace(), TraceKind::step);
  set_workers(1, DeviceStep::kWindowPages);
  progress_[0].task.store(0);
  running.begin();
  const Ring::Copied copied = device_->run(*rows_, hypers, arguments, this, ring, stream);
  arena_->count_staged(copied.in_bytes, copied.out_bytes);
  idle(0);
  running.check();
}

bool Sweep::is_far(PageIndex page) const {
  return !arena_->vm().can_move() || arena_->pages().tier(page) == Tier::lower;
}

std::size_t Sweep::ring_bytes() const {
  const bool any = std::any_of(order_.begin(), order_.end(), [&](PageIndex page) { return is_far(page); });
  return any ? ring_bytes_ : 0;
}

Sweep::Where Sweep::where(std::size_t task) const {
  const auto begin = task_pages_.begin() + task_pages_begin_[task];
  const auto end = task_pages_.begin() + task_pages_begin_[task + 1];
  if (begin == end) return Where::nowhere;
  return std::any_of(begin, end, [&](PageIndex page) { return is_far(page); }) ? Where::far : Where::near;
}

void Sweep::reach(std::size_t task, unsigned worker) noexcept {
  progress_[worker].task.store(task, std::memory_order_seq_cst);
  arena_->progressed(task);
}

void Sweep::enter(std::size_t task, unsigned worker) {
  reach(task, worker);
  std::uint64_t i = task_pages_begin_[task];
  try {
    for (; i < task_pages_begin_[task + 1]; ++i) arena_->pin(task_pages_[i]);
  } catch (...) {
    while (i-- > task_pages_begin_[task]) arena_->unpin(task_pages_[i]);
    throw;
  }
}

void Sweep::leave(std::size_t task, unsigned) noexcept {
  for (std::uint64_t i = task_pages_begin_[task]; i < task_pages_begin_[task + 1]; ++i) arena_->unpin(task_pages_[i]);
}

bool Sweep::try_enter(std::size_t task) {
  std::uint64_t i = task_pages_begin_[task];
  while (i < task_pages_begin_[task + 1] && arena_->try_pin(task_pages_[i])) ++i;
  if (i == task_pages_begin_[task + 1]) return true;
  while (i-- > task_pages_begin_[task]) arena_->unpin(task_pages_[i]);
  return false;
}

std::size_t Sweep::arriving_pages(std::size_t task) {
  std::size_t pages = 0;
  for (std::uint64_t i = task_pages_begin_[task]; i < task_pages_begin_[task + 1]; ++i)
    pages += arena_->vm().is_arriving(task_pages_[i]) ? 1 : 0;
  return pages;
}

void Sweep::enter_on(std::size_t first, std::size_t last, StreamHandle stream) {
  for (std::uint64_t i = task_pages_begin_[first]; i < task_pages_begin_[last]; ++i)
    if (!arena_->vm().enter(task_pages_[i], stream)) arena_->begin_lower(task_pages_[i]);
}

void Sweep::leave_on(std::size_t first, std::size_t last, StreamHandle stream) {
  const std::uint64_t begin = task_pages_begin_[first], end = task_pages_begin_[last];
  arena_->vm().leave(task_pages_.data() + begin, end - begin, stream);
  for (std::size_t task = first; task < last; ++task) leave(task, 0);
  reach(last, 0);
}

void Sweep::idle(unsigned worker) noexcept { reach(std::numeric_limits<std::uint64_t>::max(), worker); }

std::uint64_t Sweep::first_unfinished() const noexcept {
  std::uint64_t first = std::numeric_limits<std::uint64_t>::max();
  for (unsigned worker = 0; worker < workers_; ++worker)
    first = std::min(first, progress_[worker].task.load(std::memory_order_seq_cst));
  return first;
}

}  // namespace pagedopt

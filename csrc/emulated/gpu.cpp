#include "emulated/gpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/units.h"

namespace pagedopt {
namespace {

constexpr std::size_t kMostWorkAtOnce = 4;  // done after a call, at random, unless eager
// One stream does nothing until the host waits and nothing else is left to do, so that it falls far behind; after so
// many works, on average, it is another one.
constexpr std::uint64_t kSwitch = 100;

constexpr int kRubbish = 0x7f;  // bytes of memory that nobody wrote

constexpr int kInvalidValue = 1;  // cudaError_t

std::uint64_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

}  // namespace

EmulatedGpu::EmulatedGpu(std::size_t total_bytes, std::uint64_t seed, bool eager, bool can_migrate, bool is_integrated,
                         bool is_coherent)
    : eager_(eager), draw_(seed), memory_(total_bytes) {
  info_.name = "emulated";
  info_.total_bytes = total_bytes;
  info_.can_migrate = can_migrate;
  info_.shares_host_address = true;
  info_.is_integrated = is_integrated;
  info_.is_coherent = is_coherent;
  streams_[0];
}

EmulatedGpu::~EmulatedGpu() {
  for (auto& [memory, bytes] : other_) std::free(memory);
}

std::vector<EmulatedGpu::Done> EmulatedGpu::take_log() {
  std::lock_guard lock(mutex_);
  return std::exchange(log_, {});
}

std::size_t EmulatedGpu::device_bytes() {
  std::lock_guard lock(mutex_);
  return memory_.device_bytes();
}

std::size_t EmulatedGpu::kept_bytes() {
  std::lock_guard lock(mutex_);
  return memory_.kept_bytes();
}

std::size_t EmulatedGpu::peak_device_bytes() {
  std::lock_guard lock(mutex_);
  return memory_.peak_device_bytes();
}

void EmulatedGpu::fail_after(std::uint64_t calls) {
  std::lock_guard lock(mutex_);
  until_failure_ = static_cast<std::int64_t>(calls);
}

void EmulatedGpu::refuse(std::uint64_t after, std::uint64_t times) {
  std::lock_guard lock(mutex_);
  first_refused_ = hints_ + after;
  last_refused_ = times < ~first_refused_ ? first_refused_ + times : ~std::uint64_t{0};
}

std::uint64_t EmulatedGpu::hints() {
  std::lock_guard lock(mutex_);
  return hints_;
}

bool EmulatedGpu::takes_hint() {
  const std::uint64_t number = hints_++;
  return number < first_refused_ || number >= last_refused_;
}

std::uint64_t EmulatedGpu::starved_bytes() {
  std::lock_guard lock(mutex_);
  return memory_.starved_bytes();
}

std::uint64_t EmulatedGpu::overlaps() {
  std::lock_guard lock(mutex_);
  return overlaps_;
}

std::size_t EmulatedGpu::free_bytes() {
  std::lock_guard lock(mutex_);
  return memory_.unused();
}

// ---- memory

void EmulatedGpu::take(std::size_t bytes) {
  std::lock_guard lock(mutex_);
  memory_.take_plain(bytes);
}

void EmulatedGpu::give(std::size_t bytes) {
  std::lock_guard lock(mutex_);
  memory_.give_plain(bytes);
}

void EmulatedGpu::use(const DeviceKernels& kernels) {
  std::lock_guard lock(mutex_);
  kernels_ = &kernels;
}

std::byte* EmulatedGpu::allocate(Memory kind, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  if (kind != Memory::managed) {
    if (kind == Memory::device) memory_.take_plain(bytes);
    void* memory = std::aligned_alloc(256, round_up(std::max<std::size_t>(bytes, 1), 256));
    if (memory == nullptr) throw GpuError("allocate of " + std::to_string(bytes) + " bytes failed", kCudaOutOfMemory);
    std::memset(memory, kRubbish, bytes);
    other_[memory] = bytes;
    return static_cast<std::byte*>(memory);
  }
  std::byte* const memory = memory_.allocate(bytes);
  if (memory == nullptr) throw GpuError("allocate of " + std::to_string(bytes) + " bytes failed", kCudaOutOfMemory);
  return memory;
}

void EmulatedGpu::free(Memory kind, void* memory) noexcept {
  std::lock_guard lock(mutex_);
  while (do_one(true)) {  // as cudaFree waits for what may use it
  }
  if (kind == Memory::managed) {
    memory_.free(static_cast<std::byte*>(memory));
  } else if (const auto it = other_.find(memory); it != other_.end()) {
    if (kind == Memory::device) memory_.give_plain(it->second);
    other_.erase(it);
    std::free(memory);
  }
}

void EmulatedGpu::register_host(void* memory, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  registered_[static_cast<std::byte*>(memory)] = bytes;
}

void EmulatedGpu::unregister_host(void* memory) noexcept {
  std::lock_guard lock(mutex_);
  registered_.erase(static_cast<std::byte*>(memory));
}

// A copy may not go from one registration into another.
void EmulatedGpu::check_registration(const std::byte* memory, std::size_t bytes) const {
  auto it = registered_.upper_bound(const_cast<std::byte*>(memory));
  if (it == registered_.begin()) return;
  const auto& [begin, size] = *std::prev(it);
  if (memory < begin + size && memory + bytes > begin + size)
    throw GpuError("copy across the end of registered memory", kInvalidValue);
}

bool EmulatedGpu::map_for_device(std::byte*, std::size_t) {
  std::lock_guard lock(mutex_);
  return takes_hint();
}

bool EmulatedGpu::prefer(std::byte* memory, std::size_t bytes, Place place) {
  std::lock_guard lock(mutex_);
  log_.push_back({place == Place::device ? "prefer device" : "prefer host", 0, number(memory), bytes, 0});
  return takes_hint();
}

// ---- streams and events

StreamHandle EmulatedGpu::make_stream() {
  std::lock_guard lock(mutex_);
  streams_[next_stream_];
  return reinterpret_cast<StreamHandle>(next_stream_++);
}

void EmulatedGpu::free_stream(StreamHandle stream) noexcept {
  std::lock_guard lock(mutex_);
  while (!queue(stream).empty() && do_one(true)) {
  }
  streams_.erase(number(stream));
}

EventHandle EmulatedGpu::make_event(bool) { return new Event; }
void EmulatedGpu::free_event(EventHandle event) noexcept {
  synchronize(event);
  delete static_cast<Event*>(event);
}

bool EmulatedGpu::do_one(bool last_too) {
  if (draw_() % kSwitch == 0) last_stream_ = std::next(streams_.begin(), draw_() % streams_.size())->first;
  std::vector<std::deque<Work>*> ready;
  std::deque<Work>* last = nullptr;
  for (auto& [stream, works] : streams_) {
    if (works.empty() || (works.front().after != nullptr && works.front().after->done < works.front().generation))
      continue;
    if (stream == last_stream_)
      last = &works;
    else
      ready.push_back(&works);
  }
  if (ready.empty() && (last == nullptr || !last_too)) return false;
  std::deque<Work>& works = ready.empty() ? *last : *ready[draw_() % ready.size()];
  const Work work = std::move(works.front());
  works.pop_front();
  if (work.run) work.run();
  return true;
}

void EmulatedGpu::submit(StreamHandle stream, Work work) {
  if (streams_.count(number(stream)) == 0) throw GpuError("no such stream", kInvalidValue);
  if (until_failure_ >= 0 && until_failure_-- == 0) throw GpuError("a call was made to fail", kInvalidValue);
  queue(stream).push_back(std::move(work));
  std::size_t most = eager_ ? ~std::size_t{0} : draw_() % kMostWorkAtOnce;
  while (most-- > 0 && do_one(eager_)) {
  }
}

void EmulatedGpu::record(EventHandle handle, StreamHandle stream) {
  std::lock_guard lock(mutex_);
  auto* event = static_cast<Event*>(handle);
  const std::uint64_t generation = event->recorded + 1;
  submit(stream, {[event, generation] { event->done = std::max(event->done, generation); }});
  event->recorded = generation;  // not if that failed
}

void EmulatedGpu::wait(EventHandle handle, StreamHandle stream) {
  std::lock_guard lock(mutex_);
  const auto* event = static_cast<const Event*>(handle);
  Work work;
  work.after = event;
  work.generation = event->recorded;
  submit(stream, std::move(work));
}

bool EmulatedGpu::is_done(EventHandle handle) {
  std::lock_guard lock(mutex_);
  const auto* event = static_cast<const Event*>(handle);
  return event->done >= event->recorded;
}

void EmulatedGpu::synchronize(EventHandle handle) {
  std::lock_guard lock(mutex_);
  const auto* event = static_cast<const Event*>(handle);
  const std::uint64_t generation = event->recorded;
  while (event->done < generation && do_one(true)) {
  }
}

void EmulatedGpu::synchronize() {
  std::lock_guard lock(mutex_);
  while (do_one(true)) {
  }
  for (const auto& [stream, works] : streams_)
    if (!works.empty()) throw GpuError("stream " + std::to_string(stream) + " waits for ever", kInvalidValue);
}

// ---- work

void EmulatedGpu::submit_copy(const char* what, void* to, const void* from, std::size_t bytes, StreamHandle stream) {
  std::lock_guard lock(mutex_);
  check_registration(static_cast<std::byte*>(to), bytes);
  check_registration(static_cast<const std::byte*>(from), bytes);
  submit(stream, {[=] {
           std::memcpy(to, from, bytes);
           memory_.touch(static_cast<std::byte*>(to), bytes, Place::device, false);
           log_.push_back({what, number(stream), number(to), bytes, 0});
         }});
}

void EmulatedGpu::copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) {
  submit_copy("copy", to, from, bytes, stream);
}

void EmulatedGpu::copy_state(const std::vector<Copy>& copies, Place to, StreamHandle stream) {
  for (const Copy& copy : copies)
    submit_copy(to == Place::device ? "copy in" : "copy back", copy.to, copy.from, copy.bytes, stream);
}

void EmulatedGpu::clear(void* memory, std::size_t bytes, StreamHandle stream) {
  std::lock_guard lock(mutex_);
  submit(stream, {[=] {
           std::memset(memory, 0, bytes);
           memory_.touch(static_cast<std::byte*>(memory), bytes, Place::device, false);
           log_.push_back({"clear", number(stream), number(memory), bytes, 0});
         }});
}

void EmulatedGpu::clear_on_host(std::byte* memory, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  std::memset(memory, 0, bytes);
  memory_.touch(memory, bytes, Place::host, false);
}

bool EmulatedGpu::prefetch(const std::vector<Run>& runs, Place place, StreamHandle stream) {
  std::lock_guard lock(mutex_);
  const std::size_t bytes = std::accumulate(runs.begin(), runs.end(), std::size_t{0},
                                            [](auto sum, const Run& run) { return sum + run.bytes; });
  // Managed memory gives way to more of it; what others have does not.
  const bool fits = place == Place::host || bytes + memory_.plain_bytes() <= info_.total_bytes;
  if (!takes_hint() || !fits) return false;
  if (place == Place::host)
    for (const auto& [other, works] : streams_)
      for (const Work& work : works) overlaps_ += work.is_upload && other != number(stream) ? 1 : 0;
  Work work;
  work.is_upload = place == Place::device;
  work.run = [=] {
    for (const Run& run : runs) {
      memory_.touch(run.begin, run.bytes, place, true);
      log_.push_back({place == Place::device ? "prefetch" : "evict", number(stream), number(run.begin), run.bytes, 0});
    }
  };
  submit(stream, std::move(work));
  return true;
}

bool EmulatedGpu::discard(const std::vector<Run>& runs, StreamHandle stream) {
  std::lock_guard lock(mutex_);
  if (!takes_hint()) return false;
  submit(stream, {[=] {
           for (const Run& run : runs) {
             std::memset(run.begin, kRubbish, run.bytes);
             memory_.forget(run);
             log_.push_back({"discard", number(stream), number(run.begin), run.bytes, 0});
           }
         }});
  return true;
}

std::size_t EmulatedGpu::lower_bytes(const StepTables& tables, std::uint64_t first_part, std::uint64_t last_part) {
  std::size_t found = 0;
  for (std::uint64_t index = first_part; index < last_part; ++index) {
    const Part& part = tables.parts[index];
    const Row& row = tables.rows[part.row];
    Span spans[2 * kMostSlots];
    const std::size_t count = spans_of(row, {part.row, Pass::update, part.first(), part.last(row.numel)}, spans);
    for (std::size_t i = 0; i < count; ++i) {
      const auto bytes = static_cast<std::size_t>(spans[i].end - spans[i].begin);
      memory_.touch(spans[i].begin, bytes, Place::device, false);
      found += memory_.bytes_on_host(spans[i].begin, bytes);
    }
  }
  return found;
}

void EmulatedGpu::begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                             StreamHandle stream) {
  std::lock_guard lock(mutex_);
  submit(stream, {[=] { (void)kernels_->begin_rows(tables, first_row, last_row, stream); }});
}

void EmulatedGpu::finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                                 StreamHandle stream) {
  std::lock_guard lock(mutex_);
  submit(stream, {[=] { (void)kernels_->finish_measure(tables, first_row, last_row, stream); }});
}

void EmulatedGpu::run(const StepTables& tables, Launch what, std::uint64_t first_part, std::uint64_t last_part,
                      StreamHandle stream) {
  std::lock_guard lock(mutex_);
  submit(stream, {[=] {
           const std::size_t lower = what.pass == Pass::gradient_norm ? 0 : lower_bytes(tables, first_part, last_part);
           (void)kernels_->run(tables, what, first_part, last_part, stream);
           log_.push_back({"run", number(stream), first_part, last_part - first_part, lower});
         }});
}

}  // namespace pagedopt

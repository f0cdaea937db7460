#include "emulated/gpu.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/units.h"

namespace pagedopt {
namespace {

constexpr std::size_t kGrain = 64 << 10;    // what the driver keeps track of, at best
constexpr std::size_t kMostWorkAtOnce = 4;  // done after a call, at random, unless eager
// One stream does nothing until the host waits and nothing else is left to do, so that it falls far behind; after so
// many works, on average, it is another one.
constexpr std::uint64_t kSwitch = 100;

constexpr int kRubbish = 0x7f;  // bytes of memory that nobody wrote

constexpr int kInvalidValue = 1, kOutOfMemory = 2;  // cudaError_t

std::uint64_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

}  // namespace

EmulatedGpu::EmulatedGpu(std::size_t total_bytes, std::uint64_t seed, bool eager, bool can_migrate, bool is_integrated,
                         bool is_coherent)
    : eager_(eager), draw_(seed) {
  info_.name = "emulated";
  info_.total_bytes = total_bytes;
  info_.can_migrate = can_migrate;
  info_.shares_host_address = true;
  info_.is_integrated = is_integrated;
  info_.is_coherent = is_coherent;
  streams_[0];
}

EmulatedGpu::~EmulatedGpu() {
  for (auto& [begin, range] : managed_) ::munmap(begin, range.bytes);
  for (auto& [memory, bytes] : other_) std::free(memory);
}

std::vector<EmulatedGpu::Done> EmulatedGpu::take_log() {
  std::lock_guard lock(mutex_);
  return std::exchange(log_, {});
}

std::size_t EmulatedGpu::device_bytes() {
  std::lock_guard lock(mutex_);
  return device_bytes_;
}

std::size_t EmulatedGpu::kept_bytes() {
  std::lock_guard lock(mutex_);
  return kept_bytes_;
}

std::size_t EmulatedGpu::peak_device_bytes() {
  std::lock_guard lock(mutex_);
  return peak_device_bytes_;
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
  return starved_bytes_;
}

std::uint64_t EmulatedGpu::overlaps() {
  std::lock_guard lock(mutex_);
  return overlaps_;
}

std::size_t EmulatedGpu::free_bytes() {
  std::lock_guard lock(mutex_);
  return unused();
}

// ---- memory

std::size_t EmulatedGpu::unused() const { return info_.total_bytes - device_bytes_ - kept_bytes_ - taken_bytes_; }

bool EmulatedGpu::take_grain(bool also_used) {
  for (auto& [begin, range] : managed_)
    for (std::size_t i = 0; i < range.place.size(); ++i) {
      const bool is_used = range.touched[i] && range.place[i] == Place::device;
      if (!range.has_memory[i] || (is_used && !also_used)) continue;
      range.has_memory[i] = false;
      if (is_used) range.place[i] = Place::host;
      (is_used ? device_bytes_ : kept_bytes_) -= kGrain;
      return true;
    }
  return false;
}

bool EmulatedGpu::make_room(std::size_t bytes) {
  while (unused() < bytes)
    if (!take_grain(false) && !take_grain(true)) return false;
  return true;
}

void EmulatedGpu::take_plain(std::size_t bytes) {
  if (!make_room(bytes))
    throw GpuError("allocate of " + std::to_string(bytes) + " bytes failed: out of memory", kOutOfMemory);
  taken_bytes_ += bytes;
}

void EmulatedGpu::take(std::size_t bytes) {
  std::lock_guard lock(mutex_);
  take_plain(bytes);
}

void EmulatedGpu::give(std::size_t bytes) {
  std::lock_guard lock(mutex_);
  taken_bytes_ -= bytes;
}

void EmulatedGpu::use(const DeviceKernels& kernels) {
  std::lock_guard lock(mutex_);
  kernels_ = &kernels;
}

std::byte* EmulatedGpu::allocate(Memory kind, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  if (kind != Memory::managed) {
    if (kind == Memory::device) take_plain(bytes);
    void* memory = std::aligned_alloc(256, round_up(std::max<std::size_t>(bytes, 1), 256));
    if (memory == nullptr) throw GpuError("allocate of " + std::to_string(bytes) + " bytes failed", kOutOfMemory);
    std::memset(memory, kRubbish, bytes);
    other_[memory] = bytes;
    return static_cast<std::byte*>(memory);
  }
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw GpuError("allocate of " + std::to_string(bytes) + " bytes failed", kOutOfMemory);
  auto* begin = static_cast<std::byte*>(memory);
  const std::size_t grains = (bytes + kGrain - 1) / kGrain;
  managed_[begin] = {begin, bytes, std::vector<Place>(grains, Place::device), std::vector<bool>(grains, false),
                     std::vector<bool>(grains, false)};
  return begin;
}

void EmulatedGpu::free(Memory kind, void* memory) noexcept {
  std::lock_guard lock(mutex_);
  while (do_one(true)) {  // as cudaFree waits for what may use it
  }
  if (kind == Memory::managed) {
    const auto it = managed_.find(static_cast<std::byte*>(memory));
    if (it == managed_.end()) return;
    forget({it->second.begin, it->second.bytes});
    for (const bool has_memory : it->second.has_memory) kept_bytes_ -= has_memory ? kGrain : 0;
    ::munmap(memory, it->second.bytes);
    managed_.erase(it);
  } else if (const auto it = other_.find(memory); it != other_.end()) {
    if (kind == Memory::device) taken_bytes_ -= it->second;
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

EmulatedGpu::Range* EmulatedGpu::range_of(const std::byte* memory) {
  auto it = managed_.upper_bound(const_cast<std::byte*>(memory));
  if (it == managed_.begin()) return nullptr;
  Range& range = std::prev(it)->second;
  return memory < range.begin + range.bytes ? &range : nullptr;
}

// pre: it is not there
bool EmulatedGpu::place_on_device(Range& range, std::size_t grain) {
  if (range.has_memory[grain]) {
    kept_bytes_ -= kGrain;
  } else if (!make_room(kGrain)) {
    return false;
  }
  range.has_memory[grain] = true;
  device_bytes_ += kGrain;
  return true;
}

// Memory nobody used before comes to be where it is first used; a move brings all of it to `place`, if there is room.
void EmulatedGpu::touch(const std::byte* memory, std::size_t bytes, Place place, bool moves) {
  Range* range = range_of(memory);
  if (range == nullptr || bytes == 0) return;
  const std::size_t last = static_cast<std::size_t>(memory - range->begin + bytes - 1) / kGrain;
  for (std::size_t i = static_cast<std::size_t>(memory - range->begin) / kGrain; i <= last; ++i) {
    if (range->touched[i] && !moves) continue;
    const bool was_here = range->touched[i] && range->place[i] == Place::device;
    const bool is_here = place == Place::device && (was_here || place_on_device(*range, i));
    starved_bytes_ += place == Place::device && !moves && !is_here ? kGrain : 0;
    range->touched[i] = true;
    range->place[i] = is_here ? Place::device : Place::host;
    if (is_here || !was_here) continue;
    device_bytes_ -= kGrain;
    kept_bytes_ += kGrain;
  }
  peak_device_bytes_ = std::max(peak_device_bytes_, device_bytes_);
}

// What was on the device keeps its memory.
void EmulatedGpu::forget(const Run& run) {
  touch(run.begin, run.bytes, Place::host, true);
  Range* range = range_of(run.begin);
  const auto first = static_cast<std::size_t>(run.begin - range->begin) / kGrain;
  for (std::size_t i = first; i < first + (run.bytes + kGrain - 1) / kGrain; ++i) {
    range->touched[i] = false;
    range->place[i] = Place::device;
  }
}

std::size_t EmulatedGpu::bytes_on_host(const std::byte* memory, std::size_t bytes) {
  const Range* range = range_of(memory);
  if (range == nullptr || bytes == 0) return 0;
  std::size_t found = 0;
  const std::size_t last = static_cast<std::size_t>(memory - range->begin + bytes - 1) / kGrain;
  for (std::size_t i = static_cast<std::size_t>(memory - range->begin) / kGrain; i <= last; ++i)
    found += range->place[i] == Place::host ? kGrain : 0;
  return std::min(found, bytes);
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
           touch(static_cast<std::byte*>(to), bytes, Place::device, false);
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
           touch(static_cast<std::byte*>(memory), bytes, Place::device, false);
           log_.push_back({"clear", number(stream), number(memory), bytes, 0});
         }});
}

void EmulatedGpu::clear_on_host(std::byte* memory, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  std::memset(memory, 0, bytes);
  touch(memory, bytes, Place::host, false);
}

bool EmulatedGpu::prefetch(const std::vector<Run>& runs, Place place, StreamHandle stream) {
  std::lock_guard lock(mutex_);
  const std::size_t bytes = std::accumulate(runs.begin(), runs.end(), std::size_t{0},
                                            [](auto sum, const Run& run) { return sum + run.bytes; });
  // Managed memory gives way to more of it; what others have does not.
  const bool fits = place == Place::host || bytes + taken_bytes_ <= info_.total_bytes;
  if (!takes_hint() || !fits) return false;
  if (place == Place::host)
    for (const auto& [other, works] : streams_)
      for (const Work& work : works) overlaps_ += work.is_upload && other != number(stream) ? 1 : 0;
  Work work;
  work.is_upload = place == Place::device;
  work.run = [=] {
    for (const Run& run : runs) {
      touch(run.begin, run.bytes, place, true);
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
             forget(run);
             log_.push_back({"discard", number(stream), number(run.begin), run.bytes, 0});
           }
         }});
  return true;
}

std::size_t EmulatedGpu::far_bytes(const StepTables& tables, std::uint64_t first_part, std::uint64_t last_part) {
  std::size_t found = 0;
  for (std::uint64_t index = first_part; index < last_part; ++index) {
    const Part& part = tables.parts[index];
    const Row& row = tables.rows[part.row];
    Span spans[2 * kMostSlots];
    const std::size_t count = spans_of(row, {part.row, Pass::update, part.first(), part.last(row.numel)}, spans);
    for (std::size_t i = 0; i < count; ++i) {
      const auto bytes = static_cast<std::size_t>(spans[i].end - spans[i].begin);
      touch(spans[i].begin, bytes, Place::device, false);
      found += bytes_on_host(spans[i].begin, bytes);
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
           const std::size_t far = what.pass == Pass::gradient_norm ? 0 : far_bytes(tables, first_part, last_part);
           (void)kernels_->run(tables, what, first_part, last_part, stream);
           log_.push_back({"run", number(stream), first_part, last_part - first_part, far});
         }});
}

}  // namespace pagedopt

#include "emulated/managed_memory.h"

#include <sys/mman.h>

#include <algorithm>

namespace pagedopt {
namespace {

constexpr std::size_t kGrain = 64 << 10;  // what the driver keeps track of, at best

}  // namespace

ManagedMemory::~ManagedMemory() {
  for (auto& [begin, range] : ranges_) ::munmap(begin, range.bytes);
}

std::byte* ManagedMemory::allocate(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(memory);
  const std::size_t grains = (bytes + kGrain - 1) / kGrain;
  ranges_[begin] = {begin, bytes, std::vector<Place>(grains, Place::device), std::vector<bool>(grains, false),
                    std::vector<bool>(grains, false)};
  return begin;
}

bool ManagedMemory::free(std::byte* memory) noexcept {
  const auto it = ranges_.find(memory);
  if (it == ranges_.end()) return false;
  forget({it->second.begin, it->second.bytes});
  for (const bool has_memory : it->second.has_memory) kept_bytes_ -= has_memory ? kGrain : 0;
  ::munmap(memory, it->second.bytes);
  ranges_.erase(it);
  return true;
}

bool ManagedMemory::take_grain(bool also_used) {
  for (auto& [begin, range] : ranges_)
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

bool ManagedMemory::make_room(std::size_t bytes) {
  while (unused() < bytes)
    if (!take_grain(false) && !take_grain(true)) return false;
  return true;
}

void ManagedMemory::take_plain(std::size_t bytes) {
  if (!make_room(bytes))
    throw GpuError("allocate of " + std::to_string(bytes) + " bytes failed: out of memory", kCudaOutOfMemory);
  plain_bytes_ += bytes;
}

ManagedMemory::Range* ManagedMemory::range_of(const std::byte* memory) {
  auto it = ranges_.upper_bound(const_cast<std::byte*>(memory));
  if (it == ranges_.begin()) return nullptr;
  Range& range = std::prev(it)->second;
  return memory < range.begin + range.bytes ? &range : nullptr;
}

// pre: it is not there
bool ManagedMemory::place_on_device(Range& range, std::size_t grain) {
  if (range.has_memory[grain]) {
    kept_bytes_ -= kGrain;
  } else if (!make_room(kGrain)) {
    return false;
  }
  range.has_memory[grain] = true;
  device_bytes_ += kGrain;
  return true;
}

void ManagedMemory::touch(const std::byte* memory, std::size_t bytes, Place place, bool moves) {
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

void ManagedMemory::forget(const Run& run) {
  touch(run.begin, run.bytes, Place::host, true);
  Range* range = range_of(run.begin);
  const auto first = static_cast<std::size_t>(run.begin - range->begin) / kGrain;
  for (std::size_t i = first; i < first + (run.bytes + kGrain - 1) / kGrain; ++i) {
    range->touched[i] = false;
    range->place[i] = Place::device;
  }
}

std::size_t ManagedMemory::bytes_on_host(const std::byte* memory, std::size_t bytes) const {
  const Range* range = range_of(memory);
  if (range == nullptr || bytes == 0) return 0;
  std::size_t found = 0;
  const std::size_t last = static_cast<std::size_t>(memory - range->begin + bytes - 1) / kGrain;
  for (std::size_t i = static_cast<std::size_t>(memory - range->begin) / kGrain; i <= last; ++i)
    found += range->place[i] == Place::host ? kGrain : 0;
  return std::min(found, bytes);
}

}  // namespace pagedopt

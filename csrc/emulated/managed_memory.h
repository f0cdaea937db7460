// The memory of an emulated GPU: managed ranges, of which each grain is on the device or on the host, and what others
// have allocated. As the real driver, it keeps the device's memory of what left (pagedopt/pager/driver_cache.py), and
// takes it away, before what is in use, when other memory finds no room.
//
// Locks: none of its own; EmulatedGpu has one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "gpu/gpu.h"

namespace pagedopt {

inline constexpr int kCudaOutOfMemory = 2;  // cudaErrorMemoryAllocation

class ManagedMemory {
 public:
  explicit ManagedMemory(std::size_t total_bytes) : total_bytes_(total_bytes) {}
  ~ManagedMemory();
  ManagedMemory(const ManagedMemory&) = delete;
  ManagedMemory& operator=(const ManagedMemory&) = delete;

  std::byte* allocate(std::size_t bytes);  // null: there is no address space
  bool free(std::byte* memory) noexcept;   // false if it is not managed

  // Plain memory of the device, of torch or of other processes. Throws GpuError where there is no room.
  void take_plain(std::size_t bytes);
  void give_plain(std::size_t bytes) { plain_bytes_ -= bytes; }

  // Memory nobody used before comes to be where it is first used; a move brings all of it to `place`, if there is room.
  void touch(const std::byte* memory, std::size_t bytes, Place place, bool moves);
  // Nobody has used it; what was on the device keeps its memory.
  void forget(const Run& run);
  std::size_t bytes_on_host(const std::byte* memory, std::size_t bytes) const;

  std::size_t device_bytes() const { return device_bytes_; }
  std::size_t peak_device_bytes() const { return peak_device_bytes_; }
  std::size_t kept_bytes() const { return kept_bytes_; }
  std::size_t plain_bytes() const { return plain_bytes_; }
  std::uint64_t starved_bytes() const { return starved_bytes_; }
  std::size_t unused() const { return total_bytes_ - device_bytes_ - kept_bytes_ - plain_bytes_; }

 private:
  struct Range {
    std::byte* begin;
    std::size_t bytes;
    std::vector<Place> place;  // of each grain; the device where nothing was touched yet
    std::vector<bool> touched;
    std::vector<bool> has_memory;  // of the device, in use or kept
  };

  Range* range_of(const std::byte* memory);
  const Range* range_of(const std::byte* memory) const { return const_cast<ManagedMemory*>(this)->range_of(memory); }
  bool place_on_device(Range& range, std::size_t grain);  // false if there is no memory to be had
  bool make_room(std::size_t bytes);                      // false if others have too much
  bool take_grain(bool also_used);                        // from managed memory that keeps it, or that uses it

  const std::size_t total_bytes_;
  std::map<std::byte*, Range> ranges_;
  std::size_t device_bytes_ = 0, peak_device_bytes_ = 0, kept_bytes_ = 0, plain_bytes_ = 0;
  std::uint64_t starved_bytes_ = 0;
};

}  // namespace pagedopt

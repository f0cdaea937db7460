// Free address ranges, first fit by address, so that extents allocated in step order lie in step order.
#pragma once

#include <cstddef>
#include <map>
#include <optional>

#include "base/units.h"

namespace pagedopt {

class Ranges {
 public:
  void give(std::size_t offset, std::size_t bytes) {
    auto next = free_.lower_bound(offset);
    if (next != free_.begin()) {
      auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        free_.erase(before);
      }
    }
    if (next != free_.end() && offset + bytes == next->first) {
      bytes += next->second;
      free_.erase(next);
    }
    free_.emplace(offset, bytes);
  }

  std::optional<std::size_t> take(std::size_t bytes, std::size_t alignment) {
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      const std::size_t start = round_up(it->first, alignment);
      const std::size_t end = it->first + it->second;
      if (start + bytes > end) continue;
      const std::size_t before = start - it->first;
      free_.erase(it);
      if (before > 0) free_.emplace(start - before, before);
      if (start + bytes < end) free_.emplace(start + bytes, end - start - bytes);
      return start;
    }
    return std::nullopt;
  }

 private:
  std::map<std::size_t, std::size_t> free_;  // offset -> bytes
};

}  // namespace pagedopt

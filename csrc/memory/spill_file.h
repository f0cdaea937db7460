// The unlinked file behind an arena on the host. Page k lives at offset k * page_bytes; the file is sparse, space is
// allocated before a page is first written, so that a full disk is an error here and never a SIGBUS later.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <string>

#include "base/annotations.h"
#include "base/mutex.h"
#include "memory/vm.h"

namespace pagedopt {

class SpillFile {
 public:
  SpillFile(std::string directory, DirectIo direct) : directory_(std::move(directory)), direct_(direct) {}
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  int mapping() const noexcept { return map_; }  // the descriptor to map, from the first allocate() on
  std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }  // allocated

  // These raise VmError. Different ranges may be allocated, written and read by several threads at once.
  void allocate(off_t offset, std::size_t bytes);
  void write(const std::byte* from, std::size_t bytes, off_t offset);
  // Into pieces of the same size, one after another.
  void read(std::byte* const* to, std::size_t pieces, std::size_t piece_bytes, off_t offset);

  // False where the file system cannot: then the range keeps its space, and its content.
  bool release(off_t offset, std::size_t bytes) noexcept;
  void drop_cache(off_t offset, std::size_t bytes) noexcept;

  std::string advice(int code) const;  // what to do after a call that failed with this errno

 private:
  template <class Call>
  void transfer(const char* name, std::size_t bytes, Call&& call);
  void open_once();
  int open_and_unlink();
  int reopen_direct(int fd);

  const std::string directory_;
  const DirectIo direct_;
  Mutex opening_;
  std::atomic<int> map_{-1};  // set once, under opening_
  std::atomic<int> io_{-1};
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace pagedopt

// Finds what others write to pages that are being moved, so that no write is lost: a plain tensor operation, numpy, a
// system call that fills a tensor, from any thread at any time. The kernel stops whoever touches a protected page and
// says so on a file descriptor (userfaultfd); one thread here answers.
//
//   page is                   others may    a touch
//   resident, changed         read, write   is not seen
//   resident, unchanged       read          by a write makes it changed, and lifts the protection; only what arrives
//                                           between steps counts as unchanged
//   evicting                  read          by a write makes it changed: the eviction is abandoned
//   remapping, prefetching    (*)           waits until the move is over, and then finds the page where it is
//   evicted                   read, write   is not seen: the file is mapped
//                                           (*) remapping: read; prefetching: nothing
//
// Why none is lost. Evicting: the page is protected before its bytes are written, so that a write comes before the
// protection, and is among the bytes, or is stopped. Then `touch` sets `dirty` in the page's word while the page is
// evicting, or finds it remapping; begin_remap decides in the same word, so one of the two comes first: the page stays,
// or the writer waits for the mapping of the file. Prefetching: an empty mapping (the guard) takes the place of the
// file's before the file is read, so that nothing can be written in between. An unchanged page arrives protected.
//
// Why nobody waits for ever. A touch of a page in motion is left waiting by the thread here. It was queued in the
// kernel before the mapping it ran into was replaced, the page's word changes after that, and wake() or lift() come
// last: every move ends with one of them, whether it succeeds or fails. A touch that comes later finds the mapping and
// the word as they are then. Nobody holds a lock of ours while touching pages that others move, and the thread here
// takes none but `mutex_`, under which pages are not touched.
//
// What it cannot see: writes that do not pass the page table of this process, which are transfers by a device into
// memory it was given before (O_DIRECT into a tensor, RDMA). `pagedopt.hold()` is for those.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/units.h"

namespace pagedopt {

class WriteWatch {
 public:
  // Called for a page that is touched: true if its protection goes now, false if it is in motion. Takes no lock.
  using Touch = std::function<bool(PageIndex)>;

  // Watches pages [0, page_count) from `base` on. Throws VmError where the system does not allow it: faults of the
  // kernel have to be seen as well, which wants root, CAP_SYS_PTRACE, vm.unprivileged_userfaultfd or /dev/userfaultfd.
  WriteWatch(std::byte* base, std::size_t page_bytes, std::size_t page_count, Touch touch);
  // pre: no page moves.
  ~WriteWatch();
  WriteWatch(const WriteWatch&) = delete;
  WriteWatch& operator=(const WriteWatch&) = delete;

  // Whoever writes to the pages from here on is stopped. pre: evicting
  void protect(PageIndex first, std::size_t count);
  // The same for a fresh page, and for readers; false if it has content, because somebody wrote. pre: remapping
  bool protect_fresh(PageIndex page);
  // The same for memory that nobody else knows yet; it stays so when it is moved over a page.
  void protect_beside(std::byte* memory);
  // Whoever touches the pages from here on waits. What was mapped there is gone. pre: prefetching
  void guard(PageIndex first, std::size_t count);

  // To be called when a move is over and the page's word says so.
  void wake(PageIndex page) noexcept;  // those who waited go on, into what is mapped now
  void lift(PageIndex page) noexcept;  // and the page stays, as changed, without protection

 private:
  void serve();
  bool answer();
  void protect_range(std::byte* begin, std::size_t bytes, std::uint64_t mode);
  bool has_content(PageIndex page) const;
  std::byte* at(PageIndex page) const noexcept { return base_ + std::size_t{page} * page_bytes_; }

  std::byte* const base_;
  const std::size_t page_bytes_, page_count_;
  const Touch touch_;
  // Held from `touch` to the end of lifting, and while protecting: a page is never stripped of the protection that the
  // next eviction has given it.
  Mutex mutex_;
  int faults_ = -1;
  int stop_ = -1;
  std::thread thread_;
};

}  // namespace pagedopt

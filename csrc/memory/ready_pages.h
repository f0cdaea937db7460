// Populated memory, ready to be read into and moved over a page of the arena. Clearing 2 MiB takes a good part of the
// time in which a disk delivers them, so a thread of its own stays a few pages ahead of the reader.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#include "base/annotations.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/threads.h"
#include "base/units.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace pagedopt {

// Huge pages where they can be, and never in a forked child: a copy on write there would slow every later step here.
inline void advise(void* address, std::size_t bytes) noexcept {
  (void)::madvise(address, bytes, MADV_HUGEPAGE);
  (void)::madvise(address, bytes, MADV_DONTFORK);
}

class ReadyPages {
 public:
  // Pages start at multiples of `alignment`, so that they can be moved into place by page-table entries alone.
  ReadyPages(std::size_t page_bytes, std::size_t alignment)
      : page_bytes_(page_bytes),
        alignment_(alignment),
        ahead_(std::clamp<std::size_t>(kAheadBytes / page_bytes, 1, kMostPages)) {
    ready_.reserve(ahead_);
  }
  // pre: this process made it; a forked child has no thread to join.
  ~ReadyPages() {
    if (maker_.joinable()) {
      {
        const Lock lock(mutex_);
        stopping_ = true;
      }
      taken_.notify_one();
      maker_.join();
    }
    for (std::byte* page : ready_) drop(page);
  }
  ReadyPages(const ReadyPages&) = delete;
  ReadyPages& operator=(const ReadyPages&) = delete;

  // One page of fresh memory, the caller's from now on. Never waits: makes the page itself when none is ready.
  std::byte* take() {
    {
      const Lock lock(mutex_);
      start_once();
      wanted_ = true;
      if (!ready_.empty()) {
        std::byte* page = ready_.back();
        ready_.pop_back();
        taken_.notify_one();
        return page;
      }
    }
    return make();
  }

  void drop(std::byte* page) noexcept { ::munmap(page, page_bytes_); }

 private:
  static constexpr std::size_t kAheadBytes = 3 * kHugePageBytes, kMostPages = 16;

  void start_once() PAGEDOPT_WANTS(mutex_) {
    if (maker_.joinable()) return;
    try {
      maker_ = start_thread("pagedopt-clear", [this] { stay_ahead(); });
    } catch (const std::system_error&) {  // no thread to be had: pages are made when they are taken
    }
  }

  void stay_ahead() {
    Lock lock(mutex_);
    for (;;) {
      while (!stopping_ && (!wanted_ || ready_.size() >= ahead_)) taken_.wait(lock);
      if (stopping_) return;
      lock.unlock();
      std::byte* page = nullptr;
      try {
        page = make();
      } catch (const VmError&) {  // whoever takes one will see the error
      }
      lock.lock();
      page ? ready_.push_back(page) : void(wanted_ = false);
    }
  }

  std::byte* make() const {
    const std::size_t slack = page_bytes_ + alignment_;
    void* range = ::mmap(nullptr, slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) PAGEDOPT_THROW_VM("mmap", slack, "no memory to read a page into");
    const auto address = reinterpret_cast<std::uintptr_t>(range);
    const std::uintptr_t aligned = round_up(address, alignment_);
    if (aligned > address) ::munmap(range, aligned - address);
    auto* page = reinterpret_cast<std::byte*>(aligned);
    const std::size_t tail = address + slack - aligned - page_bytes_;
    if (tail > 0) ::munmap(page + page_bytes_, tail);
    advise(page, page_bytes_);
    (void)::madvise(page, page_bytes_, MADV_POPULATE_WRITE);
    return page;
  }

  const std::size_t page_bytes_, alignment_;
  const std::size_t ahead_;  // pages to have ready
  Mutex mutex_;
  Condition taken_;
  std::vector<std::byte*> ready_ PAGEDOPT_GUARDED_BY(mutex_);
  bool wanted_ PAGEDOPT_GUARDED_BY(mutex_) = false;  // somebody takes pages, and they could be made
  bool stopping_ PAGEDOPT_GUARDED_BY(mutex_) = false;
  std::thread maker_ PAGEDOPT_GUARDED_BY(mutex_);
};

}  // namespace pagedopt

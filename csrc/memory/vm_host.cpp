// RAM over disk by remapping in place. See docs/decisions.md, "2026-11-22: eviction maps the file over the page".
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/zeroed.h"
#include "memory/ready_pages.h"
#include "memory/vm.h"
#include "memory/write_watch.h"

#if defined(__SANITIZE_THREAD__)
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
#endif

namespace pagedopt {
namespace {

std::string mib(std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// A page that is being written back may be used meanwhile: the eviction is then abandoned and what was written is never
// read (pages.h, "evicting"). Thread sanitizer sees the system call read what a worker writes; for as long as this
// lives it does not look.
class Unwatched {
 public:
#if defined(__SANITIZE_THREAD__)
  Unwatched() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~Unwatched() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#else
  Unwatched() {}
#endif
};

// The unlinked file behind an arena. Page k lives at offset k * page_bytes; the file is sparse, space is allocated
// before a page is first written, so that a full disk is an error here and never a SIGBUS later.
class SpillFile {
 public:
  SpillFile(std::string directory, DirectIo direct) : directory_(std::move(directory)), direct_(direct) {}
  ~SpillFile() {
    if (io_ >= 0 && io_ != map_) ::close(io_);
    if (map_ >= 0) ::close(map_);
  }
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  int mapping() const noexcept { return map_; }
  std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

  void allocate(off_t offset, std::size_t bytes) {
    open_once();
    int code = 0;
    do code = ::posix_fallocate(map_, offset, static_cast<off_t>(bytes));
    while (code == EINTR);
    if (code != 0) {
      // A part may have been taken, which nothing counts.
      (void)::fallocate(map_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(bytes));
      errno = code;
      PAGEDOPT_THROW_VM("posix_fallocate", bytes, advice(code));
    }
    bytes_ += bytes;
  }

  void write(const std::byte* from, std::size_t bytes, off_t offset) {
    transfer("pwrite", bytes, [&](std::size_t done, int fd) {
      const Unwatched unwatched;
      return ::pwrite(fd, from + done, bytes - done, offset + static_cast<off_t>(done));
    });
  }

  // Into pieces of the same size, one after another.
  void read(std::byte* const* to, std::size_t pieces, std::size_t piece_bytes, off_t offset) {
    std::vector<iovec> left;
    transfer("preadv", pieces * piece_bytes, [&](std::size_t done, int fd) {
      left.clear();
      for (std::size_t i = done / piece_bytes, skip = done % piece_bytes; i < pieces; ++i, skip = 0)
        left.push_back({to[i] + skip, piece_bytes - skip});
      return ::preadv(fd, left.data(), static_cast<int>(left.size()), offset + static_cast<off_t>(done));
    });
  }

  // False where the file system cannot: then the range keeps its space, and its content.
  bool release(off_t offset, std::size_t bytes) noexcept {
    if (::fallocate(map_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(bytes)) != 0)
      return false;
    bytes_ -= bytes;
    return true;
  }

  void drop_cache(off_t offset, std::size_t bytes) noexcept {
    ::posix_fadvise(map_, offset, static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  }

  std::string advice(int code) const {
    struct statvfs disk{};
    std::string text = "the spill file in " + directory_ + " holds " + mib(bytes());
    if (::statvfs(directory_.c_str(), &disk) == 0)
      text += ", " + mib(disk.f_bavail * disk.f_frsize) + " are free there";
    if (code == EINVAL && direct_ == DirectIo::on)
      return text + ". This file system refuses O_DIRECT for pages of this size: set direct_io to auto or off";
    if (code == ENOSPC || code == EDQUOT || code == EFBIG)
      return text + ". Free space, set spill_dir to a larger disk, or raise the budget";
    if (is_shortage(code)) return text + ". This process or machine is short of what the call needs";
    return text +
           ". The disk or its file system failed, and the kernel's log (dmesg) may say why: set spill_dir to another";
  }

 private:
  template <class Call>
  void transfer(const char* name, std::size_t bytes, Call&& call) {
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t moved = call(done, io_);
      if (moved > 0) {
        done += static_cast<std::size_t>(moved);
      } else if (moved == 0) {
        errno = EIO;
        PAGEDOPT_THROW_VM(name, bytes, "the spill file in " + directory_ + " ended early");
      } else if (errno == EINVAL && io_ != map_ && direct_ == DirectIo::automatic) {
        std::lock_guard lock(opening_);
        io_ = map_;  // this file system takes O_DIRECT at open and refuses it here
      } else if (errno != EINTR) {
        PAGEDOPT_THROW_VM(name, bytes, advice(errno));
      }
    }
  }

  void open_once() {
    std::lock_guard lock(opening_);
    if (map_ >= 0) return;
    if (directory_.empty()) {
      errno = ENOENT;
      PAGEDOPT_THROW_VM("open", 0, "no spill directory: set spill_dir to a directory on a disk");
    }
    int fd = ::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) fd = open_and_unlink();
    int flags = 0;  // on btrfs, copy on write would need new space even for space allocated before
    if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
      flags |= FS_NOCOW_FL;
      (void)::ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    io_ = direct_ == DirectIo::off ? fd : reopen_direct(fd);
    map_ = fd;
  }

  int open_and_unlink() {
    std::string path = directory_ + "/pagedopt-spill-XXXXXX";
    const int fd = ::mkostemp(path.data(), O_CLOEXEC);
    if (fd < 0)
      PAGEDOPT_THROW_VM("open", 0,
                        "no file can be made in " + directory_ + ": " +
                            (errno == EMFILE || errno == ENFILE ? "too many files are open (ulimit -n)"
                                                                : "set spill_dir to a writable directory"));
    ::unlink(path.c_str());
    return fd;
  }

  int reopen_direct(int fd) {
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const int direct = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    if (direct >= 0) return direct;
    if (direct_ == DirectIo::on) {
      const int code = errno;
      ::close(fd);
      errno = code;
      PAGEDOPT_THROW_VM("open", 0,
                        "the file system of " + directory_ + " refuses O_DIRECT: set direct_io to auto or off");
    }
    return fd;
  }

  std::string directory_;
  DirectIo direct_;
  std::mutex opening_;
  int map_ = -1;
  std::atomic<int> io_{-1};
  std::atomic<std::size_t> bytes_{0};
};

// Where address space is limited, half of what there is stays for everybody else.
std::byte* reserve_range(std::size_t& bytes) {
  for (bool is_limited = false;; bytes /= 2) {
    void* range = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range != MAP_FAILED && !is_limited) return static_cast<std::byte*>(range);
    if (range != MAP_FAILED) {
      ::munmap(range, bytes);
      is_limited = false;  // the next one, of half the size, is it
    } else if (bytes <= (std::size_t{64} << 20)) {
      PAGEDOPT_THROW_VM("mmap", bytes, "no address space for the optimizer state (ulimit -v?)");
    } else {
      is_limited = true;
    }
  }
}

class HostVm final : public Vm {
 public:
  using Vm::demote;
  using Vm::prefetch;
  using Vm::write_back;

  HostVm(std::size_t page_bytes, std::size_t reserve_bytes, std::string directory, DirectIo direct, WatchWrites watch)
      : page_bytes_(page_bytes),
        alignment_(std::max(page_bytes, kHugePageBytes)),
        ready_pages_(page_bytes, alignment_),
        spill_(std::move(directory), direct),
        watch_writes_(watch) {
    reserved_ = round_up(reserve_bytes, alignment_) + alignment_;
    range_ = reserve_range(reserved_);
    const auto address = reinterpret_cast<std::uintptr_t>(range_);
    base_ = range_ + (round_up(address, alignment_) - address);
    page_count_ = std::min<std::size_t>((reserved_ - static_cast<std::size_t>(base_ - range_)) / page_bytes_,
                                        std::numeric_limits<PageIndex>::max());
    advise(base_, page_count_ * page_bytes_);
    spilled_ = Zeroed<std::atomic<bool>>(page_count_);
    is_protected_ = Zeroed<std::atomic<bool>>(page_count_);
  }
  ~HostVm() override { ::munmap(range_, reserved_); }

  std::byte* base() const noexcept override { return base_; }
  std::size_t page_bytes() const noexcept override { return page_bytes_; }
  std::size_t page_count() const noexcept override { return page_count_; }

  void commit(PageIndex first, PageIndex last) override {
    const std::size_t bytes = (last - first) * page_bytes_;
    if (::mprotect(at(first), bytes, PROT_READ | PROT_WRITE) != 0)
      PAGEDOPT_THROW_VM("mprotect", bytes, "no memory can be promised for more optimizer state");
  }

  bool populate(PageIndex page) override {
    (void)::madvise(at(page), page_bytes_, MADV_POPULATE_WRITE);
    return true;
  }

  void prefetch(PageIndex page) override {
    std::size_t done = 0;
    prefetch(std::vector<PageIndex>{page}, done);
  }
  void prefetch(const std::vector<PageIndex>& pages, std::size_t& done) override {
    std::vector<std::byte*> memory;
    std::vector<Guarded> guarded;
    const bool protects = watch_ && !is_stepping_;
    memory.reserve(pages.size());
    guarded.reserve(pages.size());
    try {
      for (std::size_t i = 0; i < pages.size(); ++i) memory.push_back(ready_pages_.take());
      for_runs(pages, [&](std::size_t first, std::size_t count) {
        if (watch_) guarded.push_back(guard(pages[first], count));
        spill_.read(memory.data() + first, count, page_bytes_, offset(pages[first]));
      });
      for (; done < pages.size(); ++done) {
        is_protected_[pages[done]] = protects;
        if (protects) watch_->protect_beside(memory[done]);
        if (put(std::exchange(memory[done], nullptr), pages[done]) != Put::done)
          PAGEDOPT_THROW_VM("mremap", page_bytes_, mapping_advice(errno));
      }
    } catch (...) {
      for (std::byte* page : memory)
        if (page != nullptr) ready_pages_.drop(page);
      for (std::size_t i = 0, first = 0; i < guarded.size(); first += guarded[i++].count)
        unguard(guarded[i], std::clamp(done, first, first + guarded[i].count) - first);
      throw;
    }
    for (const Guarded& run : guarded) unguard(run, run.count);
  }

  std::size_t write_back(PageIndex page) override { return write_back(std::vector<PageIndex>{page}); }
  std::size_t write_back(const std::vector<PageIndex>& pages) override {
    for (const PageIndex page : pages) allocate_once(page);
    for_runs(pages, [&](std::size_t first, std::size_t count) {
      if (watch_) watch_->protect(pages[first], count);
      spill_.write(at(pages[first]), count * page_bytes_, offset(pages[first]));
    });
    return pages.size() * page_bytes_;
  }

  // Between two transfers the disk waits for a thread to wake up, on a machine that is busy with the step.
  std::size_t most_at_once(MoveKind) const noexcept override {
    return std::clamp<std::size_t>(kMostTransferBytes / page_bytes_, 1, 4);
  }

  std::size_t demote(PageIndex page) override {
    map_file(page);
    return 0;
  }

  bool keeps_copy(PageIndex page) const noexcept override { return is_protected_[page]; }
  void set_stepping(bool is_stepping) noexcept override { is_stepping_ = is_stepping; }

  void watch(Touch touch) override {
    if (watch_writes_ == WatchWrites::off) return;
    try {
      watch_ = std::make_unique<WriteWatch>(base_, page_bytes_, page_count_, std::move(touch));
    } catch (const std::exception&) {
      if (watch_writes_ == WatchWrites::on) throw;
    }
  }
  void unwatch() noexcept override { watch_.reset(); }
  bool are_writes_safe() const noexcept override { return watch_ != nullptr; }
  void end_move(PageIndex page) noexcept override {
    if (watch_) watch_->wake(page);
  }
  void keep(PageIndex page) noexcept override {
    if (watch_) watch_->lift(page);
  }

  bool place_lower(PageIndex page) override {
    const bool is_stale = spilled_[page];  // by what the page held before it was discarded
    allocate_once(page);
    if (watch_ && !watch_->protect_fresh(page)) return false;
    if (is_stale) write_zeros(page);
    map_file(page);
    return true;
  }

  void use_in_place(PageIndex page) override {
    if (populate(at(page), page_bytes_, MADV_POPULATE_WRITE)) return;
    PAGEDOPT_THROW_VM("madvise", page_bytes_, spill_.advice(errno));
  }

  bool can_read(const std::byte* from, std::size_t bytes) const noexcept override {
    const auto first = reinterpret_cast<std::uintptr_t>(from) / kOsPageBytes * kOsPageBytes;
    const auto last = round_up(reinterpret_cast<std::uintptr_t>(from) + bytes, kOsPageBytes);
    return populate(reinterpret_cast<void*>(first), last - first, MADV_POPULATE_READ);
  }

  // What is there is of no use any more: should the kernel fail after it has unmapped it, nothing is lost.
  void discard(PageIndex page) override {
    constexpr int kFresh = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (!map_at(page, kFresh | MAP_FIXED, -1) && (is_mapped(page) || !map_at(page, kFresh | MAP_FIXED_NOREPLACE, -1)))
      PAGEDOPT_THROW_VM("mmap", page_bytes_, mapping_advice(errno));
    advise(at(page), page_bytes_);
    if (spilled_[page] && spill_.release(offset(page), page_bytes_)) spilled_[page] = false;
  }

  void drop_cache(PageIndex page) noexcept override { spill_.drop_cache(offset(page), page_bytes_); }

  std::size_t lower_bytes() const noexcept override { return spill_.bytes(); }

  Measured measure(const std::vector<Tier>& tiers) const override {
    std::size_t upper_bytes = 0, cache_bytes = 0;
    std::vector<unsigned char> present(page_bytes_ / kOsPageBytes);
    for (PageIndex page = 0; page < tiers.size(); ++page) {
      if (tiers[page] == Tier::fresh || ::mincore(at(page), page_bytes_, present.data()) != 0) continue;
      std::size_t bytes = 0;
      for (unsigned char flag : present) bytes += (flag & 1U) * kOsPageBytes;
      (tiers[page] == Tier::upper ? upper_bytes : cache_bytes) += bytes;
    }
    return {upper_bytes, cache_bytes};
  }

 private:
  static constexpr std::size_t kMostTransferBytes = std::size_t{8} << 20;

  // Calls visit(index, count) for runs of pages that follow one another, in memory and in the file.
  template <class Visit>
  static void for_runs(const std::vector<PageIndex>& pages, Visit&& visit) {
    for (std::size_t first = 0, last = 0; first < pages.size(); first = last) {
      for (last = first + 1; last < pages.size() && pages[last] == pages[last - 1] + 1;) ++last;
      visit(first, last - first);
    }
  }

  // Pages that nobody can touch while they are read. `beside` maps them in the file, for when reading fails: mapping
  // the file anew might fail as well.
  struct Guarded {
    PageIndex first;
    std::size_t count;
    std::byte* beside;
  };

  Guarded guard(PageIndex first, std::size_t count) {
    const Guarded run{first, count, map_beside(first, count)};
    try {
      watch_->guard(first, count);
    } catch (...) {
      unguard(run, 0);  // the kernel may have unmapped what was there before it failed
      throw;
    }
    return run;
  }

  // After `done` pages of the run have arrived. The others map the file again. Moving a mapping can fail only while the
  // process has as many as it may, and its threads are making room; they wait for these pages at worst.
  void unguard(const Guarded& run, std::size_t done) noexcept {
    if (done < run.count) {
      const std::size_t bytes = (run.count - done) * page_bytes_;
      std::byte* const from = run.beside + done * page_bytes_;
      while (::mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at(run.first) + done * page_bytes_) ==
             MAP_FAILED)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (done > 0) ::munmap(run.beside, done * page_bytes_);
  }

  std::byte* at(PageIndex page) const noexcept { return base_ + std::size_t{page} * page_bytes_; }
  off_t offset(PageIndex page) const noexcept { return static_cast<off_t>(std::size_t{page} * page_bytes_); }

  // False, and errno as if a read or a write had failed, where a use would have raised a signal. Kernels before 5.14
  // cannot tell.
  static bool populate(void* address, std::size_t bytes, int how) noexcept {
    int code = 0;
    do code = ::madvise(address, bytes, how) == 0 ? 0 : errno;
    while (code == EINTR);
    errno = code == EFAULT ? EIO : code;
    return code == 0 || code == EINVAL;
  }

  bool map_at(PageIndex page, int flags, int file) noexcept {
    void* const to = ::mmap(at(page), page_bytes_, PROT_READ | PROT_WRITE, flags, file, file < 0 ? 0 : offset(page));
    if (to == at(page)) return true;
    if (to != MAP_FAILED) ::munmap(to, page_bytes_);  // a kernel that does not know MAP_FIXED_NOREPLACE
    return false;
  }

  bool is_mapped(PageIndex page) const noexcept {
    unsigned char present[kHugePageBytes / kOsPageBytes];
    for (std::size_t done = 0; done < page_bytes_; done += kHugePageBytes)
      if (::mincore(at(page) + done, std::min(page_bytes_, kHugePageBytes), present) != 0) return false;
    return true;
  }

  enum class Put { done, refused, emptied };

  // Moves a mapping over the page. The kernel unmaps what is there before it moves, and may fail in between: `emptied`.
  // The file is then mapped in the hole, if that can be done; it has the bytes of every page that moves. After
  // `refused` the page is as it was.
  Put put(std::byte* beside, PageIndex page) noexcept {
    if (::mremap(beside, page_bytes_, page_bytes_, MREMAP_MAYMOVE | MREMAP_FIXED, at(page)) != MAP_FAILED)
      return Put::done;
    const int code = errno;
    ::munmap(beside, page_bytes_);
    const bool is_whole = is_mapped(page);
    if (!is_whole && map_at(page, MAP_SHARED | MAP_FIXED_NOREPLACE, spill_.mapping()))
      (void)::madvise(at(page), page_bytes_, MADV_DONTFORK);
    errno = code;
    return is_whole ? Put::refused : Put::emptied;
  }

  // The file is mapped beside the page first. mmap(MAP_FIXED) unmaps what is there before it calls the file system,
  // which may fail (a disk that died): the only copy of the page would be gone. Moving a mapping calls no file system.
  void map_file(PageIndex page) {
    if (put(map_beside(page, 1), page) == Put::refused) PAGEDOPT_THROW_VM("mremap", page_bytes_, mapping_advice(errno));
  }

  std::string mapping_advice(int code) const {
    return is_shortage(code) ? "vm.max_map_count may be too small for this many pages: raise it or page_bytes"
                             : spill_.advice(code);
  }

  std::byte* map_beside(PageIndex first, std::size_t count) {
    const std::size_t bytes = count * page_bytes_;
    void* const beside = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, spill_.mapping(), offset(first));
    if (beside == MAP_FAILED) PAGEDOPT_THROW_VM("mmap", bytes, mapping_advice(errno));
    (void)::madvise(beside, bytes, MADV_DONTFORK);
    return static_cast<std::byte*>(beside);
  }

  void write_zeros(PageIndex page) {
    std::byte* const zeros = ready_pages_.take();
    try {
      spill_.write(zeros, page_bytes_, offset(page));
    } catch (...) {
      ready_pages_.drop(zeros);
      throw;
    }
    ready_pages_.drop(zeros);
  }

  void allocate_once(PageIndex page) {
    if (spilled_[page].load(std::memory_order_acquire)) return;
    spill_.allocate(offset(page), page_bytes_);
    spilled_[page].store(true, std::memory_order_release);
  }

  std::size_t page_bytes_;
  std::size_t alignment_;
  std::size_t reserved_ = 0;
  std::byte* range_ = nullptr;
  std::byte* base_ = nullptr;
  std::size_t page_count_ = 0;
  ReadyPages ready_pages_;
  SpillFile spill_;
  Zeroed<std::atomic<bool>> spilled_{0};       // page has space in the spill file
  Zeroed<std::atomic<bool>> is_protected_{0};  // page arrived protected, when it was last prefetched
  std::atomic<bool> is_stepping_{false};
  const WatchWrites watch_writes_;
  std::unique_ptr<WriteWatch> watch_;  // none: writes are not watched
};

}  // namespace

bool Vm::write(PageIndex, std::byte* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
  return true;
}

void Vm::prefetch(const std::vector<PageIndex>& pages, std::size_t& done) {
  for (; done < pages.size(); ++done) prefetch(pages[done]);
}

std::size_t Vm::write_back(const std::vector<PageIndex>& pages) {
  std::size_t bytes = 0;
  for (const PageIndex page : pages) bytes += write_back(page);
  return bytes;
}

std::size_t Vm::demote(const std::vector<PageIndex>& pages, std::size_t& done) {
  std::size_t bytes = 0;
  for (; done < pages.size(); ++done) bytes += demote(pages[done]);
  return bytes;
}

void Vm::discard(const std::vector<PageIndex>& pages) {
  for (const PageIndex page : pages) discard(page);
}

bool Vm::clear(PageIndex, std::byte* from, std::size_t bytes) {
  std::memset(from, 0, bytes);
  return true;
}

std::unique_ptr<Vm> make_host_vm(std::size_t page_bytes, std::size_t reserve_bytes, std::string spill_directory,
                                 DirectIo direct, WatchWrites watch) {
  if (page_bytes < kOsPageBytes || (page_bytes & (page_bytes - 1)) != 0)
    throw std::invalid_argument("page_bytes must be a power of two of at least 4096, got " +
                                std::to_string(page_bytes));
  return std::make_unique<HostVm>(page_bytes, reserve_bytes, std::move(spill_directory), direct, watch);
}

}  // namespace pagedopt

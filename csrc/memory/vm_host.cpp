// RAM over disk by remapping in place. See docs/decisions.md, "2026-11-22: eviction maps the file over the page".
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/zeroed.h"
#include "memory/ready_pages.h"
#include "memory/spill_file.h"
#include "memory/unwatched.h"
#include "memory/vm.h"
#include "memory/write_watch.h"

namespace pagedopt {
namespace {

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
        if (!put(std::exchange(memory[done], nullptr), pages[done]))
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

  // The file has the bytes: they were written back, or are those that were read.
  std::size_t demote(const std::vector<PageIndex>& pages, std::size_t& done) override {
    for (; done < pages.size(); ++done) map_file(pages[done]);
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

  void discard(const std::vector<PageIndex>& pages) override {
    for (const PageIndex page : pages) discard(page);
  }

  void drop_cache(PageIndex page) noexcept override { spill_.drop_cache(offset(page), page_bytes_); }

  std::size_t lower_bytes() const noexcept override { return spill_.bytes(); }

  Measured measure(const std::vector<Tier>& tiers) const override {
    std::size_t upper_bytes = 0, cache_bytes = 0;
    for (PageIndex page = 0; page < tiers.size(); ++page)
      if (tiers[page] != Tier::fresh) (tiers[page] == Tier::upper ? upper_bytes : cache_bytes) += present_bytes(page);
    return {upper_bytes, cache_bytes};
  }

  // What a thread writes to the page meanwhile is a reason for another look (Arena::fault), not an error. True where
  // the file cannot be read: it is not known to differ.
  bool has_copy(PageIndex page) override {
    std::byte* const copy = ready_pages_.take();  // aligned as O_DIRECT wants it
    bool is_same = true;
    try {
      spill_.read(&copy, 1, page_bytes_, offset(page));
      const Unwatched unwatched;
      is_same = std::memcmp(copy, at(page), page_bytes_) == 0;
    } catch (const VmError&) {
    }
    ready_pages_.drop(copy);
    return is_same;
  }

  // The kernel may give a huge page to smaller pages together, when one of them is touched.
  bool is_empty(PageIndex page) override {
    return (page_bytes_ < kHugePageBytes || present_bytes(page) == 0) && (!spilled_[page] || keeps_space_);
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
      for (int tries = 0; !move_mapping(from, bytes, at(run.first) + done * page_bytes_); ++tries) pause(tries);
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

  std::size_t present_bytes(PageIndex page) const {
    std::vector<unsigned char> present(page_bytes_ / kOsPageBytes);
    if (::mincore(at(page), page_bytes_, present.data()) != 0) return 0;
    std::size_t bytes = 0;
    for (const unsigned char flag : present) bytes += (flag & 1U) * kOsPageBytes;
    return bytes;
  }

  bool is_mapped(PageIndex page) const noexcept {
    unsigned char present[kHugePageBytes / kOsPageBytes];
    for (std::size_t done = 0; done < page_bytes_; done += kHugePageBytes)
      if (::mincore(at(page) + done, std::min(page_bytes_, kHugePageBytes), present) != 0) return false;
    return true;
  }

  // What is there is of no use any more: should the kernel fail after it has unmapped it, nothing is lost.
  void discard(PageIndex page) {
    constexpr int kFresh = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (!map_at(page, kFresh | MAP_FIXED, -1) && (is_mapped(page) || !map_at(page, kFresh | MAP_FIXED_NOREPLACE, -1)))
      PAGEDOPT_THROW_VM("mmap", page_bytes_, mapping_advice(errno));
    advise(at(page), page_bytes_);
    if (!spilled_[page]) return;
    if (spill_.release(offset(page), page_bytes_))
      spilled_[page] = false;
    else
      keeps_space_ = true;
  }

  // Moves a mapping over the page; false if that fails, and the page is then as it was. The kernel unmaps what is there
  // before it moves, and may fail in between. The hole has to be filled, for anybody may read the page: `beside` is
  // still there, and moving it fails only while the process has as many mappings as it may (see unguard).
  bool put(std::byte* beside, PageIndex page) noexcept {
    for (int tries = 0; !move_mapping(beside, page_bytes_, at(page)); ++tries) {
      const int code = errno;
      if (is_mapped(page)) {
        ::munmap(beside, page_bytes_);
        errno = code;
        return false;
      }
      pause(tries);
    }
    return true;
  }

  static bool move_mapping(std::byte* from, std::size_t bytes, std::byte* to) noexcept {
    return ::mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED;
  }

  // Before another try. The first follow at once: whoever reads a hole without a pin is ended by a signal.
  static void pause(int tries) noexcept {
    constexpr int kAtOnce = 64;
    if (tries >= kAtOnce) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  // The file is mapped beside the page first. mmap(MAP_FIXED) unmaps what is there before it calls the file system,
  // which may fail (a disk that died): the only copy of the page would be gone. Moving a mapping calls no file system.
  void map_file(PageIndex page) {
    if (!put(map_beside(page, 1), page)) PAGEDOPT_THROW_VM("mremap", page_bytes_, mapping_advice(errno));
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
  std::atomic<bool> keeps_space_{false};       // the file system does not give back a part of a file
  std::atomic<bool> is_stepping_{false};
  const WatchWrites watch_writes_;
  std::unique_ptr<WriteWatch> watch_;  // none: writes are not watched
};

}  // namespace

std::unique_ptr<Vm> make_host_vm(std::size_t page_bytes, std::size_t reserve_bytes, std::string spill_directory,
                                 DirectIo direct, WatchWrites watch) {
  if (page_bytes < kOsPageBytes || (page_bytes & (page_bytes - 1)) != 0)
    throw std::invalid_argument("page_bytes must be a power of two of at least 4096, got " +
                                std::to_string(page_bytes));
  return std::make_unique<HostVm>(page_bytes, reserve_bytes, std::move(spill_directory), direct, watch);
}

}  // namespace pagedopt

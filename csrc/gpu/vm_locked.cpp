// Locked host memory that the device uses over the link, for a GPU that cannot migrate memory.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/error.h"
#include "gpu/fences.h"
#include "gpu/owned.h"
#include "gpu/vm_device.h"

namespace pagedopt {
namespace {

// There is one tier: nothing is ever asked to move.
class LockedVm final : public Vm {
 public:
  LockedVm(std::shared_ptr<Gpu> gpu, std::size_t page_bytes, std::size_t reserve_bytes)
      : gpu_(std::move(gpu)),
        page_bytes_(page_bytes),
        reserved_(round_up(std::max<std::size_t>(reserve_bytes, 1), page_bytes)),
        range_(reserve(reserved_), Unmap{reserved_}),
        uses_(*gpu_, false),
        plain_uses_(*gpu_, false),
        use_(reserved_ / page_bytes) {}

  ~LockedVm() override {
    try {  // not for the device: that would end a graph that is captured
      uses_.synchronize();
      plain_uses_.synchronize();
    } catch (const GpuError&) {  // the context is gone; so is what would be waited for
    }
    for (std::byte* piece : locked_) gpu_->unregister_host(piece);
  }

  std::byte* base() const noexcept override { return range_.get(); }
  std::size_t page_bytes() const noexcept override { return page_bytes_; }
  std::size_t page_count() const noexcept override { return reserved_ / page_bytes_; }
  bool keeps_copy(PageIndex) const noexcept override { return false; }
  bool can_move() const noexcept override { return false; }
  std::size_t lower_bytes() const noexcept override { return 0; }
  Measured measure(const std::vector<Tier>&) const override { return {}; }

  void commit(PageIndex first, PageIndex last) override {
    const std::size_t bytes = (last - first) * page_bytes_;
    if (::mprotect(at(first), bytes, PROT_READ | PROT_WRITE) != 0)
      PAGEDOPT_THROW_VM("mprotect", bytes, "no memory can be promised for more optimizer state");
    (void)::madvise(at(first), bytes, MADV_DONTFORK);
    gpu_->register_host(at(first), bytes);
    locked_.push_back(at(first));
  }

  void discard(const std::vector<PageIndex>& pages) override {
    finish_plain_uses();
    for (const PageIndex page : pages) {
      uses_.synchronize(use_[page]);
      std::memset(at(page), 0, page_bytes_);
    }
  }

  bool write(PageIndex page, std::byte* to, const std::byte* from, std::size_t bytes) override {
    finish_plain_uses();
    uses_.synchronize(use_[page]);
    std::memcpy(to, from, bytes);
    return true;
  }

  bool clear(PageIndex page, std::byte* from, std::size_t bytes) override {
    finish_plain_uses();
    uses_.synchronize(use_[page]);
    std::memset(from, 0, bytes);
    return true;
  }

  void leave(const PageIndex* pages, std::size_t count, StreamHandle stream) override {
    if (count == 0) return;
    const std::uint64_t fence = uses_.put_up(stream);
    for (std::size_t i = 0; i < count; ++i) use_[pages[i]] = fence;
  }

  bool populate(PageIndex) override { refuse(); }
  void prefetch(const std::vector<PageIndex>&, std::size_t&) override { refuse(); }
  std::size_t write_back(const std::vector<PageIndex>&) override { refuse(); }
  std::size_t demote(const std::vector<PageIndex>&, std::size_t&) override { refuse(); }
  bool place_lower(PageIndex) override { refuse(); }
  void drop_cache(PageIndex) noexcept override {}

 private:
  struct Unmap {
    std::size_t bytes;
    void operator()(std::byte* range) const noexcept { ::munmap(range, bytes); }
  };

  void finish_plain_uses() { plain_uses_.synchronize(plain_uses_.put_up_on_default_stream()); }

  [[noreturn]] static void refuse() { throw std::logic_error("this GPU cannot migrate memory: pages do not move"); }

  static std::byte* reserve(std::size_t bytes) {
    void* range = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) PAGEDOPT_THROW_VM("mmap", bytes, "no address space for the optimizer state (ulimit -v?)");
    return static_cast<std::byte*>(range);
  }

  std::byte* at(PageIndex page) const noexcept { return range_.get() + std::size_t{page} * page_bytes_; }

  std::shared_ptr<Gpu> gpu_;
  std::size_t page_bytes_;
  std::size_t reserved_;
  std::unique_ptr<std::byte, Unmap> range_;
  std::vector<std::byte*> locked_;
  Fences uses_, plain_uses_;
  std::vector<std::atomic<std::uint64_t>> use_;
};

}  // namespace

std::unique_ptr<Vm> make_locked_vm(std::shared_ptr<Gpu> gpu, std::size_t page_bytes, std::size_t reserve_bytes) {
  return std::make_unique<LockedVm>(std::move(gpu), page_bytes, reserve_bytes);
}

}  // namespace pagedopt

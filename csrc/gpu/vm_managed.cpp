// Device over host. Managed memory keeps one address and the driver moves it; what is added here is when: moves on
// streams of their own, fences between them and the kernels. A GPU that cannot migrate gets locked host memory instead
// (vm_locked.cpp).
#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>

#include "gpu/fences.h"
#include "gpu/owned.h"
#include "gpu/vm_device.h"

namespace pagedopt {
namespace {

std::byte* aligned(std::byte* address, std::size_t alignment) {
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  return address + (round_up(number, alignment) - number);
}

// Streams that take turns.
class Streams {
 public:
  Streams(Gpu& gpu, std::size_t count) {
    while (streams_.size() < count) streams_.emplace_back(gpu);
  }
  StreamHandle next() noexcept { return streams_[turn_++ % streams_.size()]; }

 private:
  std::deque<Stream> streams_;
  std::atomic<std::size_t> turn_{0};
};

// A prefetch into a stream that is idle is begun by the calling thread at once; into a busy one, by a thread of the
// driver once the stream is idle, so that the link waits in between [NVIDIA, "Maximizing Unified Memory Performance in
// CUDA"]. Prefetches depend on nothing that is on their streams, and few are under way at once.
constexpr std::size_t kInStreams = 4;

// Of as many threads as move pages to the host, each finds one that is idle: into a busy one it would not be the thread
// that moves them, but one of the driver's.
constexpr std::size_t kOutStreams = 2;

// A range of managed memory, no longer than the driver gives.
std::unique_ptr<GpuMemory> reserve_managed(Gpu& gpu, std::size_t& bytes, std::size_t page_bytes) {
  for (;; bytes /= 2) {
    try {
      return std::make_unique<GpuMemory>(gpu, Memory::managed, std::max(bytes, page_bytes));
    } catch (const GpuError&) {
      if (bytes < 4 * page_bytes) throw;
    }
  }
}

class ManagedVm final : public Vm {
 public:
  ManagedVm(std::shared_ptr<Gpu> gpu, std::size_t page_bytes, std::size_t reserve_bytes, bool direct)
      : gpu_(std::move(gpu)),
        page_bytes_(page_bytes),
        reserved_(reserve_bytes),
        range_(reserve_managed(*gpu_, reserved_, page_bytes)),
        base_(aligned(range_->get(), std::min(page_bytes, kHugePageBytes))),
        page_count_((std::max(reserved_, page_bytes) - static_cast<std::size_t>(base_ - range_->get())) / page_bytes),
        in_(*gpu_, kInStreams),
        out_(*gpu_, kOutStreams),
        side_(*gpu_),
        arrivals_(*gpu_, true),
        departures_(*gpu_, true),
        uses_(*gpu_, false),
        plain_uses_(*gpu_, false),
        arrival_(page_count_),
        departure_(page_count_),
        use_(page_count_),
        has_content_(page_count_),
        was_visited_(page_count_) {
    // All of it at once, untouched: the driver splits a range, and its blocks of 2 MiB, where advice ends.
    if (direct) is_taken(gpu_->map_for_device(base_, page_count_ * page_bytes_));
    // What is evicted is to stay on the host: there the driver moves it back by counts of its accesses.
    if (direct && gpu_->info().is_coherent) is_taken(gpu_->prefer(base_, page_count_ * page_bytes_, Place::host));
  }

  ~ManagedVm() override {
    try {  // not for the device: that would end a graph that is captured
      for (Fences* const fences : {&arrivals_, &departures_, &uses_, &plain_uses_}) fences->synchronize();
    } catch (const GpuError&) {  // the context is gone; so is what would be waited for
    }
  }

  std::byte* base() const noexcept override { return base_; }
  std::size_t page_bytes() const noexcept override { return page_bytes_; }
  std::size_t page_count() const noexcept override { return page_count_; }
  bool keeps_copy(PageIndex) const noexcept override { return false; }
  bool can_move() const noexcept override { return !gpu_->info().is_integrated; }  // in one memory it frees nothing
  std::size_t lower_bytes() const noexcept override { return 0; }                  // of a file: there is none
  Measured measure(const std::vector<Tier>&) const override { return {}; }  // nothing tells where a page really is
  void drop_cache(PageIndex) noexcept override {}
  Visits visits() const noexcept override { return {visited_pages_, arrived_pages_}; }

  void commit(PageIndex, PageIndex) override {}

  std::uint64_t refused_hints() const noexcept override { return refused_hints_; }

  // Two that use a fresh page at once make it ready once. A kernel that came to it where the device has no memory would
  // end the context [nvidia-uvm: service_fault_batch_block_locked].
  bool populate(PageIndex page) override {
    const std::lock_guard lock(populating_);
    if (has_content_[page]) return true;
    const StreamHandle in = in_.next();
    departures_.wait(departure_[page], in);
    const bool has_room = !can_move() || is_taken(gpu_->prefetch({run(page)}, Place::device, in));
    if (has_room) {
      gpu_->clear(at(page), page_bytes_, in);
      arrival_[page] = arrivals_.put_up(in);
      count_visit(page);
    } else {
      clear_on_host(page);
    }
    has_content_[page] = true;
    return has_room;
  }

  // Where there is no memory for all of them it is asked for page by page.
  void prefetch(const std::vector<PageIndex>& pages, std::size_t& done) override {
    const StreamHandle in = in_.next();
    done = take(pages, Place::device, in);
    const std::uint64_t fence = arrivals_.put_up(in);
    for (std::size_t i = 0; i < done; ++i) {
      arrival_[pages[i]] = fence;
      count_visit(pages[i]);
    }
  }

  // The driver copies when it moves the page, so there is nothing to write ahead: only the work on it is waited for.
  std::size_t write_back(const std::vector<PageIndex>& pages) override {
    for (const PageIndex page : pages) finish_work_on(page);
    return 0;
  }

  // The driver blocks the calling thread while it moves pages to the host, so the writer thread makes the call.
  std::size_t demote(const std::vector<PageIndex>& pages, std::size_t& done) override {
    for (const PageIndex page : pages) finish_work_on(page);
    done = move_to_host(pages);
    return done * page_bytes_;
  }

  // Up: a call of the driver, and its waking of a thread, cost a good part of the time that 8 MiB take. Down: the
  // driver maps what arrives for the CPU, in the calling thread and under the process's mmap_lock, so that less may be
  // more.
  std::size_t most_at_once(MoveKind kind) const noexcept override {
    return kind == MoveKind::prefetch ? 4 : pages_down_.load();
  }
  void set_pages_down(std::size_t at_once) noexcept override { pages_down_ = at_once; }

  bool place_lower(PageIndex page) override {
    if (move_to_host({page}) == 0) return false;
    clear_on_host(page);
    has_content_[page] = true;
    return true;
  }

  // Without memory on the device it is used over the link, and stays where it is.
  void settle(PageIndex page) override {
    if (!populate(page)) return;
    is_taken(gpu_->prefer(at(page), page_bytes_, Place::device));
    arrivals_.synchronize(arrival_[page]);
  }

  void begin_thread() override { gpu_->begin_thread(); }

  // There is no giving back of one page: its content is dropped, and it is cleared before it is used again. Nobody
  // waits: that comes on a stream behind all that used the pages, and their next use behind it.
  void discard(const std::vector<PageIndex>& pages) override {
    std::vector<PageIndex> used;
    std::uint64_t arrival = 0, use = 0;
    const std::uint64_t plain_use = plain_uses_.put_up_on_default_stream();
    for (const PageIndex page : pages) {
      if (!has_content_[page].exchange(false)) continue;
      used.push_back(page);
      arrival = std::max(arrival, arrival_[page].load());
      use = std::max(use, use_[page].load());
    }
    if (used.empty()) return;
    const StreamHandle out = out_.next();
    arrivals_.wait(arrival, out);
    uses_.wait(use, out);
    plain_uses_.wait(plain_use, out);
    is_taken(gpu_->discard(runs(used), out));
    const std::uint64_t fence = departures_.put_up(out);
    for (const PageIndex page : used) departure_[page] = fence;
  }

  bool write(PageIndex page, std::byte* to, const std::byte* from, std::size_t bytes) override {
    plain_uses_.wait(plain_uses_.put_up_on_default_stream(), side_);
    return use_aside(page, [&] { gpu_->copy(to, from, bytes, side_); });
  }

  bool clear(PageIndex page, std::byte* from, std::size_t bytes) override {
    plain_uses_.wait(plain_uses_.put_up_on_default_stream(), side_);
    return use_aside(page, [&] { gpu_->clear(from, bytes, side_); });
  }

  bool enter(PageIndex page, StreamHandle stream) override {
    const bool has_room = has_content_[page].load() || populate(page);
    arrivals_.wait(arrival_[page], stream);
    return has_room;
  }

  void leave(const PageIndex* pages, std::size_t count, StreamHandle stream) override {
    if (count == 0) return;
    const std::uint64_t fence = uses_.put_up(stream);
    for (std::size_t i = 0; i < count; ++i) use_[pages[i]] = fence;
  }

  bool is_arriving(PageIndex page) override { return !arrivals_.is_passed(arrival_[page]); }

 private:
  std::byte* at(PageIndex page) const noexcept { return base_ + std::size_t{page} * page_bytes_; }

  Run run(PageIndex page) const { return {at(page), page_bytes_}; }

  // Neighbours as one.
  std::vector<Run> runs(std::vector<PageIndex> pages) const {
    std::sort(pages.begin(), pages.end());
    std::vector<Run> runs;
    for (const PageIndex page : pages) {
      if (!runs.empty() && runs.back().begin + runs.back().bytes == at(page))
        runs.back().bytes += page_bytes_;
      else
        runs.push_back(run(page));
    }
    return runs;
  }

  bool is_taken(bool hint) {
    if (!hint) ++refused_hints_;
    return hint;
  }

  // Asks the driver to move them; returns how many it took, from the first on.
  std::size_t take(const std::vector<PageIndex>& pages, Place place, StreamHandle stream) {
    if (is_taken(gpu_->prefetch(runs(pages), place, stream))) return pages.size();
    if (pages.size() == 1) return 0;
    const auto is_left = [&](PageIndex page) { return !is_taken(gpu_->prefetch({run(page)}, place, stream)); };
    return static_cast<std::size_t>(std::find_if(pages.begin(), pages.end(), is_left) - pages.begin());
  }

  std::size_t move_to_host(const std::vector<PageIndex>& pages) {
    const StreamHandle out = out_.next();
    const std::size_t moved = take(pages, Place::host, out);
    departures_.synchronize(departures_.put_up(out));
    return moved;
  }

  // pre: fresh
  void clear_on_host(PageIndex page) {
    departures_.synchronize(departure_[page]);
    gpu_->clear_on_host(at(page), page_bytes_);
  }

  void count_visit(PageIndex page) {
    if (!was_visited_[page].exchange(true)) ++visited_pages_;
    ++arrived_pages_;
  }

  void finish_work_on(PageIndex page) {
    arrivals_.synchronize(arrival_[page]);
    uses_.synchronize(use_[page]);
  }

  // Work between the steps, complete at return. False as from enter().
  template <class Work>
  bool use_aside(PageIndex page, Work&& work) {
    uses_.wait(use_[page], side_);
    const bool has_room = enter(page, side_);
    work();
    leave(&page, 1, side_);
    uses_.synchronize(use_[page]);
    return has_room;
  }

  std::shared_ptr<Gpu> gpu_;
  std::size_t page_bytes_;
  std::size_t reserved_;
  std::unique_ptr<GpuMemory> range_;
  std::byte* base_;
  std::size_t page_count_;
  Streams in_, out_;  // moves up, moves down
  Stream side_;       // what is done aside
  Fences arrivals_, departures_, uses_;
  Fences plain_uses_;                                                  // by tensor operations on the default stream
  std::vector<std::atomic<std::uint64_t>> arrival_, departure_, use_;  // the page's last fence of each kind; 0: none
  std::vector<std::atomic<bool>> has_content_;                         // was zeroed, or used, since it was fresh
  std::vector<std::atomic<bool>> was_visited_;
  std::atomic<std::uint64_t> visited_pages_{0}, arrived_pages_{0}, refused_hints_{0};
  std::atomic<std::size_t> pages_down_{EvictWay{}.pages_at_once};
  std::mutex populating_;
};

}  // namespace

std::unique_ptr<Vm> make_device_vm(std::shared_ptr<Gpu> gpu, std::size_t page_bytes, std::size_t reserve_bytes,
                                   bool direct) {
  if (page_bytes < kOsPageBytes || (page_bytes & (page_bytes - 1)) != 0)
    throw std::invalid_argument("page_bytes must be a power of two of at least 4096, got " +
                                std::to_string(page_bytes));
  if (gpu->info().can_migrate) return std::make_unique<ManagedVm>(std::move(gpu), page_bytes, reserve_bytes, direct);
  if (gpu->info().shares_host_address) return make_locked_vm(std::move(gpu), page_bytes, reserve_bytes);
  throw GpuError(gpu->info().name +
                     " can neither migrate memory nor use host memory at the host's addresses: paged "
                     "state is not possible there. Take the classes without Paged in their name",
                 801);  // NotSupported
}

}  // namespace pagedopt

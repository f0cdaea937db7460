// The mover and who waits for it, on memory whose moves are held up where a test says so.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "memory/arena.h"
#include "memory/vm.h"
#include "sweep/sweep.h"

using namespace pagedopt;

namespace {

constexpr std::size_t kPageBytes = 64 << 10;
constexpr std::chrono::seconds kLongest{20};

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::abort();
}

// Pages of plain memory, all tiers the same; write_back waits while the door is shut, and fails where it is told to.
class HeldVm final : public Vm {
 public:
  HeldVm() : memory_(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kPages * kPageBytes))) {
    std::fill_n(memory_, kPages * kPageBytes, std::byte{0});
  }
  ~HeldVm() override { std::free(memory_); }

  void shut(bool is_shut) {
    const std::lock_guard lock(mutex_);
    is_shut_ = is_shut;
    changed_.notify_all();
  }
  void fail_from_now_on() {
    const std::lock_guard lock(mutex_);
    fails_ = true;
  }
  void wait_for_writer() {
    std::unique_lock lock(mutex_);
    require(changed_.wait_for(lock, kLongest, [this] { return is_waiting_; }), "the writer came to the door");
  }

  std::byte* base() const noexcept override { return memory_; }
  std::size_t page_bytes() const noexcept override { return kPageBytes; }
  std::size_t page_count() const noexcept override { return kPages; }
  void commit(PageIndex, PageIndex) override {}
  bool populate(PageIndex) override { return true; }
  void prefetch(const std::vector<PageIndex>& pages, std::size_t& done) override { done = pages.size(); }
  std::size_t write_back(const std::vector<PageIndex>& pages) override {
    std::unique_lock lock(mutex_);
    is_waiting_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !is_shut_; });
    is_waiting_ = false;
    if (fails_) throw VmError("a disk that died", EIO);
    return pages.size() * kPageBytes;
  }
  std::size_t demote(const std::vector<PageIndex>& pages, std::size_t& done) override {
    done = pages.size();
    return 0;
  }
  bool keeps_copy(PageIndex) const noexcept override { return true; }
  bool place_lower(PageIndex) override { return true; }
  void discard(const std::vector<PageIndex>&) override {}
  void drop_cache(PageIndex) noexcept override {}
  std::size_t lower_bytes() const noexcept override { return 0; }
  Measured measure(const std::vector<Tier>&) const override { return {}; }

 private:
  static constexpr std::size_t kPages = 8;
  std::byte* memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_shut_ = false, is_waiting_ = false, fails_ = false;
};

// A worker waits for a page whose room is just being made, when a new plan takes the place of the one that would have
// brought it: one in which that page is not due. It has to be brought all the same.
void a_worker_that_waits_is_not_forgotten_by_a_new_plan() {
  auto owned = std::make_unique<HeldVm>();
  HeldVm& vm = *owned;
  const auto arena = std::make_shared<Arena>(std::move(owned));
  float params[2][8] = {}, steps[2] = {};
  auto rows = std::make_shared<std::vector<Row>>(2);
  std::vector<std::shared_ptr<Extent>> extents;
  for (int i = 0; i < 2; ++i) {
    extents.push_back(arena->allocate(kPageBytes, false));
    Row& row = (*rows)[static_cast<std::size_t>(i)];
    row.param = params[i];
    row.step = &steps[i];
    row.slot[0] = extents.back()->data();
    row.slot[1] = extents.back()->data() + kPageBytes / 2;
    row.numel = 8;
  }
  Sweep sweep(rows, std::vector<Hyper>(1), arena);
  const PageIndex first = arena->page_of(extents[0]->data()), second = arena->page_of(extents[1]->data());
  require(arena->prefetch(extents[0]->data(), kPageBytes) == 1, "the first page is up");
  require(arena->evict(extents[1]->data(), kPageBytes) == 1, "the second page is down");
  arena->set_budget_pages(1);
  arena->attach();
  vm.shut(true);
  const Order order = arena->look().order;
  require(
      arena->submit(order.generation, order.cycle,
                    {{MoveKind::evict, Reason::budget, first, -1}, {MoveKind::prefetch, Reason::budget, second, -1}}),
      "the first plan is taken");
  vm.wait_for_writer();

  std::mutex mutex;
  std::condition_variable changed;
  bool is_pinned = false;
  std::thread worker([&] {
    arena->pin(second);
    const std::lock_guard lock(mutex);
    is_pinned = true;
    changed.notify_all();
  });
  while (arena->counters().stalled_pages.load() == 0) std::this_thread::yield();
  require(arena->submit(order.generation, order.cycle, {{MoveKind::prefetch, Reason::budget, second, 1}}),
          "the second plan is taken");
  vm.shut(false);
  {
    std::unique_lock lock(mutex);
    require(changed.wait_for(lock, kLongest, [&] { return is_pinned; }), "the worker gets its page");
  }
  worker.join();
  arena->unpin(second);
  arena->detach();
}

// An arena whose writer is at the door with a move that will fail.
struct Failing {
  Failing() {
    auto owned = std::make_unique<HeldVm>();
    vm = owned.get();
    arena = std::make_shared<Arena>(std::move(owned));
    extent = arena->allocate(kPageBytes, false), other = arena->allocate(kPageBytes, false);
    Row& row = (*rows)[0];
    row.param = param;
    row.step = &step;
    row.slot[0] = extent->data();
    row.slot[1] = extent->data() + kPageBytes / 2;
    row.numel = 8;
    sweep = std::make_unique<Sweep>(rows, hypers, arena);
    require(arena->prefetch(other->data(), kPageBytes) == 1, "another page is up");
    require(arena->evict(extent->data(), kPageBytes) == 1, "the step's page is down");
    arena->attach();
    vm->shut(true);
    vm->fail_from_now_on();
    const Order order = arena->look().order;
    const PageIndex page = arena->page_of(other->data());
    require(arena->submit(order.generation, order.cycle, {{MoveKind::evict, Reason::budget, page, -1}}), "a plan");
    vm->wait_for_writer();
  }
  ~Failing() { arena->detach(); }

  HeldVm* vm = nullptr;
  float param[8] = {}, step = 0;
  std::shared_ptr<std::vector<Row>> rows = std::make_shared<std::vector<Row>>(1);
  std::vector<Hyper> hypers = std::vector<Hyper>(1);
  std::shared_ptr<Arena> arena;
  std::shared_ptr<Extent> extent, other;
  std::unique_ptr<Sweep> sweep;
};

constexpr std::chrono::milliseconds kAtOnce{1500};  // a step would wait 5 s for a plan, the pager 20 s for an event

template <class Waits>
void go_on_at_once(Failing& failing, Waits&& waits, const char* what) {
  std::thread waiter(std::forward<Waits>(waits));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto begin = std::chrono::steady_clock::now();
  failing.vm->shut(false);
  waiter.join();
  require(std::chrono::steady_clock::now() - begin < kAtOnce, what);
  require(failing.arena->failure().find("a disk that died") != std::string::npos, "the arena says why");
}

void a_failing_move_wakes_the_pager() {
  Failing failing;
  Arena& arena = *failing.arena;
  const std::uint64_t seen = arena.wait(0, std::chrono::seconds(0));
  go_on_at_once(failing, [&] { require(arena.wait(seen, kLongest) != seen, "an event"); }, "the pager wakes at once");
}

void a_failing_move_ends_the_wait_for_a_plan() {
  Failing failing;
  failing.arena->set_budget_pages(1);  // from here on a step waits for another plan
  go_on_at_once(failing, [&] { failing.sweep->step(failing.hypers, 1.0, 1); }, "the step goes on at once");
}

}  // namespace

int main() {
  a_worker_that_waits_is_not_forgotten_by_a_new_plan();
  a_failing_move_wakes_the_pager();
  a_failing_move_ends_the_wait_for_a_plan();
  std::puts("ok");
}

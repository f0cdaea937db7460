#include "memory/arena.h"

#include <unistd.h>

#include <cstring>
#include <utility>

#include "base/error.h"
#include "memory/walk.h"

namespace pagedopt {
namespace {

// A pager that takes longer than this for a plan is not waited for: the step goes on with what is where.
constexpr std::chrono::seconds kLongestPlanning{5};

}  // namespace

Extent::~Extent() { arena_->release(begin_, bytes_, keep_); }

Arena::Arena(std::unique_ptr<Vm> vm)
    : vm_(std::move(vm)),
      pages_(vm_->page_count()),
      mover_(*vm_, pages_, schedule_, sync_, counters_, trace_),
      live_(vm_->page_count()),
      owner_pid_(::getpid()) {
  paged_.give(0, reserved_bytes());
  vm_->watch([this](PageIndex page) { return pages_.touch(page); });
}

Arena::~Arena() {
  if (!is_foreign()) {
    std::unique_lock lock(sync_.mutex);
    mover_.stop(lock);
    vm_->unwatch();  // it reads the page table
    return;
  }
  // The range and the threads are the parent's: there is nothing here to unmap or to join.
  mover_.abandon_threads();
  (void)vm_.release();
}

bool Arena::is_foreign() const noexcept { return ::getpid() != owner_pid_; }

void Arena::refuse_in_fork() const {
  if (is_foreign())
    throw ForkError("this optimizer state belongs to process " + std::to_string(owner_pid_) +
                    "; a forked child cannot use it: make the optimizer in the child, or use the spawn start method");
}

// ---- extents

std::shared_ptr<Extent> Arena::allocate(std::size_t bytes, bool keep) {
  refuse_in_fork();
  std::lock_guard lock(allocating_);
  const std::size_t size = round_up(std::max<std::size_t>(bytes, 1), kSlotAlignmentBytes);
  std::optional<std::size_t> offset;
  if (keep) {
    offset = kept_.take(size, kSlotAlignmentBytes);
    if (!offset) {
      const std::size_t run = round_up(size, page_bytes());
      if (const auto pages = paged_.take(run, page_bytes())) kept_.give(*pages, run);
      offset = kept_.take(size, kSlotAlignmentBytes);
    }
  } else {
    offset = paged_.take(size, kSlotAlignmentBytes);
  }
  if (!offset) {
    errno = ENOMEM;
    PAGEDOPT_THROW_VM("allocate", size,
                      "the arena's reserved range of " + std::to_string(reserved_bytes()) +
                          " bytes is full (on a GPU it is max_managed_fraction of what the card had free)");
  }
  try {
    commit_up_to(*offset + size);
    prepare(*offset, size, keep);
  } catch (...) {
    (keep ? kept_ : paged_).give(*offset, size);
    throw;
  }
  count_live(*offset, size, keep);
  ++extents_;
  extent_bytes_ += size;
  return std::make_shared<Extent>(shared_from_this(), base() + *offset, size, keep);
}

void Arena::commit_up_to(std::size_t bytes) {
  bytes = round_up(bytes, page_bytes());
  if (bytes <= committed_bytes_) return;
  vm_->commit(static_cast<PageIndex>(committed_bytes_ / page_bytes()), static_cast<PageIndex>(bytes / page_bytes()));
  committed_bytes_ = bytes;
}

void Arena::count_live(std::size_t offset, std::size_t bytes, bool keep) {
  for (PageIndex page = page_at(offset); page <= page_at(offset + bytes - 1); ++page)
    if (live_[page]++ == 0) pages_.set_live(page, keep);
}

// Before the pages count as live, so that a failure leaves nothing behind.
void Arena::prepare(std::size_t offset, std::size_t bytes, bool keep) {
  for (PageIndex page = page_at(offset); page <= page_at(offset + bytes - 1); ++page) {
    if (live_[page] > 0) continue;
    if (undiscarded_.count(page) > 0) {
      vm_->discard(page);
      undiscarded_.erase(page);
    }
    if (keep) vm_->settle(page);
  }
}

void Arena::release(std::byte* begin, std::size_t bytes, bool keep) noexcept {
  if (is_foreign()) return;
  std::lock_guard lock(allocating_);
  --extents_;
  extent_bytes_ -= bytes;
  try {
    give_back(begin, bytes, keep);
  } catch (const std::exception&) {  // what is not given back cannot be used again, either
    ++counters_.failed_moves;
  }
}

// An extent starts zeroed, so what it had of a page that stays is cleared now. What cannot be cleared is kept back.
void Arena::give_back(std::byte* begin, std::size_t bytes, bool keep) {
  discard_unused(begin, bytes);
  std::byte *from = begin, *to = begin + bytes;
  const PageIndex head = page_of(begin), tail = page_of(to - 1);
  if (live_[head] > 0 && !clear(head, begin, std::min(to, at(head + 1)))) from = std::min(to, at(head + 1));
  if (tail != head && live_[tail] > 0 && !clear(tail, at(tail), to)) to = at(tail);
  if (from < to)
    (keep ? kept_ : paged_).give(static_cast<std::size_t>(from - base()), static_cast<std::size_t>(to - from));
}

bool Arena::clear(PageIndex page, std::byte* begin, std::byte* end) noexcept {
  try {
    pin(page);
  } catch (const std::exception&) {
    return false;
  }
  try {
    if (!vm_->clear(page, begin, static_cast<std::size_t>(end - begin))) begin_lower(page);
    unpin(page);
    return true;
  } catch (const std::exception&) {
    unpin(page);
    return false;
  }
}

void Arena::discard_unused(const std::byte* begin, std::size_t bytes) {
  std::vector<PageIndex> dead;
  for (PageIndex page = page_of(begin); page <= page_of(begin + bytes - 1); ++page)
    if (--live_[page] == 0) dead.push_back(page);
  discard(dead);
}

void Arena::discard(const std::vector<PageIndex>& pages) {
  {
    std::unique_lock lock(sync_.mutex);
    for (const PageIndex page : pages) {
      pages_.set_wanted(page, false);
      while (!pages_.begin_discard(page)) sync_.moved.wait(lock);
    }
  }
  try {
    vm_->discard(pages);
  } catch (const std::exception&) {  // they keep their memory; nobody touches them before they are discarded again
    ++counters_.failed_moves;
    undiscarded_.insert(pages.begin(), pages.end());
  }
  std::lock_guard lock(sync_.mutex);
  for (const PageIndex page : pages) pages_.finish_discard(page);
  sync_.work.notify_all();
}

void Arena::write(std::byte* to, const std::byte* from, std::size_t bytes) {
  refuse_in_fork();
  const std::shared_lock by_hand(by_hand_);
  while (bytes > 0) {
    const PageIndex page = page_of(to);
    const std::size_t part = std::min(bytes, static_cast<std::size_t>(at(page + 1) - to));
    pin(page);
    if (!vm_->write(page, to, from, part)) begin_lower(page);
    unpin(page);
    to += part;
    from += part;
    bytes -= part;
    bool over = false;
    {
      std::lock_guard lock(sync_.mutex);
      const auto budget = mover_.budget();
      over = budget && pages_.upper() > static_cast<std::int64_t>(*budget);
    }
    if (over && mover_.move_down_now({{MoveKind::evict, Reason::budget, page, -1}}) > 0) nudge();
  }
}

std::size_t Arena::prefetch(std::byte* begin, std::size_t bytes) {
  refuse_in_fork();
  const std::shared_lock by_hand(by_hand_);
  std::size_t moved = 0;
  std::vector<PageIndex> pages;
  for (PageIndex page = page_of(begin); bytes > 0 && page <= page_of(begin + bytes - 1); ++page) {
    pages.push_back(page);
    if (pages.size() == vm_->most_at_once(MoveKind::prefetch) || page == page_of(begin + bytes - 1))
      moved += mover_.move_up_now(std::exchange(pages, {}));
  }
  nudge();
  return moved;
}

std::size_t Arena::evict(std::byte* begin, std::size_t bytes) {
  refuse_in_fork();
  const std::shared_lock by_hand(by_hand_);
  std::size_t moved = 0;
  std::vector<Move> moves;
  for (PageIndex page = page_of(begin); bytes > 0 && page <= page_of(begin + bytes - 1); ++page) {
    moves.push_back({MoveKind::evict, Reason::explicit_, page, -1});
    if (moves.size() >= vm_->most_at_once(MoveKind::evict) || page == page_of(begin + bytes - 1))
      moved += mover_.move_down_now(std::exchange(moves, {}));
  }
  nudge();
  return moved;
}

// ---- reading it

Ledger Arena::ledger() {
  std::lock_guard allocating(allocating_);
  std::lock_guard lock(sync_.mutex);
  Ledger sums{};
  sums.page_bytes = page_bytes();
  sums.reserved_pages = page_count();
  for (PageIndex page = 0; page < committed_bytes_ / page_bytes(); ++page) {
    if (!pages_.live(page)) continue;
    ++sums.allocated_pages;
    if (pages_.kept(page)) ++sums.kept_pages;
    switch (pages_.tier(page)) {
      case Tier::fresh: ++sums.fresh_pages; break;
      case Tier::upper: ++sums.upper_pages; break;
      case Tier::lower: ++sums.lower_pages; break;
    }
  }
  sums.lower_file_bytes = vm_->lower_bytes();
  sums.extents = extents_;
  sums.extent_bytes = extent_bytes_;
  sums.queued_moves = mover_.queued();
  sums.cycles = schedule_.cycle();
  sums.visits = vm_->visits();
  return sums;
}

std::vector<Tier> Arena::tiers() {
  std::lock_guard allocating(allocating_);
  std::vector<Tier> tiers(committed_bytes_ / page_bytes());
  for (PageIndex page = 0; page < tiers.size(); ++page)
    tiers[page] = pages_.is_leaving(page) ? Tier::lower : pages_.tier(page);
  return tiers;
}

Measured Arena::measure() {
  refuse_in_fork();
  return vm_->measure(tiers());
}

bool Arena::is_valid() {
  const std::unique_lock by_hand(by_hand_);
  std::lock_guard allocating(allocating_);
  std::unique_lock lock(sync_.mutex);
  mover_.pause(true);
  sync_.moved.wait(lock, [this] { return mover_.is_idle(); });
  const auto end = static_cast<PageIndex>(committed_bytes_ / page_bytes());
  bool is_valid = pages_.is_valid(end);
  for (PageIndex page = 0; page < end; ++page) is_valid &= (live_[page] > 0) == pages_.live(page);
  mover_.pause(false);
  return is_valid;
}

// ---- for the pager

std::optional<std::uint64_t> Arena::budget_pages() {
  std::lock_guard lock(sync_.mutex);
  return mover_.budget();
}

void Arena::set_evict_way(EvictWay way) {
  vm_->set_pages_down(way.pages_at_once);
  std::lock_guard lock(sync_.mutex);
  mover_.set_writers(way.threads);
}

EvictWay Arena::evict_way() {
  std::lock_guard lock(sync_.mutex);
  return {vm_->most_at_once(MoveKind::evict), static_cast<unsigned>(mover_.writers())};
}

void Arena::set_budget_pages(std::optional<std::uint64_t> pages) {
  std::lock_guard lock(sync_.mutex);
  if (mover_.budget() == pages) return;
  mover_.set_budget(pages);
  planned_generation_ = 0;
  sync_.announce();
}

std::uint64_t Arena::wait(std::uint64_t seen, std::chrono::nanoseconds timeout) {
  std::unique_lock lock(sync_.mutex);
  sync_.events.wait_for(lock, timeout, [&] { return sync_.event != seen; });
  return sync_.event;
}

void Arena::notify() {
  std::lock_guard lock(sync_.mutex);
  sync_.announce();
}

Order Arena::order() {
  std::lock_guard allocating(allocating_);
  Order order;
  {
    std::lock_guard lock(sync_.mutex);
    order = schedule_.order();
  }
  std::vector<bool> expected(committed_bytes_ / page_bytes());
  for (const PageIndex page : order.pages) expected[page] = true;
  for (PageIndex page = 0; page < expected.size(); ++page)
    if (!expected[page] && pages_.live(page) && !pages_.kept(page) && pages_.tier(page) == Tier::upper &&
        !pages_.is_leaving(page))
      order.idle.push_back(page);
  return order;
}

bool Arena::submit(std::uint64_t generation, std::uint64_t cycle, const std::vector<Move>& moves) {
  refuse_in_fork();
  std::lock_guard lock(sync_.mutex);
  if (!attached_ || mover_.is_held() || generation != schedule_.generation() || cycle != schedule_.cycle() ||
      !mover_.failure().empty())
    return false;
  for (const Move& move : moves)
    if (move.page >= page_count())
      throw std::invalid_argument("a move names page " + std::to_string(move.page) + " of " +
                                  std::to_string(page_count()));
  planned_generation_ = generation;
  planned_cycle_ = cycle;
  mover_.submit(cycle, moves);
  return true;
}

void Arena::attach() {
  refuse_in_fork();
  std::lock_guard lock(sync_.mutex);
  mover_.forget_failure();
  planned_generation_ = 0;
  attached_ = true;
  sync_.announce();
}

void Arena::detach() {
  if (is_foreign()) return;
  std::unique_lock lock(sync_.mutex);
  attached_ = false;
  mover_.stop(lock);
  sync_.announce();
  sync_.moved.notify_all();
}

void Arena::hold() {
  if (is_foreign()) return;
  std::unique_lock lock(sync_.mutex);
  mover_.hold(true);
  sync_.moved.wait(lock, [this] { return mover_.is_idle(); });
}

void Arena::let_go() {
  if (is_foreign()) return;
  std::lock_guard allocating(allocating_);
  std::lock_guard lock(sync_.mutex);
  if (!vm_->are_writes_safe())
    for (PageIndex page = 0; page < committed_bytes_ / page_bytes(); ++page) pages_.take_fresh(page);
  mover_.hold(false);
  planned_generation_ = 0;
  sync_.announce();
}

std::string Arena::failure() {
  std::lock_guard lock(sync_.mutex);
  return mover_.failure();
}

// ---- for sweeps

void Arena::add(PageWalk& walk) {
  refuse_in_fork();
  std::lock_guard lock(sync_.mutex);
  schedule_.add(walk);
  mover_.cancel();
  sync_.announce();
}

void Arena::remove(PageWalk& walk) {
  if (is_foreign()) return;
  std::lock_guard lock(sync_.mutex);
  schedule_.remove(walk);
  mover_.cancel();
  sync_.announce();
}

void Arena::nudge() noexcept {
  std::lock_guard lock(sync_.mutex);
  schedule_.disarm();
  sync_.work.notify_all();
  sync_.moved.notify_all();
}

PageTable::Pin Arena::pin_slowly(PageIndex page) {
  PageTable::Pin result = PageTable::Pin::wait;
  std::unique_lock lock(sync_.mutex);
  result = pages_.pin(page);
  if (result == PageTable::Pin::wait) {
    ++counters_.stalled_pages;
    const Trace::Span span(trace_, TraceKind::stall, page);
    if (waiting_++ == 0) stall_start_ = std::chrono::steady_clock::now();
    while ((result = pages_.pin(page)) == PageTable::Pin::wait) {
      if (pages_.wanted(page)) mover_.demand(page);  // again after each wait: a new plan forgets who waits
      sync_.moved.wait(lock);
    }
    if (--waiting_ == 0)
      counters_.stall_ns += static_cast<std::uint64_t>((std::chrono::steady_clock::now() - stall_start_).count());
  }
  return result;
}

void Arena::begin_lower(PageIndex page) {
  pages_.begin_lower(page);
  ++counters_.direct_pages;
  std::lock_guard lock(sync_.mutex);
  if (attached_) mover_.shrink_budget();
}

void Arena::use_in_place(PageIndex page) {
  ++counters_.direct_pages;
  try {
    vm_->use_in_place(page);
  } catch (const VmError& error) {
    unpin(page);
    throw VmError(std::string(error.what()) + "; " + mover_.outlook(error.code()), error.code());
  } catch (...) {
    unpin(page);
    throw;
  }
}

void Arena::check_readable(const std::byte* begin, std::size_t bytes) {
  refuse_in_fork();
  std::size_t lost_bytes = 0, lost_pages = 0;
  const std::byte* const end = begin + bytes;
  for (const std::byte* from = begin; from < end;) {
    const PageIndex page = page_of(from);
    const std::byte* const next = std::min<const std::byte*>(end, at(page + 1));
    const auto part = static_cast<std::size_t>(next - from);
    if (pages_.tier(page) == Tier::lower && !vm_->can_read(from, part)) {
      lost_bytes += part;
      ++lost_pages;
    }
    from = next;
  }
  if (lost_pages == 0) return;
  errno = EIO;
  PAGEDOPT_THROW_VM("reading", lost_bytes,
                    "of " + std::to_string(bytes) + " bytes of optimizer state these, in " +
                        std::to_string(lost_pages) + " pages, are lost unless the lower tier gives them again");
}

bool Arena::needs_plan(const PageWalk& walk) const {
  std::int64_t rising = 0;
  for (const PageIndex page : walk.order()) {
    const Tier tier = pages_.tier(page);
    if (tier == Tier::lower) return true;
    rising += tier == Tier::fresh ? 1 : 0;
  }
  const auto budget = mover_.budget();
  return budget && pages_.upper() + rising > static_cast<std::int64_t>(*budget);
}

void Arena::wait_for_plan(std::unique_lock<std::mutex>& lock) {
  const auto planned = [this] {
    return !attached_ || mover_.is_held() || !mover_.failure().empty() ||
           (planned_generation_ == schedule_.generation() && planned_cycle_ == schedule_.cycle());
  };
  if (planned()) return;
  const Trace::Span span(trace_, TraceKind::plan_wait);
  sync_.announce();
  sync_.moved.wait_for(lock, kLongestPlanning, planned);
}

bool Arena::has_something_to_move() const {
  const auto budget = mover_.budget();
  return pages_.lower() > 0 || (budget && pages_.upper() > static_cast<std::int64_t>(*budget));
}

Arena::Step::Step(Arena& arena, PageWalk& walk) : arena_(arena), walk_(walk) {
  arena.refuse_in_fork();
  one_at_a_time_ = std::unique_lock(arena.stepping_);
}

void Arena::Step::begin() {
  std::unique_lock lock(arena_.sync_.mutex);
  const std::uint64_t generation = arena_.schedule_.generation();
  arena_.schedule_.begin(walk_);
  arena_.vm_->set_stepping(true);
  begun_ = true;
  if (generation != arena_.schedule_.generation()) {
    arena_.mover_.cancel();
    arena_.sync_.announce();
  }
  ++arena_.counters_.steps;
  arena_.counters_.used_pages += walk_.order().size();
  if (arena_.attached_ && arena_.needs_plan(walk_)) arena_.wait_for_plan(lock);
  arena_.sync_.work.notify_all();
}

void Arena::Step::check() {
#if defined(PAGEDOPT_CHECKED)
  if (!arena_.is_valid()) throw std::logic_error("the arena is not valid after a step");
#endif
}

Arena::Step::~Step() {
  if (!begun_) return;
  std::unique_lock lock(arena_.sync_.mutex);
  arena_.schedule_.end();
  arena_.vm_->set_stepping(false);
  arena_.schedule_.disarm();
  arena_.sync_.work.notify_all();
  if (arena_.has_something_to_move()) arena_.sync_.announce();
}

}  // namespace pagedopt

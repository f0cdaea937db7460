#include "memory/arena.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "memory/walk.h"

namespace pagedopt {
namespace {

// A pager that takes longer than this for a plan is not waited for: the step goes on with what is where.
constexpr std::chrono::seconds kLongestPlanning{5};

void join(std::vector<std::thread> threads) {
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

Extent::~Extent() { arena_->release(begin_, bytes_, keep_); }

Arena::Arena(std::unique_ptr<Vm> vm)
    : vm_(std::move(vm)),
      pages_(vm_->page_count()),
      mover_(*vm_, pages_, schedule_, link_, sync_, counters_, trace_),
      pins_(*vm_, pages_, mover_, link_, sync_, counters_, trace_),
      extents_(*vm_, pages_, pins_, sync_, counters_),
      owner_pid_(::getpid()) {
  vm_->watch([this](PageIndex page) { return pages_.touch(page); });
}

Arena::~Arena() {
  if (!is_foreign()) {
    detach();
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
  const std::size_t size = round_up(std::max<std::size_t>(bytes, 1), kSlotAlignmentBytes);
  return std::make_shared<Extent>(shared_from_this(), extents_.allocate(size, keep), size, keep);
}

void Arena::release(std::byte* begin, std::size_t bytes, bool keep) noexcept {
  if (!is_foreign()) extents_.release(begin, bytes, keep);
}

// A page is pinned while it is written to, so it is in one place; then it goes, if the budget wants that.
void Arena::write(std::byte* to, const std::byte* from, std::size_t bytes) {
  refuse_in_fork();
  PAGEDOPT_PRE(owns(to, to + bytes));
  const std::shared_lock by_hand(by_hand_);
  while (bytes > 0) {
    const PageIndex page = page_of(to);
    const std::size_t part = std::min(bytes, static_cast<std::size_t>(at(page + 1) - to));
    pins_.pin(page);
    if (!vm_->write(page, to, from, part)) pins_.begin_lower(page);
    pins_.unpin(page);
    to += part;
    from += part;
    bytes -= part;
    bool over = false;
    {
      const Lock lock(sync_.mutex);
      over = mover_.is_over_budget();
    }
    if (over && mover_.evict_now({{MoveKind::evict, Reason::budget, page, -1}}) > 0) nudge();
  }
}

// ---- moves on request

std::vector<Move> Arena::moves_of(MoveKind kind, const std::byte* begin, std::size_t bytes) const {
  PAGEDOPT_PRE(owns(begin, begin + bytes));
  std::vector<Move> moves;
  if (bytes == 0) return moves;
  for (PageIndex page = page_of(begin); page <= page_of(begin + bytes - 1); ++page)
    moves.push_back({kind, Reason::explicit_, page, -1});
  return moves;
}

std::size_t Arena::prefetch(std::byte* begin, std::size_t bytes) {
  return move_by_hand(MoveKind::prefetch, begin, bytes);
}

std::size_t Arena::evict(std::byte* begin, std::size_t bytes) { return move_by_hand(MoveKind::evict, begin, bytes); }

std::size_t Arena::move_by_hand(MoveKind kind, const std::byte* begin, std::size_t bytes) {
  refuse_in_fork();
  return move_by_hand(kind, moves_of(kind, begin, bytes));
}

std::size_t Arena::move_by_hand(MoveKind kind, const std::vector<Move>& moves) {
  const std::shared_lock by_hand(by_hand_);
  std::size_t moved = 0;
  for (auto first = moves.begin(); first != moves.end();) {
    const auto left = static_cast<std::size_t>(moves.end() - first);
    const auto last = first + static_cast<std::ptrdiff_t>(std::min(left, vm_->most_at_once(kind)));
    const std::vector<Move> together(first, last);
    moved += kind == MoveKind::prefetch ? mover_.prefetch_now(together) : mover_.evict_now(together);
    first = last;
  }
  nudge();
  return moved;
}

// A mover that waits for work, and a worker that waits for a page, look again. Wake-ups that a running step was asked
// for are set anew by who still needs them.
void Arena::nudge() noexcept {
  const Lock lock(sync_.mutex);
  schedule_.disarm();
  sync_.work.notify_all();
  sync_.moved.notify_all();
}

void Arena::hold() {
  if (is_foreign()) return;
  Lock lock(sync_.mutex);
  mover_.hold(lock);
}

// Where plain writes are not watched, a fresh page may have content by now, so it counts as resident.
void Arena::let_go() {
  if (is_foreign()) return;
  const Lock extents(extents_.mutex);
  const Lock lock(sync_.mutex);
  if (!vm_->are_writes_safe())
    for (PageIndex page = 0; page < extents_.end(); ++page) pages_.take_fresh(page);
  mover_.let_go();
  link_.forget_plan();
  link_.announce();
}

// ---- for the pager

std::optional<std::uint64_t> Arena::budget_pages() {
  const Lock lock(sync_.mutex);
  return mover_.budget();
}

bool Arena::set_budget_pages(std::optional<std::uint64_t> pages, bool announce) {
  const Lock lock(sync_.mutex);
  if (mover_.budget() == pages) return false;
  mover_.set_budget(pages);
  link_.forget_plan();
  if (announce) link_.announce();
  return true;
}

void Arena::set_evict_way(EvictWay way) {
  vm_->set_pages_down(way.pages_at_once);
  const Lock lock(sync_.mutex);
  mover_.set_writers(way.threads);
}

EvictWay Arena::evict_way() {
  const Lock lock(sync_.mutex);
  return {vm_->most_at_once(MoveKind::evict), static_cast<unsigned>(mover_.writers())};
}

void Arena::notify() {
  const Lock lock(sync_.mutex);
  link_.announce();
}

void Arena::pass_moment() {
  if (is_foreign()) return;
  const Lock lock(sync_.mutex);
  Trace::Span span(trace_, TraceKind::moment);
  span.is(TraceKind::moment, mover_.budget().value_or(0) * page_bytes());
  schedule_.pass_moment();
  link_.wake();
}

bool Arena::submit(std::uint64_t generation, std::uint64_t cycle, const std::vector<Move>& moves) {
  refuse_in_fork();
  const Lock lock(sync_.mutex);
  if (mover_.is_held() || !link_.takes(generation, cycle)) return false;
  for (const Move& move : moves)
    if (move.page >= page_count())
      throw std::invalid_argument("a move names page " + std::to_string(move.page) + " of " +
                                  std::to_string(page_count()));
  link_.take(generation, cycle);
  mover_.submit(cycle, moves);
  return true;
}

void Arena::attach() {
  refuse_in_fork();
  const Lock lock(sync_.mutex);
  link_.attach();
}

// The threads need the lock to end, so they are joined without it.
void Arena::detach() {
  if (is_foreign()) return;
  std::vector<std::thread> threads;
  {
    const Lock lock(sync_.mutex);
    threads = mover_.stop();
    link_.detach();
  }
  join(std::move(threads));
}

std::string Arena::failure() {
  const Lock lock(sync_.mutex);
  return link_.failure();
}

// ---- for steps

void Arena::order_changed() {
  mover_.cancel();
  link_.announce();
}

void Arena::add(PageWalk& walk) {
  refuse_in_fork();
  const Lock lock(sync_.mutex);
  schedule_.add(walk);
  order_changed();
}

void Arena::remove(PageWalk& walk) {
  if (is_foreign()) return;
  const Lock lock(sync_.mutex);
  schedule_.remove(walk);
  order_changed();
}

std::size_t Arena::evict_all_of(const std::vector<PageIndex>& pages) {
  std::vector<Move> moves;
  for (const PageIndex page : pages)
    if (pages_.tier(page) == Tier::upper && !pages_.kept(page))
      moves.push_back({MoveKind::evict, Reason::explicit_, page, -1});
  return move_by_hand(MoveKind::evict, moves);
}

std::size_t Arena::release(PageWalk& walk) {
  refuse_in_fork();
  const std::unique_lock no_step(stepping_);
  {
    const Lock lock(sync_.mutex);
    schedule_.dismiss(walk);
    order_changed();
  }
  return evict_all_of(walk.order());
}

std::size_t Arena::release_all() {
  refuse_in_fork();
  const std::unique_lock no_step(stepping_);
  std::vector<PageIndex> pages;
  {
    const Lock extents(extents_.mutex);
    const Lock lock(sync_.mutex);
    schedule_.dismiss_all();
    order_changed();
    for (PageIndex page = 0; page < extents_.end(); ++page)
      if (pages_.live(page)) pages.push_back(page);
  }
  return evict_all_of(pages);
}

void Arena::restore(PageWalk& walk) {
  refuse_in_fork();
  const std::unique_lock no_step(stepping_);
  const Lock lock(sync_.mutex);
  schedule_.expect(walk);
  order_changed();
}

void Arena::restore_all() {
  refuse_in_fork();
  const std::unique_lock no_step(stepping_);
  const Lock lock(sync_.mutex);
  schedule_.expect_all();
  order_changed();
}

bool Arena::needs_plan(const PageWalk& walk) const {
  std::int64_t rising = 0;
  for (const PageIndex page : walk.order()) {
    const Tier tier = pages_.tier(page);
    if (tier == Tier::lower) return true;
    rising += tier == Tier::fresh ? 1 : 0;
  }
  return mover_.is_over_budget(rising);
}

// A failure, a hold, a detached pager and a plan all notify `moved` under the lock after they have changed what is
// looked at here.
void Arena::wait_for_plan(Lock& lock) {
  const auto awaits = [this]() PAGEDOPT_WANTS(&Sync::mutex) { return link_.awaits_plan() && !mover_.is_held(); };
  if (!awaits()) return;
  const Trace::Span span(trace_, TraceKind::plan_wait);
  const auto end = std::chrono::steady_clock::now() + kLongestPlanning;
  link_.announce();
  while (awaits() && sync_.moved.wait_until(lock, end)) {
  }
}

bool Arena::has_something_to_move() const { return pages_.lower() > 0 || mover_.is_over_budget(); }

Arena::Step::Step(Arena& arena, PageWalk& walk) : arena_(arena), walk_(walk) {
  arena.refuse_in_fork();
  if (arena.stepper_ == std::this_thread::get_id())
    throw std::logic_error("an optimizer with paged state cannot step inside another one's step");
  one_at_a_time_ = std::unique_lock(arena.stepping_);
  arena.stepper_ = std::this_thread::get_id();
}

// Moves queued for another order are forgotten: their positions mean other pages now.
void Arena::Step::begin() {
  Lock lock(arena_.sync_.mutex);
  const std::uint64_t generation = arena_.schedule_.generation();
  arena_.schedule_.begin(walk_);
  arena_.vm_->set_stepping(true);
  begun_ = true;
  if (generation != arena_.schedule_.generation()) {
    arena_.mover_.cancel();
    arena_.link_.announce();
  }
  ++arena_.counters_.steps;
  arena_.counters_.used_pages += walk_.order().size();
  if (arena_.link_.is_attached() && arena_.needs_plan(walk_)) arena_.wait_for_plan(lock);
  arena_.sync_.work.notify_all();
}

// All entries of the walk count as passed from here on, so what waits for that is woken. A plan is for a whole cycle:
// within one it stays good, however many optimizers step.
Arena::Step::~Step() {
  arena_.stepper_ = std::thread::id();
  if (!begun_) return;
  const Lock lock(arena_.sync_.mutex);
  const bool had_moments = arena_.schedule_.moment() > 0;
  arena_.schedule_.end();
  arena_.vm_->set_stepping(false);
  arena_.schedule_.disarm();
  arena_.sync_.work.notify_all();
  if (arena_.has_something_to_move() && arena_.link_.awaits_plan()) arena_.link_.announce();
  if (had_moments) arena_.link_.wake();
}

}  // namespace pagedopt

#include "memory/mover.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/threads.h"

namespace pagedopt {
namespace {

// Adds the time of its own life to a counter.
class Timed {
 public:
  explicit Timed(std::atomic<std::uint64_t>& ns) : ns_(ns), start_(std::chrono::steady_clock::now()) {}
  ~Timed() { ns_ += static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start_).count()); }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  std::atomic<std::uint64_t>& ns_;
  std::chrono::steady_clock::time_point start_;
};

std::vector<PageIndex> pages_of(const std::vector<Move>& moves) {
  std::vector<PageIndex> pages;
  for (const Move& move : moves) pages.push_back(move.page);
  return pages;
}

}  // namespace

Mover::~Mover() {
  std::unique_lock lock(sync_.mutex);
  stop(lock);
}

void Mover::submit(std::uint64_t cycle, const std::vector<Move>& moves) {
  if (!failure_.empty()) return cancel();
  if (!moves.empty()) start_threads();  // first: a thread that does not start leaves the old plan as it is
  // Pages in both plans stay `wanted` during the swap: a worker that arrives now would else use them in the lower tier.
  std::unordered_set<PageIndex> coming;
  for (const Move& move : moves) {
    if (move.kind != MoveKind::prefetch) continue;
    coming.insert(move.page);
    pages_.set_wanted(move.page, true);
  }
  forget(coming);
  cycle_ = cycle;
  for (const Move& move : moves) (move.kind == MoveKind::prefetch ? up_ : down_).push_back(move);
  sync_.work.notify_all();
  sync_.moved.notify_all();
}

void Mover::start_threads() {
  stopping_ = false;
  if (!reader_.joinable()) reader_ = start_thread("pagedopt-read", [this] { read_loop(); });
  while (writers_.size() < most_writers_) writers_.push_back(start_thread("pagedopt-write", [this] { write_loop(); }));
}

void Mover::cancel() { forget({}); }

void Mover::hold(bool is_held) {
  is_held_ = is_held;
  if (is_held) cancel();
}

template <class Work>
std::size_t Mover::run_now(Work&& work) {
  struct Running {
    explicit Running(Mover& mover) : mover(mover) {}
    ~Running() {
      const std::lock_guard lock(mover.sync_.mutex);
      --mover.running_;
      mover.sync_.moved.notify_all();
    }
    Mover& mover;
  };
  {
    const std::lock_guard lock(sync_.mutex);
    if (is_held_) return 0;
    ++running_;
  }
  const Running running(*this);
  return work();
}

std::size_t Mover::move_up_now(std::vector<PageIndex> pages) {
  return run_now([&] { return move_up(std::move(pages)); });
}

std::size_t Mover::move_down_now(std::vector<Move> moves) {
  return run_now([&] { return move_down(std::move(moves)); });
}

void Mover::forget(const std::unordered_set<PageIndex>& but) {
  const auto unwant = [&](PageIndex page) {
    if (but.count(page) == 0) pages_.set_wanted(page, false);
  };
  for (const Move& move : up_) unwant(move.page);
  for (const PageIndex page : demanded_) unwant(page);
  up_.clear();
  down_.clear();
  postponed_.clear();
  demanded_.clear();
  sync_.moved.notify_all();
}

void Mover::demand(PageIndex page) {
  if (std::find(demanded_.begin(), demanded_.end(), page) != demanded_.end()) return;
  demanded_.push_back(page);
  sync_.work.notify_all();
}

bool Mover::nothing_will_leave() {
  return writing_ == 0 && (down_.empty() || !is_due(down_.front(), Schedule::Waiter::reader));
}

std::optional<PageIndex> Mover::next_up() {
  while (!demanded_.empty() && !pages_.wanted(demanded_.front())) demanded_.pop_front();
  if (!demanded_.empty()) {
    // Compute waits for this page: over the budget rather than for ever, when no eviction can make room before it.
    if (!has_room() && !nothing_will_leave()) return std::nullopt;
    const PageIndex page = demanded_.front();
    demanded_.pop_front();
    return page;
  }
  while (!up_.empty() && !pages_.wanted(up_.front().page)) up_.pop_front();
  if (up_.empty() || !has_room() || !is_due(up_.front(), Schedule::Waiter::reader)) return std::nullopt;
  const PageIndex page = up_.front().page;
  up_.pop_front();
  return page;
}

std::optional<Move> Mover::next_postponed() {
  for (auto it = postponed_.begin(); it != postponed_.end(); ++it) {
    if (!schedule_.finished(it->page, Schedule::Waiter::writer)) continue;
    const Move move = *it;
    postponed_.erase(it);
    return move;
  }
  return std::nullopt;
}

std::optional<Move> Mover::next_down() {
  if (const auto move = next_postponed()) return move;
  while (!down_.empty() && is_due(down_.front(), Schedule::Waiter::writer)) {
    const Move move = down_.front();
    down_.pop_front();
    if (schedule_.finished(move.page, Schedule::Waiter::writer)) return move;
    postponed_.push_back(move);
    sync_.work.notify_all();  // the reader may have counted on its room
  }
  return std::nullopt;
}

std::vector<PageIndex> Mover::next_ups() {
  std::vector<PageIndex> pages;
  while (!is_paused_ && pages.size() < vm_.most_at_once(MoveKind::prefetch)) {
    const std::optional<PageIndex> page = next_up();
    if (!page) break;
    pages.push_back(*page);
    ++taken_;
  }
  taken_ = 0;
  return pages;
}

std::vector<Move> Mover::next_downs() {
  std::vector<Move> moves;
  while (!is_paused_ && moves.size() < vm_.most_at_once(MoveKind::evict)) {
    const std::optional<Move> move = next_down();
    if (!move) break;
    moves.push_back(*move);
  }
  return moves;
}

// An error here is told like one of a move; the thread could not go on as it should.
void Mover::begin_thread(std::unique_lock<std::mutex>& lock) {
  std::string failure;
  lock.unlock();
  try {
    vm_.begin_thread();
  } catch (const std::exception& error) {
    failure = told(error);
  }
  lock.lock();
  if (!failure.empty()) fail(failure);
}

void Mover::read_loop() {
  std::unique_lock lock(sync_.mutex);
  begin_thread(lock);
  while (!stopping_) {
    const std::vector<PageIndex> pages = next_ups();
    if (pages.empty()) {
      sync_.work.wait(lock);
      continue;
    }
    ++running_;
    lock.unlock();
    std::string failure;
    try {
      counters_.refused_moves += pages.size() - move_up(pages);
    } catch (const std::exception& error) {
      failure = told(error);
    }
    lock.lock();
    --running_;
    for (const PageIndex page : pages) pages_.set_wanted(page, false);
    if (!failure.empty()) fail(failure);
    if (found_no_memory_.exchange(false)) shrink_budget();
    sync_.moved.notify_all();
  }
}

void Mover::write_loop() {
  std::unique_lock lock(sync_.mutex);
  begin_thread(lock);
  while (!stopping_) {
    const std::vector<Move> moves = next_downs();
    if (moves.empty()) {
      sync_.work.wait(lock);
      continue;
    }
    ++running_;
    ++writing_;
    lock.unlock();
    std::string failure;
    try {
      counters_.refused_moves += moves.size() - move_down(moves);
    } catch (const std::exception& error) {
      failure = told(error);
    }
    lock.lock();
    --running_;
    --writing_;
    if (!failure.empty()) fail(failure);
    sync_.work.notify_all();
    sync_.moved.notify_all();
  }
}

std::string Mover::outlook(int code) const {
  const std::int64_t pages = pages_.lower();
  if (pages == 0 || is_shortage(code)) return "the optimizer state is whole";
  return std::to_string(static_cast<std::size_t>(pages) * vm_.page_bytes()) + " bytes of optimizer state in " +
         std::to_string(pages) + " pages are in the lower tier and may be unreadable, the rest is whole";
}

std::string Mover::told(const std::exception& error) const {
  const auto* const of_system = dynamic_cast<const VmError*>(&error);
  return of_system == nullptr ? error.what() : error.what() + ("; " + outlook(of_system->code()));
}

void Mover::fail(const std::string& what) {
  ++counters_.failed_moves;
  if (failure_.empty()) failure_ = what;
  cancel();
  sync_.announce();
}

void Mover::shrink_budget() {
  const auto held = static_cast<std::uint64_t>(std::max<std::int64_t>(1, pages_.upper()));
  budget_pages_ = std::min(budget_pages_.value_or(held), held);
  cancel();
  sync_.announce();
}

void Mover::arrived(PageIndex page, PageTable::Source source) {
  if (source == PageTable::Source::lower && pages_.take_cached(page)) vm_.drop_cache(page);
  pages_.finish_prefetch(page, source, vm_.keeps_copy(page));
  vm_.end_move(page);
  (source == PageTable::Source::zeros ? counters_.populated_bytes : counters_.prefetched_bytes) += vm_.page_bytes();
}

// What ends a move in the page table comes first, then who waits for it goes on (write_watch.h).
void Mover::cancel_arrival(PageIndex page, PageTable::Source source) noexcept {
  pages_.cancel_prefetch(page, source);
  vm_.end_move(page);
}

void Mover::cancel_leaving(PageIndex page, PageTable::Content content) noexcept {
  pages_.cancel_evict(page, content);
  vm_.keep(page);
}

void Mover::left(PageIndex page) noexcept {
  pages_.finish_evict(page);
  vm_.end_move(page);
}

// False if the page was used since its eviction began, and so stays.
bool Mover::begin_remap(PageIndex page) noexcept {
  if (pages_.begin_remap(page)) return true;
  vm_.keep(page);
  ++counters_.abandoned_evictions;
  return false;
}

// False if there is no memory for it in the upper tier. pre: the page's prefetch was begun
bool Mover::bring(PageIndex page, PageTable::Source source) {
  std::size_t done = 0;
  try {
    if (source == PageTable::Source::lower)
      vm_.prefetch({page}, done);
    else
      done = vm_.populate(page) ? 1 : 0;
  } catch (...) {
    cancel_arrival(page, source);
    throw;
  }
  if (done > 0) {
    arrived(page, source);
    return true;
  }
  found_no_memory_ = true;
  if (source == PageTable::Source::lower)
    cancel_arrival(page, source);
  else
    pages_.begin_lower(page);
  return false;
}

bool Mover::move_up(PageIndex page) {
  const Timed timed(counters_.read_ns);
  Trace::Span span(trace_, TraceKind::refused, page);
  const PageTable::Source source = pages_.begin_prefetch(page);
  if (source == PageTable::Source::none || !bring(page, source)) return false;
  span.is(source == PageTable::Source::zeros ? TraceKind::populate : TraceKind::prefetch, vm_.page_bytes());
  return true;
}

std::size_t Mover::move_up(std::vector<PageIndex> pages) {
  if (pages.size() == 1) return move_up(pages.front()) ? 1 : 0;
  const Timed timed(counters_.read_ns);
  std::sort(pages.begin(), pages.end());  // neighbours side by side
  Trace::Span span(trace_, TraceKind::refused, pages.front());
  std::size_t moved = 0, done = 0;
  std::vector<PageIndex> coming;
  coming.reserve(pages.size());
  try {
    for (const PageIndex page : pages) {
      const PageTable::Source source = pages_.begin_prefetch(page);
      if (source == PageTable::Source::lower) coming.push_back(page);
      if (source == PageTable::Source::zeros) moved += bring(page, source) ? 1 : 0;
    }
    if (!coming.empty()) vm_.prefetch(coming, done);
  } catch (...) {
    finish_arrivals(coming, done);
    throw;
  }
  finish_arrivals(coming, done);
  if (done < coming.size()) found_no_memory_ = true;
  moved += done;
  if (moved > 0) span.is(done == 0 ? TraceKind::populate : TraceKind::prefetch, moved * vm_.page_bytes());
  return moved;
}

void Mover::finish_arrivals(const std::vector<PageIndex>& pages, std::size_t done) {
  for (std::size_t i = 0; i < pages.size(); ++i)
    i < done ? arrived(pages[i], PageTable::Source::lower) : cancel_arrival(pages[i], PageTable::Source::lower);
}

std::optional<std::size_t> Mover::evict_content(PageIndex page, PageTable::Content content) {
  std::size_t copied = 0, done = 0;
  try {
    if (content != PageTable::Content::zeros)
      copied = vm_.demote({page}, done);
    else
      done = vm_.place_lower(page) ? 1 : 0;
  } catch (...) {
    cancel_leaving(page, content);
    throw;
  }
  if (done > 0) {
    left(page);
    return copied;
  }
  cancel_leaving(page, PageTable::Content::dirty);
  ++counters_.abandoned_evictions;
  return std::nullopt;
}

// Makes a page ready to leave; false if it was used meanwhile and stays.
bool Mover::write_back(PageIndex page, PageTable::Content content) {
  if (content != PageTable::Content::dirty) return true;
  try {
    counters_.evicted_bytes += vm_.write_back(page);
  } catch (...) {
    cancel_leaving(page, content);
    throw;
  }
  return begin_remap(page);
}

// False if it stays.
bool Mover::drop(PageIndex page, Reason reason, PageTable::Content content) {
  const std::optional<std::size_t> copied = evict_content(page, content);
  if (!copied) return false;
  counters_.evicted_bytes += *copied;
  if (content == PageTable::Content::clean) counters_.dropped_bytes += vm_.page_bytes();
  if (content != PageTable::Content::zeros) count_eviction(reason);
  return true;
}

bool Mover::move_down(PageIndex page, Reason reason) {
  const Timed timed(counters_.write_ns);
  Trace::Span span(trace_, TraceKind::refused, page);
  const PageTable::Content content = pages_.begin_evict(page);
  if (content == PageTable::Content::busy) return false;
  const TraceKind kind = content == PageTable::Content::dirty ? TraceKind::evict : TraceKind::drop;
  span.is(kind, vm_.page_bytes(), static_cast<std::uint8_t>(reason));
  return !write_back(page, content) || drop(page, reason, content);
}

// What was changed is copied together; the rest goes at once.
std::size_t Mover::move_down(std::vector<Move> moves) {
  if (moves.size() == 1) return move_down(moves.front().page, moves.front().reason) ? 1 : 0;
  const Timed timed(counters_.write_ns);
  std::sort(moves.begin(), moves.end(), [](const Move& a, const Move& b) { return a.page < b.page; });
  Trace::Span span(trace_, TraceKind::refused, moves.front().page);
  std::size_t moved = 0;
  std::vector<Move> going;
  going.reserve(moves.size());
  try {
    for (const Move& move : moves) {
      const PageTable::Content content = pages_.begin_evict(move.page);
      if (content == PageTable::Content::dirty)
        going.push_back(move);
      else if (content != PageTable::Content::busy)
        moved += drop(move.page, move.reason, content) ? 1 : 0;
    }
    if (!going.empty()) counters_.evicted_bytes += vm_.write_back(pages_of(going));
  } catch (...) {
    for (const Move& move : going) cancel_leaving(move.page, PageTable::Content::dirty);
    throw;
  }
  const bool any_dirty = !going.empty();
  moved += going.size();  // also those that are used again, and stay
  const auto used = [this](const Move& move) { return !begin_remap(move.page); };
  going.erase(std::remove_if(going.begin(), going.end(), used), going.end());
  moved -= demote(going);
  if (moved > 0)
    span.is(any_dirty ? TraceKind::evict : TraceKind::drop, moved * vm_.page_bytes(),
            static_cast<std::uint8_t>(moves.front().reason));
  return moved;
}

// Of pages that were written back and are nobody's now. Returns how many stay, for want of memory.
std::size_t Mover::demote(const std::vector<Move>& moves) {
  if (moves.empty()) return 0;
  std::size_t done = 0;
  const auto finish = [&] {
    for (std::size_t i = 0; i < done; ++i) {
      left(moves[i].page);
      count_eviction(moves[i].reason);
    }
    for (std::size_t i = done; i < moves.size(); ++i) cancel_leaving(moves[i].page, PageTable::Content::dirty);
  };
  try {
    counters_.evicted_bytes += vm_.demote(pages_of(moves), done);
  } catch (...) {
    finish();
    throw;
  }
  finish();
  counters_.abandoned_evictions += moves.size() - done;
  return moves.size() - done;
}

void Mover::count_eviction(Reason reason) {
  switch (reason) {
    case Reason::budget: ++counters_.evicted_budget_pages; break;
    case Reason::pressure: ++counters_.evicted_pressure_pages; break;
    case Reason::behind: ++counters_.evicted_behind_pages; break;
    case Reason::explicit_: ++counters_.evicted_explicit_pages; break;
  }
}

void Mover::stop(std::unique_lock<std::mutex>& lock) {
  cancel();
  stopping_ = true;
  sync_.work.notify_all();
  std::vector<std::thread> threads = std::exchange(writers_, {});
  threads.push_back(std::move(reader_));
  lock.unlock();
  for (std::thread& thread : threads)
    if (thread.joinable()) thread.join();
  lock.lock();
}

void Mover::abandon_threads() noexcept {
  new std::thread(std::move(reader_));  // never joined, nor destroyed
  new std::vector<std::thread>(std::move(writers_));
}

}  // namespace pagedopt

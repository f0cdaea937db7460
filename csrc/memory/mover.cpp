#include "memory/mover.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/threads.h"

namespace pagedopt {

// ---- plans

// A thread that does not start leaves the old plan as it is. Pages in both plans stay `wanted` during the swap: a
// worker that arrives now would else use them in the lower tier.
void Mover::submit(std::uint64_t cycle, const std::vector<Move>& moves) {
  PAGEDOPT_PRE(link_.failure().empty());
  if (!moves.empty()) start_threads();
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

// Workers that wait for a page that is no longer wanted look at it again, and use it where it is.
void Mover::forget(const std::unordered_set<PageIndex>& but) {
  for (const Move& move : up_)
    if (but.count(move.page) == 0) pages_.set_wanted(move.page, false);
  for (const PageIndex page : demanded_)
    if (but.count(page) == 0) pages_.set_wanted(page, false);
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

// ---- budget

void Mover::set_budget(std::optional<std::uint64_t> pages) {
  budget_pages_ = pages;
  sync_.work.notify_all();  // there may be room now
}

void Mover::shrink_budget() {
  const auto held = static_cast<std::uint64_t>(std::max<std::int64_t>(1, pages_.upper()));
  budget_pages_ = std::min(budget_pages_.value_or(held), held);
  cancel();
  link_.announce();
}

// ---- pauses

// `running_` changes under the lock alone, and every change to 0 is followed by a notification of `moved`.
void Mover::wait_until_idle(Lock& lock) {
  while (running_ != 0) sync_.moved.wait(lock);
}

void Mover::pause(Lock& lock) {
  is_paused_ = true;
  wait_until_idle(lock);
}

void Mover::resume() {
  is_paused_ = false;
  sync_.work.notify_all();
}

void Mover::hold(Lock& lock) {
  is_held_ = true;
  cancel();
  wait_until_idle(lock);
}

// ---- moves on request

// Counted in running_ before the lock is released, so hold() and pause() wait for it.
template <class Work>
std::size_t Mover::run_now(Work&& work) {
  struct Running {
    explicit Running(Mover& mover) : mover(mover) {}
    ~Running() {
      const Lock lock(mover.sync_.mutex);
      --mover.running_;
      mover.sync_.moved.notify_all();
    }
    Mover& mover;
  };
  {
    const Lock lock(sync_.mutex);
    if (is_held_) return 0;
    ++running_;
  }
  const Running running(*this);
  return work();
}

std::size_t Mover::prefetch_now(const std::vector<Move>& moves) {
  return run_now([&] { return transfers_.prefetch(moves); });
}

std::size_t Mover::evict_now(const std::vector<Move>& moves) {
  return run_now([&] { return transfers_.evict(moves); });
}

// ---- which move is next

// No eviction will make room before the step gets further: none is under way, and the next one is not due.
bool Mover::nothing_will_leave() {
  return writing_ == 0 && (down_.empty() || !is_due(down_.front(), Schedule::Waiter::reader));
}

// Compute waits for this page: over the budget rather than for ever, when no eviction can make room before it.
std::optional<Move> Mover::next_demanded() {
  if (!has_room() && !nothing_will_leave()) return std::nullopt;
  const PageIndex page = demanded_.front();
  demanded_.pop_front();
  return Move{MoveKind::prefetch, Reason::budget, page, -1};
}

// A page that is no longer wanted was moved, or forgotten, since it was queued.
std::optional<Move> Mover::next_up() {
  while (!demanded_.empty() && !pages_.wanted(demanded_.front())) demanded_.pop_front();
  if (!demanded_.empty()) return next_demanded();
  while (!up_.empty() && !pages_.wanted(up_.front().page)) up_.pop_front();
  if (up_.empty() || !has_room() || !is_due(up_.front(), Schedule::Waiter::reader)) return std::nullopt;
  const Move move = up_.front();
  up_.pop_front();
  return move;
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

// What one call of Vm moves together. The room of the pages chosen so far is spoken for (`taken_`): the page table
// counts them from begin_prefetch on, and there is one reader, so it looks again only after that.
std::vector<Move> Mover::next(MoveKind kind) {
  std::vector<Move> moves;
  while (!is_paused_ && moves.size() < vm_.most_at_once(kind)) {
    const std::optional<Move> move = kind == MoveKind::prefetch ? next_up() : next_down();
    if (!move) break;
    moves.push_back(*move);
    if (kind == MoveKind::prefetch) ++taken_;
  }
  if (kind == MoveKind::prefetch) taken_ = 0;
  return moves;
}

// ---- threads

void Mover::start_threads() {
  const auto start = [this](const char* name, MoveKind kind, std::uint64_t life) {
    return start_thread(name, [this, kind, life] { serve(kind, life); });
  };
  if (!reader_.joinable()) reader_ = start("pagedopt-read", MoveKind::prefetch, life_);
  writers_.reserve(most_writers_);  // first: a thread that found no place in the vector could not be joined
  while (writers_.size() < most_writers_) writers_.push_back(start("pagedopt-write", MoveKind::evict, life_));
}

// A thread of an earlier life ends at its next look, whether others were started meanwhile or not.
void Mover::serve(MoveKind kind, std::uint64_t life) {
  const std::string failure = begin_thread();
  Lock lock(sync_.mutex);
  if (!failure.empty()) fail(failure);
  while (life == life_) {
    const std::vector<Move> moves = next(kind);
    if (moves.empty()) {
      sync_.work.wait(lock);
      continue;
    }
    ++running_;
    if (kind == MoveKind::evict) ++writing_;
    lock.unlock();
    const std::string why = carry_out(kind, moves);
    lock.lock();
    if (!why.empty()) fail(why);
    finish(kind, moves);
  }
}

// An error here counts like one of a move; the thread could not go on as it should.
std::string Mover::begin_thread() {
  try {
    vm_.begin_thread();
  } catch (const std::exception& error) {
    return reason_of(error);
  }
  return {};
}

// Returns why it failed; empty if it did not.
std::string Mover::carry_out(MoveKind kind, const std::vector<Move>& moves) {
  try {
    const std::size_t moved = kind == MoveKind::prefetch ? transfers_.prefetch(moves) : transfers_.evict(moves);
    counters_.refused_moves += moves.size() - moved;
  } catch (const std::exception& error) {
    return reason_of(error);
  }
  return {};
}

// The pages are in their tiers when the notifications come. An eviction has made room, which the reader waits for.
void Mover::finish(MoveKind kind, const std::vector<Move>& moves) {
  --running_;
  if (kind == MoveKind::evict) {
    --writing_;
    sync_.work.notify_all();
  } else {
    for (const Move& move : moves) pages_.set_wanted(move.page, false);
    if (transfers_.take_shortage()) shrink_budget();
  }
  sync_.moved.notify_all();
}

std::vector<std::thread> Mover::stop() {
  cancel();
  ++life_;
  sync_.work.notify_all();
  std::vector<std::thread> threads = std::exchange(writers_, {});
  if (reader_.joinable()) threads.push_back(std::move(reader_));
  return threads;
}

// Nobody else is there in a forked child; the lock may be held by a thread that is not.
PAGEDOPT_UNCHECKED_LOCKS void Mover::abandon_threads() noexcept {
  new std::thread(std::move(reader_));  // never joined, nor destroyed
  new std::vector<std::thread>(std::move(writers_));
}

// ---- failures

void Mover::fail(const std::string& why) {
  ++counters_.failed_moves;
  cancel();
  link_.fail(why);
}

std::string Mover::outlook(int code) const {
  const std::int64_t pages = pages_.lower();
  if (pages == 0 || is_shortage(code)) return "the optimizer state is whole";
  return std::to_string(static_cast<std::size_t>(pages) * vm_.page_bytes()) + " bytes of optimizer state in " +
         std::to_string(pages) + " pages are in the lower tier and may be unreadable, the rest is whole";
}

std::string Mover::reason_of(const std::exception& error) const {
  const auto* const of_system = dynamic_cast<const VmError*>(&error);
  return of_system == nullptr ? error.what() : error.what() + ("; " + outlook(of_system->code()));
}

}  // namespace pagedopt

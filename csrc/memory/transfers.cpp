#include "memory/transfers.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"

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

// Neighbours side by side, so that one transfer takes several pages.
void sort(std::vector<Move>& moves) {
  std::sort(moves.begin(), moves.end(), [](const Move& a, const Move& b) { return a.page < b.page; });
}

std::vector<PageIndex> pages_of(const std::vector<Move>& moves) {
  std::vector<PageIndex> pages;
  pages.reserve(moves.size());
  for (const Move& move : moves) pages.push_back(move.page);
  return pages;
}

}  // namespace

bool Transfers::are_all(const Pages& pages, PageState state) const {
  return std::all_of(pages.begin(), pages.end(), [&](PageIndex page) { return pages_.state(page) == state; });
}

// ---- up

// begin_prefetch gives each page to this thread alone, and until end_arrivals() every user of the page waits. So the
// mapping can be replaced at any moment in between.
std::size_t Transfers::prefetch(std::vector<Move> moves) {
  if (moves.empty()) return 0;
  const Timed timed(counters_.read_ns);
  sort(moves);
  Trace::Span span(trace_, TraceKind::refused, moves.front().page);
  std::size_t populated = 0, done = 0;
  Pages coming;
  coming.reserve(moves.size());
  try {
    for (const Move& move : moves) {
      const PageTable::Source source = pages_.begin_prefetch(move.page);
      if (source == PageTable::Source::lower) coming.push_back(move.page);
      if (source == PageTable::Source::zeros) populated += populate(move.page) ? 1 : 0;
    }
    PAGEDOPT_PRE(are_all(coming, PageState::prefetching));
    if (!coming.empty()) vm_.prefetch(coming, done);
  } catch (...) {
    end_arrivals(coming, done);
    throw;
  }
  end_arrivals(coming, done);
  if (done < coming.size()) found_no_memory_ = true;
  const std::size_t moved = populated + done;
  if (moved > 0) span.is(done == 0 ? TraceKind::populate : TraceKind::prefetch, moved * vm_.page_bytes());
  return moved;
}

// False if there is no memory for it in the upper tier: Vm has put it into the lower one then. pre: begun, of zeros
bool Transfers::populate(PageIndex page) {
  PAGEDOPT_PRE(pages_.state(page) == PageState::prefetching);
  bool has_room = false;
  try {
    has_room = vm_.populate(page);
  } catch (...) {
    cancel_arrival(page, PageTable::Source::zeros);
    throw;
  }
  if (has_room) {
    arrived(page, PageTable::Source::zeros);
    return true;
  }
  found_no_memory_ = true;
  pages_.begin_lower(page);
  return false;
}

// The first `done` of them have arrived; the others are in the lower tier as before, where Vm has left them.
void Transfers::end_arrivals(const Pages& pages, std::size_t done) {
  for (std::size_t i = 0; i < pages.size(); ++i)
    i < done ? arrived(pages[i], PageTable::Source::lower) : cancel_arrival(pages[i], PageTable::Source::lower);
}

// The page table comes first, then who touched the page without a pin goes on (write_watch.h): they find a page that
// stays.
void Transfers::arrived(PageIndex page, PageTable::Source source) {
  if (source == PageTable::Source::lower && pages_.take_cached(page)) vm_.drop_cache(page);
  pages_.finish_prefetch(page, source, vm_.keeps_copy(page));
  vm_.end_move(page);
  (source == PageTable::Source::zeros ? counters_.populated_bytes : counters_.prefetched_bytes) += vm_.page_bytes();
}

void Transfers::cancel_arrival(PageIndex page, PageTable::Source source) noexcept {
  pages_.cancel_prefetch(page, source);
  vm_.end_move(page);
}

// ---- down

// Unchanged and fresh pages go at once: nothing has to be copied, and their room is free while the others are written.
// Pages that were used again while they were written stay, and count as moved.
std::size_t Transfers::evict(std::vector<Move> moves) {
  if (moves.empty()) return 0;
  const Timed timed(counters_.write_ns);
  sort(moves);
  Trace::Span span(trace_, TraceKind::refused, moves.front().page);
  std::size_t moved = 0;
  std::vector<Move> clean, dirty;
  clean.reserve(moves.size());
  dirty.reserve(moves.size());
  try {
    for (const Move& move : moves) {
      const PageTable::Content content = pages_.begin_evict(move.page);
      if (content == PageTable::Content::clean) clean.push_back(move);
      if (content == PageTable::Content::dirty) dirty.push_back(move);
      if (content == PageTable::Content::zeros) moved += place_lower(move.page) ? 1 : 0;
    }
    const std::vector<Move> dropped = std::exchange(clean, {});
    const std::size_t left = demote(dropped);
    counters_.dropped_bytes += left * vm_.page_bytes();
    moved += left;
    PAGEDOPT_PRE(are_all(pages_of(dirty), PageState::evicting));
    if (!dirty.empty()) counters_.evicted_bytes += vm_.write_back(pages_of(dirty));
  } catch (...) {
    cancel_leaving(clean);
    cancel_leaving(dirty);
    throw;
  }
  const bool any_dirty = !dirty.empty();
  const auto used = [this](const Move& move) { return !begin_remap(move.page); };
  const auto end = std::remove_if(dirty.begin(), dirty.end(), used);
  moved += static_cast<std::size_t>(dirty.end() - end);
  dirty.erase(end, dirty.end());
  moved += demote(dirty);
  if (moved > 0)
    span.is(any_dirty ? TraceKind::evict : TraceKind::drop, moved * vm_.page_bytes(),
            static_cast<std::uint8_t>(moves.front().reason));
  return moved;
}

// False if it stays: it has content by now, or the lower tier has no memory. It counts as changed then, which is safe
// whatever it is. pre: begun, of zeros
bool Transfers::place_lower(PageIndex page) {
  PAGEDOPT_PRE(pages_.state(page) == PageState::remapping);
  bool is_placed = false;
  try {
    is_placed = vm_.place_lower(page);
  } catch (...) {
    cancel_leaving(page, PageTable::Content::zeros);
    throw;
  }
  if (is_placed) {
    left(page);
    return true;
  }
  cancel_leaving(page, PageTable::Content::dirty);
  ++counters_.abandoned_evictions;
  return false;
}

// Of pages that nobody can pin any more, and of which the lower tier has the bytes. Returns how many left; the others
// stay, for want of memory.
std::size_t Transfers::demote(const std::vector<Move>& moves) {
  if (moves.empty()) return 0;
  PAGEDOPT_PRE(are_all(pages_of(moves), PageState::remapping));
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
  return done;
}

// As with arrived(): first the page table, then who waits.
void Transfers::left(PageIndex page) noexcept {
  pages_.finish_evict(page);
  vm_.end_move(page);
}

void Transfers::cancel_leaving(PageIndex page, PageTable::Content content) noexcept {
  pages_.cancel_evict(page, content);
  vm_.keep(page);
}

// Whatever they were, they count as changed: a copy more than needed is safe, one less is not.
void Transfers::cancel_leaving(const std::vector<Move>& moves) noexcept {
  for (const Move& move : moves) cancel_leaving(move.page, PageTable::Content::dirty);
}

// A page that is written back may be used meanwhile, which sets its dirty bit. What was written is old then, and the
// page stays. Setting the state and looking at the bit are one atomic step, so no use is overlooked.
bool Transfers::begin_remap(PageIndex page) noexcept {
  if (pages_.begin_remap(page)) return true;
  vm_.keep(page);
  ++counters_.abandoned_evictions;
  return false;
}

void Transfers::count_eviction(Reason reason) noexcept {
  switch (reason) {
    case Reason::budget: ++counters_.evicted_budget_pages; break;
    case Reason::pressure: ++counters_.evicted_pressure_pages; break;
    case Reason::behind: ++counters_.evicted_behind_pages; break;
    case Reason::explicit_: ++counters_.evicted_explicit_pages; break;
  }
}

}  // namespace pagedopt

#include "memory/extents.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/check.h"
#include "base/error.h"

namespace pagedopt {

Extents::Extents(Vm& vm, PageTable& pages, Pins& pins, Sync& sync, Counters& counters)
    : vm_(vm), pages_(pages), pins_(pins), sync_(sync), counters_(counters), live_(vm.page_count()) {
  paged_.give(0, vm.page_count() * vm.page_bytes());
}

// ---- extents that come

std::byte* Extents::allocate(std::size_t bytes, bool keep) {
  PAGEDOPT_PRE(bytes > 0 && bytes % kSlotAlignmentBytes == 0);
  const Lock lock(mutex);
  const std::size_t offset = take(bytes, keep);
  try {
    commit_up_to(offset + bytes);
    prepare(offset, bytes, keep);
  } catch (...) {
    ranges(keep).give(offset, bytes);
    throw;
  }
  add_live(offset, bytes, keep);
  ++count_;
  bytes_ += bytes;
  return vm_.base() + offset;
}

// Kept extents fill pages of their own, so that a page is kept or not as a whole.
std::size_t Extents::take(std::size_t bytes, bool keep) {
  std::optional<std::size_t> offset = ranges(keep).take(bytes, kSlotAlignmentBytes);
  if (!offset && keep) {
    const std::size_t run = round_up(bytes, vm_.page_bytes());
    if (const auto pages = paged_.take(run, vm_.page_bytes())) kept_.give(*pages, run);
    offset = kept_.take(bytes, kSlotAlignmentBytes);
  }
  if (offset) return *offset;
  errno = ENOMEM;
  PAGEDOPT_THROW_VM("allocate", bytes,
                    "the arena's reserved range of " + std::to_string(vm_.page_count() * vm_.page_bytes()) +
                        " bytes is full (on a GPU it is max_managed_fraction of what the card had free)");
}

void Extents::commit_up_to(std::size_t bytes) {
  bytes = round_up(bytes, vm_.page_bytes());
  if (bytes <= committed_bytes_) return;
  vm_.commit(page_at(committed_bytes_), page_at(bytes));
  committed_bytes_ = bytes;
}

// Before the pages count as live, so that a failure leaves nothing behind.
void Extents::prepare(std::size_t offset, std::size_t bytes, bool keep) {
  for (PageIndex page = page_at(offset); page <= page_at(offset + bytes - 1); ++page) {
    if (live_[page] > 0) continue;
    if (undiscarded_.count(page) > 0) {
      vm_.discard({page});
      undiscarded_.erase(page);
    }
    if (keep) vm_.settle(page);
  }
}

void Extents::add_live(std::size_t offset, std::size_t bytes, bool keep) {
  for (PageIndex page = page_at(offset); page <= page_at(offset + bytes - 1); ++page, ++touches_)
    if (live_[page]++ == 0) pages_.set_live(page, keep);
}

// ---- extents that go

void Extents::release(std::byte* begin, std::size_t bytes, bool keep) noexcept {
  const Lock lock(mutex);
  --count_;
  bytes_ -= bytes;
  try {
    give_back(static_cast<std::size_t>(begin - vm_.base()), bytes, keep);
  } catch (const std::exception&) {  // what is not given back cannot be used again, either
    ++counters_.failed_moves;
  }
}

// Pages that no extent touches any more.
std::vector<PageIndex> Extents::remove_live(std::size_t offset, std::size_t bytes) {
  std::vector<PageIndex> dead;
  for (PageIndex page = page_at(offset); page <= page_at(offset + bytes - 1); ++page, --touches_)
    if (--live_[page] == 0) dead.push_back(page);
  return dead;
}

// An extent starts zeroed, so what it had of a page that stays is cleared now. What cannot be cleared is kept back.
void Extents::give_back(std::size_t offset, std::size_t bytes, bool keep) {
  discard(remove_live(offset, bytes));
  std::size_t from = offset, to = offset + bytes;
  const PageIndex head = page_at(from), tail = page_at(to - 1);
  const std::size_t head_end = std::min(to, (std::size_t{head} + 1) * vm_.page_bytes());
  const std::size_t tail_begin = std::size_t{tail} * vm_.page_bytes();
  if (live_[head] > 0 && !clear(from, head_end)) from = head_end;
  if (tail != head && live_[tail] > 0 && !clear(tail_begin, to)) to = tail_begin;
  if (from < to) ranges(keep).give(from, to - from);
}

// Bytes of one page. The page is pinned meanwhile, for its other extents may be moved.
bool Extents::clear(std::size_t from, std::size_t to) noexcept {
  const PageIndex page = page_at(from);
  try {
    pins_.pin(page);
  } catch (const std::exception&) {
    return false;
  }
  bool is_clear = true;
  try {
    if (!vm_.clear(page, vm_.base() + from, to - from)) pins_.begin_lower(page);
  } catch (const std::exception&) {
    is_clear = false;
  }
  pins_.unpin(page);
  return is_clear;
}

// A move of such a page may be under way. It is waited for: begin_discard then claims the page, and no later move
// can begin, because the page is neither live nor at rest. Its users are gone with its extents.
void Extents::discard(const std::vector<PageIndex>& pages) {
  {
    Lock lock(sync_.mutex);
    for (const PageIndex page : pages) {
      pages_.set_wanted(page, false);
      while (!pages_.begin_discard(page)) sync_.moved.wait(lock);
    }
  }
  try {
    vm_.discard(pages);
  } catch (const std::exception&) {  // they keep their memory; nobody touches them before they are discarded again
    ++counters_.failed_moves;
    undiscarded_.insert(pages.begin(), pages.end());
  }
  const Lock lock(sync_.mutex);
  for (const PageIndex page : pages) pages_.finish_discard(page);
  sync_.work.notify_all();  // the mover may have waited for their room
}

const char* Extents::fault() {
  std::size_t touches = 0;
  for (PageIndex page = 0; page < end(); ++page) {
    touches += live_[page];
    if ((live_[page] > 0) != pages_.live(page)) return "a page is live without an extent, or not live with one";
    if (live_[page] == 0 && undiscarded_.count(page) == 0 && !vm_.is_empty(page))
      return "a page is not live, and has memory or disk behind it";
  }
  return touches == touches_ ? nullptr : "the live counts do not add up to the pages that extents touch";
}

}  // namespace pagedopt

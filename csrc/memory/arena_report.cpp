// What an arena says of itself: sums, a pager's view, measurements, and whether its invariants hold.
#include <algorithm>
#include <stdexcept>

#include "base/check.h"
#include "base/error.h"
#include "memory/arena.h"
#include "memory/walk.h"

namespace pagedopt {

Ledger Arena::ledger() {
  const Lock extents(extents_.mutex);
  const Lock lock(sync_.mutex);
  Ledger sums{};
  sums.page_bytes = page_bytes();
  sums.reserved_pages = page_count();
  for (PageIndex page = 0; page < extents_.end(); ++page) {
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
  sums.extents = extents_.count();
  sums.extent_bytes = extents_.bytes();
  sums.queued_moves = mover_.queued();
  sums.cycles = schedule_.cycle();
  sums.moments = schedule_.moment();
  sums.visits = vm_->visits();
  return sums;
}

std::vector<Tier> Arena::tiers() {
  const Lock extents(extents_.mutex);
  std::vector<Tier> tiers(extents_.end());
  for (PageIndex page = 0; page < tiers.size(); ++page) tiers[page] = next_tier(page);
  return tiers;
}

// Under both locks, so that order, live pages and budget are of one moment. A page's tier is read once: workers may pin
// fresh pages meanwhile, and what is said of a page has to agree with itself.
PlanInput Arena::look() {
  const Lock extents(extents_.mutex);
  const Lock lock(sync_.mutex);
  PlanInput seen;
  seen.order = schedule_.order();
  seen.budget_pages = mover_.budget();
  seen.tiers.resize(extents_.end());
  std::vector<bool> expected(extents_.end());
  for (const PageIndex page : seen.order.pages) expected[page] = true;
  for (PageIndex page = 0; page < extents_.end(); ++page) {
    const Tier tier = seen.tiers[page] = next_tier(page);
    if (tier != Tier::upper || expected[page]) continue;
    if (pages_.live(page) && !pages_.kept(page))
      seen.idle.push_back(page);
    else
      ++seen.kept_pages;
  }
  return seen;
}

Measured Arena::measure() {
  refuse_in_fork();
  return vm_->measure(tiers());
}

// ---- invariants

// by_hand_ keeps away moves on request and writes, the pause planned moves, and Extents::mutex extents that come or go.
// What is left are workers of a step, which pin and unpin.
std::string Arena::fault() {
  const std::unique_lock by_hand(by_hand_);
  const Lock extents(extents_.mutex);
  Lock lock(sync_.mutex);
  mover_.pause(lock);
  std::string fault = fault_at_rest();
  mover_.resume();
  return fault;
}

std::string Arena::fault_at_rest() {
  if (const char* fault = extents_.fault()) return fault;
  for (PageIndex page = 0; page < extents_.end(); ++page)
    if (const char* fault = pages_.fault(page)) return "page " + std::to_string(page) + ": " + fault;
  if (const char* fault = pages_.fault_of_sums(extents_.end())) return fault;
  for (PageIndex page = 0; page < extents_.end(); ++page)
    if (pages_.is_clean(page) && !vm_->has_copy(page) && pages_.is_clean(page))  // a plain write may come in between
      return "page " + std::to_string(page) + " is not dirty, and the lower tier has other bytes";
  return {};
}

void Arena::Step::check() {
#if defined(PAGEDOPT_CHECKED)
  const std::string fault = arena_.fault();
  if (!fault.empty()) throw std::logic_error("the arena is not valid after a step: " + fault);
  for (const PageIndex page : walk_.order())
    if (arena_.pages_.is_pinned(page)) throw std::logic_error("a page is pinned after the step that used it");
#endif
}

void Arena::check_readable(const std::byte* begin, std::size_t bytes) {
  refuse_in_fork();
  PAGEDOPT_PRE(owns(begin, begin + bytes));
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

}  // namespace pagedopt

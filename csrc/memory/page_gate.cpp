#include "memory/page_gate.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace pagedopt {

PageGate::PageGate(std::shared_ptr<Arena> arena, std::size_t tasks, std::size_t most_spans, const SpansOf& spans_of)
    : arena_(std::move(arena)), walk_(pages_of(tasks, spans_of), most_spans) {
  arena_->add(walk_);
}

PageGate::~PageGate() { arena_->remove(walk_); }

// Kept pages are left out: they never leave the upper tier, so a task need not pin them.
PageWalk::TaskPages PageGate::pages_of(std::size_t tasks, const SpansOf& spans_of) const {
  PageWalk::TaskPages all;
  std::vector<ByteSpan> spans;
  for (std::size_t task = 0; task < tasks; ++task) {
    std::vector<PageIndex> pages;
    spans.clear();
    spans_of(task, spans);
    for (const ByteSpan& span : spans) {
      if (span.begin == span.end || !arena_->owns(span.begin, span.end)) continue;
      for (PageIndex page = arena_->page_of(span.begin); page <= arena_->page_of(span.end - 1); ++page)
        if (!arena_->pages().kept(page)) pages.push_back(page);
    }
    all.add(std::move(pages));
  }
  return all;
}

void PageGate::unpin(const PageIndex* begin, const PageIndex* end) noexcept {
  for (; begin != end; ++begin) arena_->unpin(*begin);
}

// Progress comes before the pages: a worker that waits for a page holds none of the tasks before, so the mover may
// evict their pages to make room for it.
void PageGate::enter(std::size_t task, unsigned worker) {
  reach(task, worker);
  const PageIndex* page = walk_.begin(task);
  try {
    for (; page != walk_.end(task); ++page) arena_->pin(*page);
  } catch (...) {
    unpin(walk_.begin(task), page);
    throw;
  }
}

void PageGate::reach(std::size_t task, unsigned worker) noexcept {
  walk_.reach(task, worker);
  arena_->progressed(task);
}

void PageGate::idle(unsigned worker) noexcept { reach(std::numeric_limits<std::size_t>::max(), worker); }

bool PageGate::try_enter(std::size_t task) {
  const PageIndex* page = walk_.begin(task);
  while (page != walk_.end(task) && arena_->try_pin(*page)) ++page;
  if (page == walk_.end(task)) return true;
  unpin(walk_.begin(task), page);
  return false;
}

std::size_t PageGate::arriving_pages(std::size_t task) {
  const auto is_arriving = [this](PageIndex page) { return arena_->vm().is_arriving(page); };
  return static_cast<std::size_t>(std::count_if(walk_.begin(task), walk_.end(task), is_arriving));
}

// A device that cannot migrate memory uses all of it on the host.
bool PageGate::is_lower(PageIndex page) const {
  return !arena_->vm().can_move() || arena_->pages().tier(page) == Tier::lower;
}

bool PageGate::are_pinned(std::size_t first, std::size_t last) const {
  return std::all_of(walk_.begin(first), walk_.begin(last),
                     [this](PageIndex page) { return arena_->pages().is_pinned(page); });
}

bool PageGate::any_lower() const {
  return std::any_of(walk_.order().begin(), walk_.order().end(), [this](PageIndex page) { return is_lower(page); });
}

PageGate::Where PageGate::where(std::size_t task) const {
  PAGEDOPT_PRE(are_pinned(task, task + 1));
  if (walk_.begin(task) == walk_.end(task)) return Where::nowhere;
  const bool any = std::any_of(walk_.begin(task), walk_.end(task), [this](PageIndex page) { return is_lower(page); });
  return any ? Where::lower : Where::upper;
}

void PageGate::enter_on(std::size_t first, std::size_t last, StreamHandle stream) {
  PAGEDOPT_PRE(are_pinned(first, last));
  for (const PageIndex* page = walk_.begin(first); page != walk_.begin(last); ++page)
    if (!arena_->vm().enter(*page, stream)) arena_->begin_lower(*page);
}

void PageGate::leave_on(std::size_t first, std::size_t last, StreamHandle stream) {
  PAGEDOPT_PRE(are_pinned(first, last));
  const PageIndex* const begin = walk_.begin(first);
  arena_->vm().leave(begin, static_cast<std::size_t>(walk_.begin(last) - begin), stream);
  unpin(begin, walk_.begin(last));
  reach(last, 0);
}

}  // namespace pagedopt

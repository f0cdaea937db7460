#include "memory/schedule.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "memory/walk.h"

namespace pagedopt {

// A plan names positions of the order, so a new order gets a new generation: Arena::submit refuses plans for the old
// one.
void Schedule::changed() {
  ++generation_;
  entries_.clear();
  built_ = false;
}

void Schedule::end_cycle() {
  ++cycle_;
  moment_ = 0;
}

// Behind the running walk, whose entries keep their place in the order.
void Schedule::add(PageWalk& walk) {
  const std::size_t place = next_ + (active_ != nullptr ? 1 : 0);
  walks_.insert(walks_.begin() + static_cast<std::ptrdiff_t>(place), &walk);
  ++expected_;
  changed();
}

// Entries point into walks, so they are built anew before anybody looks at one again. pre: its step does not run
void Schedule::remove(PageWalk& walk) {
  const auto it = std::find(walks_.begin(), walks_.end(), &walk);
  if (it == walks_.end()) return;
  const auto index = static_cast<std::size_t>(it - walks_.begin());
  walks_.erase(it);
  last_step_.erase(&walk);
  if (index < expected_) --expected_;
  if (index < next_) --next_;
  if (next_ == expected_) next_ = 0;
  changed();
}

void Schedule::dismiss(PageWalk& walk) {
  const auto first = walks_.begin(), idle = first + static_cast<std::ptrdiff_t>(expected_);
  const auto it = std::find(first, idle, &walk);
  if (it == idle) return;
  if (static_cast<std::size_t>(it - first) < next_) --next_;
  std::rotate(it, it + 1, idle);
  --expected_;
  if (next_ >= expected_) next_ = 0;
  changed();
}

void Schedule::dismiss_all() {
  expected_ = next_ = 0;
  changed();
}

void Schedule::expect(PageWalk& walk) {
  const auto first = walks_.begin(), idle = first + static_cast<std::ptrdiff_t>(expected_);
  const auto it = std::find(idle, walks_.end(), &walk);
  if (it == walks_.end()) return;
  std::rotate(first + static_cast<std::ptrdiff_t>(next_), it, it + 1);
  ++expected_;
  changed();
}

void Schedule::expect_all() {
  expected_ = walks_.size();
  changed();
}

// The walk that steps comes first in the order, whatever was expected: its pages are needed now. Those it passed over
// become idle, behind the expected ones.
void Schedule::begin(PageWalk& walk) {
  ++clock_;
  const bool was_here = clock_ - std::exchange(last_step_[&walk], clock_) <= expected_ + 1;  // within a round
  if (expected_ == 0 || walks_[next_] != &walk) {
    const auto first = walks_.begin(), idle = first + static_cast<std::ptrdiff_t>(expected_);
    std::rotate(first, first + static_cast<std::ptrdiff_t>(next_), idle);
    const auto it = std::find(first, walks_.end(), &walk);
    const bool is_idle = it >= idle;
    expected_ = is_idle ? expected_ + 1 : static_cast<std::size_t>(idle - it);
    std::rotate(first, it, is_idle ? it + 1 : idle);  // behind the others come those that were passed over
    visiting_ = is_idle && !was_here;
    next_ = 0;
    end_cycle();
    changed();
  }
  active_ = &walk;
}

// A visiting walk leaves the order again; the others step as if it had not come.
void Schedule::end() {
  active_ = nullptr;
  ++next_;
  if (std::exchange(visiting_, false) && expected_ > 1) {
    const auto first = walks_.begin();
    std::rotate(first, first + 1, first + static_cast<std::ptrdiff_t>(expected_));
    --expected_;
    next_ = expected_;
    changed();
  }
  if (next_ < expected_) return;
  next_ = 0;
  end_cycle();
}

// Walks may share pages: a page is needed at its first place in the order. Within one walk each page stands once.
void Schedule::build() {
  std::unordered_set<PageIndex> seen;
  for (std::uint32_t s = 0; s < expected_; ++s) {
    const auto& pages = walks_[s]->order();
    for (std::size_t i = 0; i < pages.size(); ++i)
      if (expected_ == 1 || seen.insert(pages[i]).second) entries_.push_back({pages[i], s, i});
  }
  built_ = true;
}

Order Schedule::order() {
  if (!built_) build();
  Order order{generation_, cycle_, 0, 1, {}};
  for (const PageWalk* walk : walks_) order.held_pages = std::max(order.held_pages, walk->held_pages());
  order.pages.reserve(entries_.size());
  for (const Entry& entry : entries_) order.pages.push_back(entry.page);
  while (order.cursor < entries_.size() && passed(entries_[order.cursor])) ++order.cursor;
  return order;
}

bool Schedule::passed(const Entry& entry) const {
  if (entry.walk != next_) return entry.walk < next_;
  return active_ != nullptr && active_->passed(entry.index);
}

// The wake-up is set before progress is read for the second time, and a worker stores its progress before it reads the
// wake-up; both are sequentially consistent. So either the worker sees the wake-up, or progress is seen here.
bool Schedule::done(std::uint64_t cycle, std::int64_t position, Waiter waiter) {
  if (position < 0 || cycle != cycle_) return true;
  if (!built_) build();
  if (static_cast<std::size_t>(position) >= entries_.size()) return true;
  const Entry& entry = entries_[static_cast<std::size_t>(position)];
  if (passed(entry)) return true;
  if (active_ == nullptr || entry.walk != next_) return false;  // a step's begin and end wake everyone
  wake_after(active_->past_task(entry.index), waiter);
  return passed(entry);  // it may have got there while the wake-up was being set
}

// The same order of wake-up and progress as in done().
bool Schedule::finished(PageIndex page, Waiter waiter) {
  if (active_ == nullptr || active_->finished(page)) return true;
  wake_after(active_->last_task_of(page), waiter);
  return active_->finished(page);
}

// The earliest task that somebody waits for; a worker that passes it nudges, and whoever still waits sets it anew.
// Under the lock, so that nobody else lowers it in between.
void Schedule::wake_after(std::uint64_t task, Waiter waiter) {
  auto& wake = wake_[static_cast<int>(waiter)];
  wake.store(std::min(wake.load(), task), std::memory_order_seq_cst);
}

}  // namespace pagedopt

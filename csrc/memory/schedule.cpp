#include "memory/schedule.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "sweep/sweep.h"

namespace pagedopt {

void Schedule::changed() {
  ++generation_;
  entries_.clear();
  built_ = false;
}

void Schedule::add(Sweep& sweep) {
  const std::size_t place = next_ + (active_ != nullptr ? 1 : 0);
  sweeps_.insert(sweeps_.begin() + static_cast<std::ptrdiff_t>(place), &sweep);
  ++expected_;
  changed();
}

void Schedule::remove(Sweep& sweep) {
  const auto it = std::find(sweeps_.begin(), sweeps_.end(), &sweep);
  if (it == sweeps_.end()) return;
  const auto index = static_cast<std::size_t>(it - sweeps_.begin());
  sweeps_.erase(it);
  last_step_.erase(&sweep);
  if (index < expected_) --expected_;
  if (index < next_) --next_;
  if (next_ == expected_) next_ = 0;
  changed();
}

void Schedule::begin(Sweep& sweep) {
  ++clock_;
  const bool was_here = clock_ - std::exchange(last_step_[&sweep], clock_) <= expected_ + 1;  // within a round
  if (expected_ == 0 || sweeps_[next_] != &sweep) {
    const auto first = sweeps_.begin(), idle = first + static_cast<std::ptrdiff_t>(expected_);
    std::rotate(first, first + static_cast<std::ptrdiff_t>(next_), idle);
    const auto it = std::find(first, sweeps_.end(), &sweep);
    const bool is_idle = it >= idle;
    expected_ = is_idle ? expected_ + 1 : static_cast<std::size_t>(idle - it);
    std::rotate(first, it, is_idle ? it + 1 : idle);  // behind the others come those that were passed over
    visiting_ = is_idle && !was_here;
    next_ = 0;
    ++cycle_;
    changed();
  }
  active_ = &sweep;
}

void Schedule::end() {
  active_ = nullptr;
  ++next_;
  if (std::exchange(visiting_, false) && expected_ > 1) {
    const auto first = sweeps_.begin();
    std::rotate(first, first + 1, first + static_cast<std::ptrdiff_t>(expected_));
    --expected_;
    next_ = expected_;
    changed();
  }
  if (next_ < expected_) return;
  next_ = 0;
  ++cycle_;
}

void Schedule::build() {
  std::unordered_set<PageIndex> seen;
  for (std::uint32_t s = 0; s < expected_; ++s) {
    const auto& pages = sweeps_[s]->order();
    for (std::size_t i = 0; i < pages.size(); ++i)
      if (expected_ == 1 || seen.insert(pages[i]).second) entries_.push_back({pages[i], s, i});
  }
  built_ = true;
}

Order Schedule::order() {
  if (!built_) build();
  Order order{generation_, cycle_, 0, 1, {}, {}};
  for (const Sweep* sweep : sweeps_) order.window = std::max(order.window, sweep->window());
  order.pages.reserve(entries_.size());
  for (const Entry& entry : entries_) order.pages.push_back(entry.page);
  while (order.cursor < entries_.size() && passed(entries_[order.cursor])) ++order.cursor;
  return order;
}

bool Schedule::passed(const Entry& entry) const {
  if (entry.sweep != next_) return entry.sweep < next_;
  return active_ != nullptr && active_->passed(entry.index);
}

bool Schedule::done(std::uint64_t cycle, std::int64_t position, Waiter waiter) {
  if (position < 0 || cycle != cycle_) return true;
  if (!built_) build();
  if (static_cast<std::size_t>(position) >= entries_.size()) return true;
  const Entry& entry = entries_[static_cast<std::size_t>(position)];
  if (passed(entry)) return true;
  if (active_ == nullptr || entry.sweep != next_) return false;  // a step's begin and end wake everyone
  wake_after(active_->past_task(entry.index), waiter);
  return passed(entry);  // it may have got there while the wake-up was being set
}

bool Schedule::finished(PageIndex page, Waiter waiter) {
  if (active_ == nullptr || active_->finished(page)) return true;
  wake_after(active_->last_task_of(page), waiter);
  return active_->finished(page);
}

void Schedule::wake_after(std::uint64_t task, Waiter waiter) {
  auto& wake = wake_[static_cast<int>(waiter)];
  wake.store(std::min(wake.load(), task), std::memory_order_seq_cst);
}

}  // namespace pagedopt

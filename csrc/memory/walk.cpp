#include "memory/walk.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace pagedopt {

void PageWalk::TaskPages::add(std::vector<PageIndex> pages) {
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  pages_.insert(pages_.end(), pages.begin(), pages.end());
  begin_.push_back(pages_.size());
}

PageWalk::PageWalk(TaskPages pages, std::size_t runs) : pages_(std::move(pages)), progress_(kMostWorkers) {
  find_order(runs);
}

void PageWalk::find_order(std::size_t runs) {
  std::unordered_map<PageIndex, std::uint64_t> index_of;
  std::vector<std::uint64_t> last_task;
  for (std::size_t task = 0; task + 1 < pages_.begin_.size(); ++task) {
    for (const PageIndex* page = begin(task); page != end(task); ++page) {
      const auto [place, is_new] = index_of.try_emplace(*page, order_.size());
      if (is_new) {
        order_.push_back(*page);
        first_task_.push_back(task);
        last_task.push_back(task);
      }
      last_task[place->second] = task;
    }
  }
  // A page that one run goes through is done with before each of the runs has come to its next page.
  for (std::size_t index = 0; index < order_.size(); ++index) {
    const std::size_t ahead = index + runs;
    past_task_.push_back(ahead < order_.size() ? std::min(last_task[index], first_task_[ahead]) : last_task[index]);
    if (last_task[index] > past_task_[index]) used_again_.emplace(order_[index], last_task[index]);
  }
}

void PageWalk::start(unsigned workers, std::uint64_t also_held) {
  PAGEDOPT_PRE(workers <= kMostWorkers);
  for (unsigned worker = 0; worker < workers; ++worker) reach(0, worker);
  if (workers == workers_) return;
  workers_ = workers;
  std::uint64_t held_pages = 1;
  // The slowest worker is at the first task that keeps the step from being past entry `index`; the others are ahead.
  for (std::size_t index = 0, end = 0; index < order_.size(); ++index) {
    while (end < order_.size() && first_task_[end] < past_task_[index] + workers) ++end;
    held_pages = std::max<std::uint64_t>(held_pages, end - index);
  }
  held_pages_.store(held_pages + also_held, std::memory_order_relaxed);
}

std::uint64_t PageWalk::first_unfinished() const noexcept {
  PAGEDOPT_PRE(workers_ > 0);
  std::uint64_t first = std::numeric_limits<std::uint64_t>::max();
  for (unsigned worker = 0; worker < workers_; ++worker)
    first = std::min(first, progress_[worker].task.load(std::memory_order_seq_cst));
  return first;
}

}  // namespace pagedopt

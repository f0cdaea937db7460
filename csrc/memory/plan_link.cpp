#include "memory/plan_link.h"

namespace pagedopt {

void PlanLink::attach() {
  failure_.clear();
  forget_plan();
  is_attached_ = true;
  announce();
}

// A step that waits for a plan looks at is_attached_ again when it is woken, and goes on without one.
void PlanLink::detach() {
  is_attached_ = false;
  announce();
  sync_.moved.notify_all();
}

// The count makes sure that an event between a pager's last wait and its next one is not lost.
void PlanLink::announce() {
  ++event_;
  events_.notify_all();
}

void PlanLink::wake() {
  is_woken_ = true;
  events_.notify_all();
}

std::uint64_t PlanLink::wait(std::uint64_t seen, std::chrono::nanoseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  Lock lock(sync_.mutex);
  while (event_ == seen && !is_woken_ && events_.wait_until(lock, end)) {
  }
  is_woken_ = false;
  return event_;
}

bool PlanLink::takes(std::uint64_t generation, std::uint64_t cycle) const {
  return is_attached_ && failure_.empty() && generation == schedule_.generation() && cycle == schedule_.cycle();
}

void PlanLink::take(std::uint64_t generation, std::uint64_t cycle) {
  planned_generation_ = generation;
  planned_cycle_ = cycle;
}

bool PlanLink::awaits_plan() const {
  return is_attached_ && failure_.empty() &&
         (planned_generation_ != schedule_.generation() || planned_cycle_ != schedule_.cycle());
}

// Both notifications come after failure_ is set and under the lock, so whoever wakes sees it.
void PlanLink::fail(const std::string& why) {
  if (failure_.empty()) failure_ = why;
  announce();
  sync_.moved.notify_all();
}

}  // namespace pagedopt

// What passes between a pager and the arena beside the moves: events that wake the pager, which order its last plan was
// made for, and why no plan is carried out any more.
//
// Locks: all functions want Sync::mutex, but for wait(), which takes it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/annotations.h"
#include "memory/schedule.h"
#include "memory/sync.h"

namespace pagedopt {

class PlanLink {
 public:
  PlanLink(Sync& sync, const Schedule& schedule) : sync_(sync), schedule_(schedule) {}

  // A pager begins to plan, after an earlier failure too; it plans no more.
  void attach() PAGEDOPT_WANTS(&Sync::mutex);
  void detach() PAGEDOPT_WANTS(&Sync::mutex);
  bool is_attached() const PAGEDOPT_WANTS(&Sync::mutex) { return is_attached_; }

  // Order, cycle, budget, settings or health changed: the pager wakes and plans anew.
  void announce() PAGEDOPT_WANTS(&Sync::mutex);
  // The pager wakes and looks at the memory; it plans anew only if the budget changes.
  void wake() PAGEDOPT_WANTS(&Sync::mutex);
  // Waits until an event came after the `seen`-th, or a wake-up, or for so long. Returns how many events there were.
  std::uint64_t wait(std::uint64_t seen, std::chrono::nanoseconds timeout) PAGEDOPT_WANTS_FREE(&Sync::mutex);

  // Whether a plan for this order would be of use now; that it was taken; that another one is needed.
  bool takes(std::uint64_t generation, std::uint64_t cycle) const PAGEDOPT_WANTS(&Sync::mutex);
  void take(std::uint64_t generation, std::uint64_t cycle) PAGEDOPT_WANTS(&Sync::mutex);
  void forget_plan() PAGEDOPT_WANTS(&Sync::mutex) { planned_generation_ = kNone; }
  // Whether a plan for the order of now may still come.
  bool awaits_plan() const PAGEDOPT_WANTS(&Sync::mutex);

  // Moving failed: the first reason is kept. Wakes the pager, which reads it, and the steps, which wait for no plan
  // now.
  void fail(const std::string& why) PAGEDOPT_WANTS(&Sync::mutex);
  const std::string& failure() const PAGEDOPT_WANTS(&Sync::mutex) { return failure_; }

 private:
  static constexpr std::uint64_t kNone = 0;  // no order has this generation

  Sync& sync_;
  const Schedule& schedule_;
  Condition events_;
  std::uint64_t event_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;  // how many there were
  bool is_woken_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = false;
  bool is_attached_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = false;
  std::uint64_t planned_generation_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = kNone;
  std::uint64_t planned_cycle_ PAGEDOPT_GUARDED_BY(&Sync::mutex) = 0;
  std::string failure_ PAGEDOPT_GUARDED_BY(&Sync::mutex);
};

}  // namespace pagedopt

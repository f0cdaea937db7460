// Every counter of an arena, once: name, unit and meaning. Struct, Python dict, snapshot and monitor derive from this
// table.
#pragma once

#include <atomic>
#include <cstdint>

namespace pagedopt {

// clang-format off
#define PAGEDOPT_COUNTERS(X)                                                                              \
  X(prefetched_bytes,    "bytes", "read from the lower tier into the upper one")                          \
  X(populated_bytes,     "bytes", "given memory for the first time; no content had to move")              \
  X(evicted_bytes,       "bytes", "written to the lower tier")                                            \
  X(dropped_bytes,       "bytes", "evicted without a write: unchanged since they were read")              \
  X(evicted_budget_pages,   "pages", "evicted to make room within the budget")                            \
  X(evicted_pressure_pages, "pages", "evicted because the budget shrank")                                 \
  X(evicted_behind_pages,   "pages", "evicted behind the cursor")                                         \
  X(evicted_explicit_pages, "pages", "evicted on request")                                                \
  X(refused_moves,       "moves", "not made: the page was pinned, gone, or already there")                \
  X(refused_hints,       "hints", "to a GPU's driver that it had no memory for: pages stay where they are")\
  X(abandoned_evictions, "pages", "kept: the page was used meanwhile, or had no room")                    \
  X(failed_moves,        "moves", "failed in the operating system")                                       \
  X(steps,               "steps", "optimizer steps over this arena")                                      \
  X(used_pages,          "pages", "asked for by steps")                                                   \
  X(stalled_pages,       "pages", "that a step waited for")                                               \
  X(direct_pages,        "pages", "used from the lower tier, without being moved")                        \
  X(staged_in_bytes,     "bytes", "copied from the lower tier into windows, for use there")               \
  X(staged_out_bytes,    "bytes", "copied back from windows into the lower tier")                         \
  X(stall_ns,            "ns",    "during which at least one worker of a step waited for a page")         \
  X(read_ns,             "ns",    "the reader thread spent moving pages up")                              \
  X(write_ns,            "ns",    "the writer thread spent moving pages down")
// clang-format on

struct Counters {
#define PAGEDOPT_COUNTER_FIELD(name, unit, meaning) std::atomic<std::uint64_t> name{0};
  PAGEDOPT_COUNTERS(PAGEDOPT_COUNTER_FIELD)
#undef PAGEDOPT_COUNTER_FIELD

  // Calls fn(name, unit, meaning, value) for every counter.
  template <class Fn>
  void each(Fn&& fn) const {
#define PAGEDOPT_COUNTER_CALL(name, unit, meaning) fn(#name, unit, meaning, name.load(std::memory_order_relaxed));
    PAGEDOPT_COUNTERS(PAGEDOPT_COUNTER_CALL)
#undef PAGEDOPT_COUNTER_CALL
  }
};

}  // namespace pagedopt

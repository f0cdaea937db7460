// What does not fit the device can be moved in and out, be used over the link where it is, or pass through a ring of
// windows: which is fastest here.
#pragma once

#include <array>
#include <memory>

#include "gpu/gpu.h"
#include "memory/arena.h"

namespace pagedopt {

// Seconds that a step over a few pages of state takes each way. Moves in and out run beside each other, so that the
// slower of them counts.
struct PlacementTimes {
  double stream_s, direct_s, staged_s;
};

// Seconds of a staged step over a few pages by each of kCopyHints; infinite for one that the runtime refuses.
using HintTimes = std::array<double, kCopyHints.size()>;

// The ways in which pages may be moved to the host. A call for fewer pages holds the process's mmap_lock for less long
// and lets the copy of the next begin sooner; two threads map what arrives beside each other.
inline constexpr std::array kEvictWays = {EvictWay{1, 1}, EvictWay{2, 1}, EvictWay{4, 1}, EvictWay{1, 2},
                                          EvictWay{2, 2}};
// Seconds in which some pages are moved to the host by each of these; infinite for one that does not work.
using EvictTimes = std::array<double, kEvictWays.size()>;

// All take some 50 ms and 200 MiB of the device for a moment. pre: arena->vm().can_move(), of this GPU, nothing runs
// in it

// Lets the GPU copy state by the fastest hint from here on.
HintTimes choose_copy_hint(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena);
// Lets the arena's pages be moved to the host in the fastest way from here on.
EvictTimes choose_evict_way(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena);
// Both, and then measures each placement.
PlacementTimes measure_placement(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena);

}  // namespace pagedopt

// What does not fit the device can be moved in and out, or be used over the link where it is: which is faster here.
#pragma once

#include <memory>

#include "arena.h"
#include "gpu.h"

namespace pagedopt {

// Seconds that a step over a few pages of state takes either way. Moves in and out run beside each other, so that the
// slower of them counts.
struct PlacementTimes {
  double stream_s, direct_s;
};

// Takes some 20 ms and 96 MiB of the device for a moment. pre: arena->vm().can_move(), of this GPU, nothing runs in it
PlacementTimes measure_placement(const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena);

}  // namespace pagedopt

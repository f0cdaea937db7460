// The one lock of an arena's slow paths and what is waited for under it. Fast paths (pin, unpin of a resident page)
// take no lock: they work on the page's word (pages.h).
#pragma once

#include "base/mutex.h"

namespace pagedopt {

struct Sync {
  Mutex mutex;
  Condition moved;  // a page finished moving, a plan arrived, or moves were cancelled: compute waits here
  Condition work;   // there may be something to move: the mover's threads wait here
};

}  // namespace pagedopt

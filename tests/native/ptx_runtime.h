// Launches of nvcc's host code, run by the interpreter: to be linked with an object of nvcc in place of the CUDA
// runtime. What it runs, the environment says:
//   PTX_FILE=path                                      the PTX of the same source
//   PTX_APPROXIMATE=exactly|below|above|drawn       where approximate instructions are, of the unit they may be off
//   PTX_ORDER=seed                                  draws which warps and lanes go first, and when lanes part
#pragma once

#include "ptx_counts.h"

namespace ptx {

// Of all launches from here on accesses are counted too, which takes time; since the last call, and none before the
// first.
Counts take_counts();

}  // namespace ptx

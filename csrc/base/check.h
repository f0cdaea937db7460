// Preconditions, as code. Builds with PAGEDOPT_CHECKED (debug and sanitizer builds) abort where one does not hold, also
// in functions that must not throw; other builds evaluate nothing.
#pragma once

#if defined(PAGEDOPT_CHECKED)
#include <cstdio>
#include <cstdlib>

#include "base/error.h"

namespace pagedopt {

[[noreturn]] inline void fail_precondition(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "pagedopt: %s:%d: precondition does not hold: %s\n", file_name(file), line, condition);
  std::abort();
}

}  // namespace pagedopt

#define PAGEDOPT_PRE(condition) ((condition) ? void(0) : ::pagedopt::fail_precondition(#condition, __FILE__, __LINE__))
#else
#define PAGEDOPT_PRE(condition) ((void)sizeof(!(condition)))  // compiled, so that it stays right
#endif

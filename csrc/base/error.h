// Exceptions of the core: the call, where, the size it was for and what the system said. The core never exits or
// aborts.
#pragma once

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace pagedopt {

// A call to the operating system (or driver) that failed. `code` is its errno.
class VmError : public std::runtime_error {
 public:
  VmError(const std::string& text, int code) : std::runtime_error(text), code_(code) {}
  int code() const noexcept { return code_; }

 private:
  int code_;
};

// Whether there was too little of something (room on the disk, memory, descriptors), as against a disk that failed.
inline bool is_shortage(int code) noexcept {
  switch (code) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EAGAIN:
    case EMFILE:
    case ENFILE: return true;
    default: return false;
  }
}

// The arena belongs to another process: this one is a fork of its owner.
class ForkError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A path without its directories.
inline const char* file_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

[[noreturn]] inline void throw_vm_error(const char* call, const char* file, int line, std::size_t bytes, int code,
                                        const std::string& detail = {}) {
  std::string text = std::string(call) + " of " + std::to_string(bytes) + " bytes failed: " + std::strerror(code) +
                     " (errno " + std::to_string(code) + ", " + file + ":" + std::to_string(line) + ")";
  if (!detail.empty()) text += "; " + detail;
  throw VmError(text, code);
}

}  // namespace pagedopt

// Raises VmError with the errno of the moment.
#define PAGEDOPT_THROW_VM(call, bytes, detail)                                                          \
  do {                                                                                                  \
    const int moment = errno; /* making the detail may change it */                                     \
    ::pagedopt::throw_vm_error(call, ::pagedopt::file_name(__FILE__), __LINE__, bytes, moment, detail); \
  } while (false)

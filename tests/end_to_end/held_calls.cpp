// Preloaded into a process: one call that _core makes to the operating system is held, so that a test can do something
// at that moment of a move.
//   hold_call(point)   the next call of that point waits; 0: after pwrite, 1: after preadv, 2: before mremap
//   await_call()       returns when it does
//   release_call()     lets it go on
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdarg>
#include <cstring>
#include <mutex>

namespace {

enum Point { after_pwrite, after_preadv, before_mremap, none };

std::mutex mutex;
std::condition_variable changed;
int armed = none;
bool is_held = false, may_go = true;

void pass(Point point, void* caller) {
  Dl_info info;
  if (dladdr(caller, &info) == 0 || info.dli_fname == nullptr || !std::strstr(info.dli_fname, "pagedopt/_core")) return;
  std::unique_lock<std::mutex> lock(mutex);
  if (armed != point) return;
  armed = none;
  is_held = true;
  changed.notify_all();
  changed.wait(lock, [] { return may_go; });
  is_held = false;
}

template <class Call>
Call* real(const char* name) {
  return reinterpret_cast<Call*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

void hold_call(int point) {
  const std::lock_guard<std::mutex> lock(mutex);
  armed = point;
  may_go = false;
}

void await_call() {
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [] { return is_held; });
}

void release_call() {
  const std::lock_guard<std::mutex> lock(mutex);
  may_go = true;
  changed.notify_all();
}

ssize_t pwrite(int fd, const void* from, std::size_t bytes, off_t offset) {
  static auto* const call = real<ssize_t(int, const void*, std::size_t, off_t)>("pwrite");
  const ssize_t done = call(fd, from, bytes, offset);
  pass(after_pwrite, __builtin_return_address(0));
  return done;
}

ssize_t preadv(int fd, const iovec* to, int count, off_t offset) {
  static auto* const call = real<ssize_t(int, const iovec*, int, off_t)>("preadv");
  const ssize_t done = call(fd, to, count, offset);
  pass(after_preadv, __builtin_return_address(0));
  return done;
}

void* mremap(void* from, std::size_t bytes, std::size_t new_bytes, int flags, ...) {
  static auto* const call = real<void*(void*, std::size_t, std::size_t, int, ...)>("mremap");
  va_list more;
  va_start(more, flags);
  void* const to = (flags & MREMAP_FIXED) != 0 ? va_arg(more, void*) : nullptr;
  va_end(more);
  pass(before_mremap, __builtin_return_address(0));
  return call(from, bytes, new_bytes, flags, to);
}

}  // extern "C"

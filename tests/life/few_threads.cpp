// Preloaded into a process: the start of a thread fails, as it does where a limit of threads is reached.
//   threads_arm(first, count)   which of the next starts fail: `count` of them, after `first` that do not
//   threads_refused()           how many did since
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

namespace {

std::atomic<long> first{0}, left{0}, refused{0};

}  // namespace

extern "C" {

void threads_arm(long skipped, long count) {
  refused = 0;
  left = count;
  first = skipped;
}

long threads_refused() { return refused; }

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  static auto* const call = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  if (left > 0 && first-- <= 0) {
    --left;
    ++refused;
    return EAGAIN;
  }
  return call(thread, attributes, start, argument);
}

}  // extern "C"

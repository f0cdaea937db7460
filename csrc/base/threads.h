// Threads of our own beside those of the program.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace pagedopt {

// A thread of this name (15 letters at most) that runs `work`. Signals are for the threads of the program: it takes
// none. Raises std::system_error where there is no thread to be had.
template <class Work>
std::thread start_thread(const char* name, Work&& work) {
  struct Mask {
    Mask() {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~Mask() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
    sigset_t before;
  };
  const Mask mask;  // a thread starts with the mask of its maker
  return std::thread([name, work = std::forward<Work>(work)]() mutable {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), name);
#endif
    work();
  });
}

}  // namespace pagedopt

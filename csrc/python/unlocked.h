// The GIL is released while native code runs, and taken back at the border to Python, here.
//
// CPython (before 3.14) ends a thread that takes the GIL back while the interpreter ends: pthread_exit unwinds through
// C++ frames, and std::terminate aborts the process. Such a thread waits here for the end of the process instead, as
// CPython 3.14 makes it do. So a thread nobody joined (a daemon thread in a step) does not spoil the exit.
#pragma once

#include <pthread.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace pagedopt {

// Which threads may still go back to Python. Order: a thread counts itself in `returning`, then reads `closed`; close()
// sets `closed`, then waits for `returning` to be 0. So no thread is between the two when the interpreter ends.
struct Border {
  static Border& process() {
    static auto* border = [] {  // never destroyed: threads wait in it at exit
      auto* made = new Border;
      pthread_atfork(nullptr, nullptr, [] { process().returning = 0; });  // the others are not in the child
      return made;
    }();
    return *border;
  }

  void enter() noexcept {
    ++returning;
    if (!closed || std::this_thread::get_id() == closer) return;
    --returning;
    for (;;) ::pause();
  }

  std::atomic<int> returning{0};
  std::atomic<bool> closed{false};
  std::thread::id closer;  // written before `closed`
};

// Releases the GIL for its own life.
class Unlocked {
 public:
  Unlocked() : thread_(PyEval_SaveThread()) {}
  ~Unlocked() { take(); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  friend class Relocked;
  void take() {
    Border& border = Border::process();
    border.enter();
    PyEval_RestoreThread(thread_);
    --border.returning;
  }

  PyThreadState* thread_;
};

// Takes the GIL back for its own life, within an Unlocked of the same thread: to call Python.
class Relocked {
 public:
  explicit Relocked(Unlocked& unlocked) : unlocked_(unlocked) { unlocked_.take(); }
  ~Relocked() { unlocked_.thread_ = PyEval_SaveThread(); }
  Relocked(const Relocked&) = delete;
  Relocked& operator=(const Relocked&) = delete;

 private:
  Unlocked& unlocked_;
};

// Registered with atexit: from now on only the calling thread goes back to Python.
inline void close_border() {
  Border& border = Border::process();
  border.closer = std::this_thread::get_id();
  border.closed = true;
  PyThreadState* thread = PyEval_SaveThread();  // those that are on their way need the GIL
  while (border.returning != 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  PyEval_RestoreThread(thread);
}

}  // namespace pagedopt

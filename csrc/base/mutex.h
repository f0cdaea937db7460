// std::mutex and std::condition_variable with the annotations that the standard library lacks. A wait has no predicate:
// the caller writes the loop, in which clang sees that the lock is held.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/annotations.h"

namespace pagedopt {

class PAGEDOPT_LOCK_TYPE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

 private:
  friend class Lock;
  std::mutex mutex_;
};

// Holds a mutex as long as it lives, but for what is between unlock() and lock().
class PAGEDOPT_SCOPED_LOCK_TYPE Lock {
 public:
  explicit Lock(Mutex& mutex) PAGEDOPT_ACQUIRES(mutex) : lock_(mutex.mutex_) {}
  ~Lock() PAGEDOPT_RELEASES() {}
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

  void unlock() PAGEDOPT_RELEASES() { lock_.unlock(); }
  void lock() PAGEDOPT_ACQUIRES() { lock_.lock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

class Condition {
 public:
  // Each may return early: what is waited for is looked at again, in a loop. pre: `lock` holds its mutex
  void wait(Lock& lock) { condition_.wait(lock.lock_); }
  // False once `end` has come.
  bool wait_until(Lock& lock, std::chrono::steady_clock::time_point end) {
    return condition_.wait_until(lock.lock_, end) == std::cv_status::no_timeout;
  }
  void notify_one() noexcept { condition_.notify_one(); }
  void notify_all() noexcept { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace pagedopt

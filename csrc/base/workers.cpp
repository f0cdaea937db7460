#include "base/workers.h"

#include <unistd.h>

#include <algorithm>
#include <cfenv>
#include <cstdint>
#include <exception>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "base/annotations.h"
#include "base/mutex.h"
#include "base/threads.h"

namespace pagedopt {

// The threads of one process. A child of fork has none of them, whatever the memory says, and leaves the object alone.
class Workers::Crew {
 public:
  Crew() : pid_(getpid()) {}

  ~Crew() {
    {
      const Lock lock(mutex_);
      ending_ = true;
    }
    start_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  bool ours() const noexcept { return pid_ == getpid(); }

  unsigned hire(unsigned workers) {
    const Lock turn(turn_);
    try {
      grow(workers);
    } catch (const std::system_error&) {  // no thread to be had: those that are there do the work
    }
    return std::min(workers, static_cast<unsigned>(threads_.size()) + 1);
  }

  void run(unsigned threads, const std::function<void(unsigned)>& work) {
    const Lock turn(turn_);
    grow(threads);
    std::vector<std::exception_ptr> errors(threads);
    {
      const Lock lock(mutex_);
      fegetenv(&modes_);
      work_ = &work;
      errors_ = &errors;
      hired_ = threads;
      busy_ = threads - 1;
      ++round_;
    }
    start_.notify_all();
    attempt(work, 0, errors);
    {
      Lock lock(mutex_);
      while (busy_ != 0) done_.wait(lock);
    }
    for (const std::exception_ptr& error : errors)
      if (error) std::rethrow_exception(error);
  }

 private:
  static void attempt(const std::function<void(unsigned)>& work, unsigned worker,
                      std::vector<std::exception_ptr>& errors) {
    try {
      work(worker);
    } catch (...) {
      errors[worker] = std::current_exception();
    }
  }

  void grow(unsigned threads) PAGEDOPT_WANTS(turn_) {
    threads_.reserve(threads);  // first: a thread that found no place in the vector would be nobody's
    while (threads_.size() + 1 < threads) {
      const unsigned worker = static_cast<unsigned>(threads_.size()) + 1;
      threads_.push_back(start_thread("pagedopt-step", [this, worker, round = round()] { serve(worker, round); }));
    }
  }

  std::uint64_t round() PAGEDOPT_WANTS_FREE(mutex_) {
    const Lock lock(mutex_);
    return round_;
  }

  void serve(unsigned worker, std::uint64_t round) {
    Lock lock(mutex_);
    for (;;) {
      while (!ending_ && round_ == round) start_.wait(lock);
      if (ending_) return;
      round = round_;
      if (worker >= hired_) continue;
      fesetenv(&modes_);
      const std::function<void(unsigned)>& work =
          *work_;  // of this round, which does not end before this thread is done
      std::vector<std::exception_ptr>& errors = *errors_;
      lock.unlock();
      attempt(work, worker, errors);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  const pid_t pid_;
  Mutex turn_;   // held for a whole run; before mutex_
  Mutex mutex_;  // held for moments
  Condition start_, done_;
  const std::function<void(unsigned)>* work_ PAGEDOPT_GUARDED_BY(mutex_) = nullptr;
  std::vector<std::exception_ptr>* errors_ PAGEDOPT_GUARDED_BY(mutex_) = nullptr;
  fenv_t modes_ PAGEDOPT_GUARDED_BY(mutex_){};
  unsigned hired_ PAGEDOPT_GUARDED_BY(mutex_) = 0;  // workers that take part in this round
  unsigned busy_ PAGEDOPT_GUARDED_BY(mutex_) = 0;   // of those, threads that are not done
  std::uint64_t round_ PAGEDOPT_GUARDED_BY(mutex_) = 0;
  bool ending_ PAGEDOPT_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_ PAGEDOPT_GUARDED_BY(turn_);
};

Workers::Workers() : crew_(new Crew) {}

Workers::~Workers() {
  Crew* crew = crew_.load();
  if (crew->ours()) delete crew;
}

Workers::Crew& Workers::crew() {
  Crew* current = crew_.load(std::memory_order_acquire);
  if (current->ours()) return *current;
  auto fresh = std::make_unique<Crew>();  // the parent's crew is left as it is: its locks may be held by threads that
                                          // are not here
  if (crew_.compare_exchange_strong(current, fresh.get())) return *fresh.release();
  return *current;
}

unsigned Workers::hire(unsigned workers) { return workers <= 1 ? workers : crew().hire(workers); }

void Workers::run(unsigned threads, const std::function<void(unsigned)>& work) {
  if (threads <= 1) {
    work(0);
    return;
  }
  crew().run(threads, work);
}

}  // namespace pagedopt

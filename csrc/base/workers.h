// Threads that a step's work runs on. They live as long as the process, sleep while there is nothing to do, and are
// made on first need. A forked child makes its own.
#pragma once

#include <atomic>
#include <functional>

namespace pagedopt {

class Workers {
 public:
  Workers();
  // Joins the threads. pre: no run() is under way.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Makes the threads for so many workers; returns how many there are, fewer where no thread is to be had.
  unsigned hire(unsigned workers);

  // Calls work(worker) once for every worker in [0, threads), worker 0 on the calling thread, and returns when all are
  // done. The threads take the caller's floating-point modes. The exception of the lowest worker that threw is rethrown
  // here. Calls from several threads take turns. pre: not called from inside `work`.
  void run(unsigned threads, const std::function<void(unsigned)>& work);

 private:
  class Crew;
  Crew& crew();

  std::atomic<Crew*> crew_;
};

}  // namespace pagedopt

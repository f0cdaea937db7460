// Lets the tasks of a step at their pages: a task enters once its pages are pinned, and unpins them when it leaves.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "memory/arena.h"
#include "memory/walk.h"

namespace pagedopt {

// Bytes that a task uses, in an arena or not.
struct ByteSpan {
  const std::byte* begin;
  const std::byte* end;
};

class PageGate {
 public:
  // Gives the spans of a task to the vector, which is empty.
  using SpansOf = std::function<void(std::size_t task, std::vector<ByteSpan>& spans)>;

  // For tasks [0, tasks), each with `most_spans` spans at most. Registers their walk with the arena.
  PageGate(std::shared_ptr<Arena> arena, std::size_t tasks, std::size_t most_spans, const SpansOf& spans_of);
  ~PageGate();
  PageGate(const PageGate&) = delete;
  PageGate& operator=(const PageGate&) = delete;

  Arena& arena() const noexcept { return *arena_; }

  // Runs work(), during which a step is running in the arena. See PageWalk::start for the arguments.
  template <class Work>
  void step(unsigned workers, std::uint64_t also_held, Work&& work) {
    Arena::Step running(*arena_, walk_);  // one step at a time in an arena
    const Trace::Span span(arena_->trace(), TraceKind::step);
    walk_.start(workers, also_held);
    running.begin();
    work();
    running.check();
  }

  // As Gate (step/step.h) has it. When enter() throws, nothing is pinned.
  void enter(std::size_t task, unsigned worker);
  void leave(std::size_t task) noexcept { unpin(walk_.begin(task), walk_.end(task)); }
  void reach(std::size_t task, unsigned worker) noexcept;
  void idle(unsigned worker) noexcept;

  // For work on a stream: enters unless a page has to be waited for; progress stays as it is.
  bool try_enter(std::size_t task);
  std::size_t arriving_pages(std::size_t task);  // that it would wait for on a stream
  // Whether some of the task's pages are on the host, all are on the device, or it has none. pre: entered
  enum class Where : std::uint8_t { nowhere, upper, lower };
  Where where(std::size_t task) const;
  // Orders what comes on `stream` behind the pages of tasks [first, last), and the pages behind what is on it; leaves
  // the tasks. pre: entered
  void enter_on(std::size_t first, std::size_t last, StreamHandle stream);
  void leave_on(std::size_t first, std::size_t last, StreamHandle stream);

  bool any_lower() const;  // of all pages
  std::size_t release() { return arena_->release(walk_); }
  void restore() { arena_->restore(walk_); }

 private:
  PageWalk::TaskPages pages_of(std::size_t tasks, const SpansOf& spans_of) const;
  bool is_lower(PageIndex page) const;
  bool are_pinned(std::size_t first, std::size_t last) const;  // the pages of tasks [first, last)
  void unpin(const PageIndex* begin, const PageIndex* end) noexcept;

  std::shared_ptr<Arena> arena_;
  PageWalk walk_;
};

}  // namespace pagedopt

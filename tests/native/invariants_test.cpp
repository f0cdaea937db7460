// Every invariant that Arena::fault checks is broken once and has to be found; in checked builds so does every
// precondition of memory/:
//   invariants_test DIRECTORY
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "memory/arena.h"
#include "memory/page_gate.h"
#include "memory/walk.h"
#include "sweep/sweep.h"

namespace pagedopt {

// What no one else may change by itself.
struct MemoryTest {
  static std::atomic<std::uint32_t>& word(Arena& arena, PageIndex page) { return arena.pages_.words_[page]; }
  static std::atomic<std::int64_t>& upper(Arena& arena) { return arena.pages_.upper_; }
  static std::atomic<std::int64_t>& lower(Arena& arena) { return arena.pages_.lower_; }
  PAGEDOPT_UNCHECKED_LOCKS static std::uint32_t& live(Arena& arena, PageIndex page) {
    return arena.extents_.live_[page];
  }
  static constexpr std::uint32_t kStates = PageTable::kStateMask, kDirty = PageTable::kDirty, kLive = PageTable::kLive,
                                 kOnePin = PageTable::kOnePin;
};

}  // namespace pagedopt

using namespace pagedopt;

namespace {

constexpr std::size_t kPageBytes = kHugePageBytes, kPages = 16;

void require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

// An arena with a page of each kind.
struct World {
  explicit World(const std::string& directory)
      : arena(std::make_shared<Arena>(
            make_host_vm(kPageBytes, kPages * kPageBytes, directory, DirectIo::automatic, WatchWrites::automatic))) {
    kept_extent = arena->allocate(kPageBytes, true);
    for (std::shared_ptr<Extent>* extent : {&dirty_extent, &lower_extent, &clean_extent, &fresh_extent, &dead_extent})
      *extent = arena->allocate(kPageBytes, false);
    kept = page_of(kept_extent), dirty = page_of(dirty_extent), lower = page_of(lower_extent);
    clean = page_of(clean_extent), fresh = page_of(fresh_extent), dead = page_of(dead_extent);
    const std::vector<std::byte> bytes(kPageBytes, std::byte{1}), other(kPageBytes, std::byte{2});
    for (const auto& extent : {dirty_extent, lower_extent, clean_extent}) {
      arena->write(extent->data(), bytes.data(), bytes.size());
      require(arena->evict(extent->data(), kPageBytes) == 1, "the page is in the lower tier");
    }
    arena->write(lower_extent->data(), other.data(), other.size());
    for (const auto& extent : {dirty_extent, clean_extent})
      require(arena->prefetch(extent->data(), kPageBytes) == 1, "the page is in the upper tier");
    arena->write(dirty_extent->data(), other.data(), other.size());
    dead_extent.reset();
    require(arena->fault().empty(), "the arena is valid: " + arena->fault());
  }
  PageIndex page_of(const std::shared_ptr<Extent>& extent) const { return arena->page_of(extent->data()); }

  std::atomic<std::uint32_t>& word(PageIndex page) const { return MemoryTest::word(*arena, page); }
  void set_state(PageIndex page, PageState state) const {
    word(page) = (word(page) & ~MemoryTest::kStates) | static_cast<std::uint32_t>(state);
  }

  std::shared_ptr<Arena> arena;
  std::shared_ptr<Extent> kept_extent, dirty_extent, lower_extent, clean_extent, fresh_extent, dead_extent;
  PageIndex kept, dirty, lower, clean, fresh, dead;
};

struct Case {
  const char* fault;  // what is found
  std::function<void(World&)> breaks;
};

const std::vector<Case> kCases = {
    {"in motion", [](World& world) { world.set_state(world.dirty, PageState::prefetching); }},
    {"not live, and not fresh", [](World& world) { world.set_state(world.dead, PageState::resident); }},
    {"not live, and not fresh", [](World& world) { world.word(world.dead) |= MemoryTest::kDirty; }},
    {"not live, and not fresh", [](World& world) { world.word(world.dead) += MemoryTest::kOnePin; }},
    {"kept, and not in the upper tier", [](World& world) { world.set_state(world.kept, PageState::evicted); }},
    {"in the lower tier, and dirty", [](World& world) { world.word(world.lower) |= MemoryTest::kDirty; }},
    {"pinned, and fresh", [](World& world) { world.word(world.fresh) += MemoryTest::kOnePin; }},
    {"upper() is not", [](World& world) { ++MemoryTest::upper(*world.arena); }},
    {"lower() is not", [](World& world) { --MemoryTest::lower(*world.arena); }},
    {"upper() is not",
     [](World& world) {
       world.set_state(world.dirty, PageState::evicted), world.word(world.dirty) &= ~MemoryTest::kDirty;
     }},
    {"live without an extent", [](World& world) { MemoryTest::live(*world.arena, world.dirty) = 0; }},
    {"live without an extent", [](World& world) { world.word(world.fresh) &= ~MemoryTest::kLive; }},
    {"not live, and has memory", [](World& world) { world.arena->base()[world.dead * kPageBytes] = std::byte{1}; }},
    {"live counts do not add up", [](World& world) { ++MemoryTest::live(*world.arena, world.dirty); }},
    {"not dirty, and the lower tier", [](World& world) { world.word(world.dirty) &= ~MemoryTest::kDirty; }},
};

// In a process of its own, which keeps what it has broken.
int exit_status(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    std::fflush(nullptr);
    std::_Exit(0);
  }
  int status = 0;
  require(child > 0 && ::waitpid(child, &status, 0) == child, "a child");
  return status;
}

void every_broken_invariant_is_found(const std::string& directory) {
  for (const Case& row : kCases) {
    const int status = exit_status([&] {
      World world(directory);
      row.breaks(world);
      const std::string fault = world.arena->fault();
      require(fault.find(row.fault) != std::string::npos, std::string(row.fault) + ", found: " + fault);
      require(!world.arena->is_valid(), "and is_valid says so");
      std::fflush(nullptr);
      std::_Exit(0);  // what is broken cannot be taken down
    });
    require(status == 0, row.fault);
  }
}

#if defined(PAGEDOPT_CHECKED)

struct Precondition {
  const char* what;
  std::function<void(World&, PageTable&)> violates;
};

// Of one task, which uses a page.
PageGate gate_of(World& world) {
  return PageGate(world.arena, 1, 1, [&](std::size_t, std::vector<ByteSpan>& spans) {
    spans.push_back({world.dirty_extent->data(), world.dirty_extent->data() + 1});
  });
}

const std::vector<Precondition> kPreconditions = {
    {"unpin", [](World&, PageTable& pages) { pages.unpin(0); }},
    {"set_live", [](World&, PageTable& pages) { pages.set_live(0, false), pages.set_live(0, false); }},
    {"finish_prefetch", [](World&, PageTable& pages) { pages.finish_prefetch(0, PageTable::Source::lower, true); }},
    {"cancel_prefetch", [](World&, PageTable& pages) { pages.cancel_prefetch(0, PageTable::Source::lower); }},
    {"begin_lower", [](World&, PageTable& pages) { pages.begin_lower(0); }},
    {"begin_remap", [](World&, PageTable& pages) { pages.begin_remap(0); }},
    {"finish_evict", [](World&, PageTable& pages) { pages.finish_evict(0); }},
    {"cancel_evict", [](World&, PageTable& pages) { pages.cancel_evict(0, PageTable::Content::dirty); }},
    {"finish_discard", [](World&, PageTable& pages) { pages.finish_discard(0); }},
    {"write", [](World& world, PageTable&) { world.arena->write(world.arena->base() - 1, nullptr, 1); }},
    {"prefetch", [](World& world, PageTable&) { world.arena->prefetch(world.arena->base() - 1, 1); }},
    {"evict",
     [](World& world, PageTable&) { world.arena->evict(world.arena->base(), world.arena->reserved_bytes() + 1); }},
    {"check_readable", [](World& world, PageTable&) { world.arena->check_readable(world.arena->base() - 1, 1); }},
    {"begin_lower of a page that nobody uses", [](World& world, PageTable&) { world.arena->begin_lower(world.dirty); }},
    {"where", [](World& world, PageTable&) { (void)gate_of(world).where(0); }},
    {"enter_on", [](World& world, PageTable&) { gate_of(world).enter_on(0, 1, nullptr); }},
    {"leave_on", [](World& world, PageTable&) { gate_of(world).leave_on(0, 1, nullptr); }},
    {"passed", [](World&, PageTable&) { (void)PageWalk({}, 1).finished(0); }},
    {"start", [](World&, PageTable&) { PageWalk({}, 1).start(PageWalk::kMostWorkers + 1, 0); }},
};

void every_violated_precondition_aborts(const std::string& directory) {
  for (const Precondition& row : kPreconditions) {
    const int status = exit_status([&] {
      ::signal(SIGABRT, SIG_DFL);
      World world(directory);
      PageTable pages(1);
      row.violates(world, pages);
    });
    require(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, std::string("aborts: ") + row.what);
  }
}

// A step says what it finds at its end.
void a_step_raises(const std::string& directory, const char* what, const std::function<void(World&)>& breaks) {
  const int status = exit_status([&] {
    World world(directory);
    float param[8] = {}, step = 0;
    auto rows = std::make_shared<std::vector<Row>>(1);
    (*rows)[0].param = param;
    (*rows)[0].step = &step;
    (*rows)[0].slot[0] = world.dirty_extent->data();
    (*rows)[0].slot[1] = world.dirty_extent->data() + kPageBytes / 2;
    (*rows)[0].numel = 8;
    Sweep sweep(rows, std::vector<Hyper>(1), world.arena);
    sweep.step(std::vector<Hyper>(1), 1.0, 1);
    breaks(world);
    std::string error;
    try {
      sweep.step(std::vector<Hyper>(1), 1.0, 1);
    } catch (const std::logic_error& raised) {
      error = raised.what();
    }
    require(error.find(what) != std::string::npos, std::string("the step raises: ") + what + ", not: " + error);
    std::fflush(nullptr);
    std::_Exit(0);
  });
  require(status == 0, what);
}

#endif

}  // namespace

int main(int argc, char** argv) {
  require(argc == 2, "usage: invariants_test DIRECTORY");
  every_broken_invariant_is_found(argv[1]);
#if defined(PAGEDOPT_CHECKED)
  every_violated_precondition_aborts(argv[1]);
  a_step_raises(argv[1], "not valid after a step: upper()", [](World& world) { ++MemoryTest::upper(*world.arena); });
  a_step_raises(argv[1], "pinned after the step",
                [](World& world) { MemoryTest::word(*world.arena, world.dirty) += MemoryTest::kOnePin; });
#endif
  std::puts("ok");
}

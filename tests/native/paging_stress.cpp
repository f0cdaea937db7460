// Stress of arena, page table and mover without Python, for plain, address and thread sanitizer builds:
//   paging_stress DIRECTORY SECONDS
// 1. Steps over paged state, while one thread submits random plans, one evicts and prefetches at will, one reads a
//    constant extent that is being moved, one writes to another (where writes are watched), and one allocates and frees
//    extents, give the same bits as steps over ordinary memory.
// 2. The arena is valid afterwards, and every page is fresh once everything is freed.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "hypers.h"
#include "memory/arena.h"
#include "step/step.h"
#include "sweep/sweep.h"

using namespace pagedopt;

namespace {

constexpr std::size_t kPageBytes = 64 << 10;
constexpr unsigned kThreads = 3;

struct Parameters {
  explicit Parameters(unsigned seed) {
    std::mt19937 random(seed);
    for (const std::size_t numel : {70001, 300, 123456, 8192, 65536, 99, 250007}) {
      std::vector<float> values(numel), gradients(numel);
      for (float& value : values) value = static_cast<float>(random() % 1000) / 500 - 1;
      for (float& value : gradients) value = static_cast<float>(random() % 1000) / 5000 - 0.1F;
      param.push_back(values);
      grad.push_back(gradients);
      step.push_back(0);
    }
  }
  std::vector<std::vector<float>> param, grad;
  std::vector<float> step;
};

// The state of every parameter: m | v (| absmax), in memory that `memory(bytes)` gives.
template <class Memory>
std::shared_ptr<std::vector<Row>> make_rows(Parameters& parameters, Codec codec, Memory&& memory) {
  auto rows = std::make_shared<std::vector<Row>>();
  for (std::size_t i = 0; i < parameters.param.size(); ++i) {
    const std::size_t numel = parameters.param[i].size();
    const std::size_t slot = round_up(codec == Codec::f32 ? numel * 4 : numel, kSlotAlignmentBytes);
    const std::size_t scales = round_up((numel + 255) / 256 * 4, kSlotAlignmentBytes);
    std::byte* state = memory(2 * slot + 2 * scales);
    Row row{};
    row.param = parameters.param[i].data();
    row.grad = parameters.grad[i].data();
    row.step = &parameters.step[i];
    row.numel = static_cast<std::int64_t>(numel);
    row.codec = codec;
    for (int s = 0; s < 2; ++s) {
      row.slot[s] = state + static_cast<std::size_t>(s) * slot;
      if (codec != Codec::f32)
        row.absmax[s] = reinterpret_cast<float*>(state + 2 * slot + static_cast<std::size_t>(s) * scales);
    }
    rows->push_back(row);
  }
  return rows;
}

std::vector<Hyper> hypers() {
  Hyper hyper = hyper_of(RuleId::adam);
  hyper.lr = 1e-2;
  number_of(hyper, "beta2") = 0.99;
  hyper.weight_decay = 0.1;
  hyper.decoupled = true;
  hyper.percentile_clipping = 100;
  return {hyper};
}

// `once`: one plan a cycle, so that no later plan wakes a worker that this one left waiting.
void submit_random_plans(Arena& arena, bool once, const std::atomic<bool>& stop) {
  std::mt19937 random(7);
  std::uint64_t planned = ~std::uint64_t{0};
  while (!stop) {
    const Order order = arena.look().order;
    if (once && order.cycle == planned) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      continue;
    }
    std::vector<Move> moves;
    for (std::size_t i = 0; i < order.pages.size(); ++i)
      moves.push_back({random() % 2 ? MoveKind::prefetch : MoveKind::evict, Reason::behind,
                       order.pages[random() % order.pages.size()],
                       static_cast<std::int64_t>(random() % (order.pages.size() + 1)) - 1});
    if (arena.submit(order.generation, order.cycle, moves)) planned = order.cycle;
    if (!once) std::this_thread::sleep_for(std::chrono::milliseconds(random() % 3));
  }
}

void move_at_will(Arena& arena, std::byte* begin, std::size_t bytes, const std::atomic<bool>& stop) {
  std::mt19937 random(11);
  while (!stop) {
    const std::size_t offset = random() % bytes;
    if (random() % 2)
      arena.evict(begin + offset, 1);
    else
      arena.prefetch(begin + offset, 1);
  }
}

// Not instrumented: thread sanitizer takes a replaced mapping for a write, and that this one reads through it is the
// point.
__attribute__((no_sanitize("thread"))) void read_constant(const Extent& extent, const std::atomic<bool>& stop) {
  std::mt19937 random(13);
  while (!stop) {
    const std::size_t at = random() % extent.bytes();
    if (static_cast<unsigned char>(extent.data()[at]) != 0x5A) fail("a moved page lost byte " + std::to_string(at));
  }
}

// Plain writes by code that knows nothing of pages; not instrumented for the same reason.
__attribute__((no_sanitize("thread"))) void write_plainly(const Extent& extent, const std::atomic<bool>& stop) {
  std::mt19937 random(19);
  std::vector<unsigned char> expected(extent.bytes());
  while (!stop) {
    const std::size_t at = random() % extent.bytes();
    if (static_cast<unsigned char>(extent.data()[at]) != expected[at])
      fail("lost a write to byte " + std::to_string(at));
    extent.data()[at] = static_cast<std::byte>(expected[at] = static_cast<unsigned char>(random()));
  }
  for (std::size_t at = 0; at < extent.bytes(); ++at)
    if (static_cast<unsigned char>(extent.data()[at]) != expected[at])
      fail("lost a write to byte " + std::to_string(at));
}

void allocate_and_free(Arena& arena, const std::atomic<bool>& stop) {
  std::mt19937 random(17);
  while (!stop) {
    const std::size_t bytes = 1 + random() % (3 * kPageBytes);
    const auto extent = arena.allocate(bytes, random() % 4 == 0);
    for (std::size_t i = 0; i < bytes; i += 997)
      if (extent->data()[i] != std::byte{0}) fail("a new extent is not zero at byte " + std::to_string(i));
    std::vector<std::byte> junk(bytes, std::byte{0xEE});
    arena.write(extent->data(), junk.data(), bytes);
    arena.evict(extent->data(), bytes);
    for (std::size_t i = 0; i < bytes; i += 997)
      if (extent->data()[i] != std::byte{0xEE}) fail("an extent lost byte " + std::to_string(i));
  }
}

void check_equal(const Parameters& paged, const Parameters& plain, const char* what) {
  for (std::size_t i = 0; i < paged.param.size(); ++i)
    for (std::size_t j = 0; j < paged.param[i].size(); ++j)
      if (std::memcmp(&paged.param[i][j], &plain.param[i][j], 4) != 0)
        fail(std::string(what) + ": parameter " + std::to_string(i) + " element " + std::to_string(j) + " differs");
}

// `quiet`: nothing but the plans, whose own wake-ups must then be enough.
void stress(const std::string& directory, Codec codec, double seconds, bool quiet, const char* what) {
  const auto arena =
      std::make_shared<Arena>(make_host_vm(kPageBytes, std::size_t{64} << 20, directory, DirectIo::automatic));
  arena->attach();
  arena->set_budget_pages(6);
  Parameters paged(1), plain(1);
  std::vector<std::shared_ptr<Extent>> extents;
  auto rows = make_rows(paged, codec, [&](std::size_t bytes) {
    extents.push_back(arena->allocate(bytes, false));
    return extents.back()->data();
  });
  auto written = arena->allocate(3 * kPageBytes, false);
  auto constant = arena->allocate(5 * kPageBytes, false);
  const std::vector<std::byte> pattern(constant->bytes(), std::byte{0x5A});
  arena->write(constant->data(), pattern.data(), pattern.size());

  std::vector<std::vector<std::byte>> heap;
  auto plain_rows = make_rows(plain, codec, [&](std::size_t bytes) { return heap.emplace_back(bytes).data(); });
  {
    Sweep paged_sweep(rows, hypers(), arena);
    Sweep plain_sweep(plain_rows, hypers(), nullptr);
    std::atomic<bool> stop{false};
    std::byte* const first = extents.front()->data();
    const auto span = static_cast<std::size_t>(constant->data() + constant->bytes() - first);
    std::vector<std::thread> threads;
    threads.emplace_back([&] { submit_random_plans(*arena, quiet, stop); });
    if (!quiet) {
      threads.emplace_back([&] { move_at_will(*arena, first, span, stop); });
      threads.emplace_back([&] { read_constant(*constant, stop); });
      if (arena->watches_writes()) threads.emplace_back([&] { write_plainly(*written, stop); });
      threads.emplace_back([&] { allocate_and_free(*arena, stop); });
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    int steps = 0;
    for (; steps < 3 || std::chrono::steady_clock::now() < end; ++steps) {
      paged_sweep.step(hypers(), 1.0, kThreads);
      plain_sweep.step(hypers(), 1.0, 1);
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    check_equal(paged, plain, what);
    arena->detach();
    if (!arena->is_valid()) fail(std::string(what) + ": the arena is not valid");
    if (!arena->failure().empty()) fail(arena->failure());
    std::printf("%s: %d steps, %llu pages evicted on request, %llu MiB read, %llu MiB written\n", what, steps,
                static_cast<unsigned long long>(arena->counters().evicted_explicit_pages),
                static_cast<unsigned long long>(arena->counters().prefetched_bytes >> 20),
                static_cast<unsigned long long>(arena->counters().evicted_bytes >> 20));
  }
  constant.reset();
  written.reset();
  extents.clear();
  const Ledger ledger = arena->ledger();
  if (!arena->is_valid() || ledger.allocated_pages != 0 || ledger.lower_file_bytes != 0)
    fail("freed pages are still held");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) fail("usage: paging_stress DIRECTORY SECONDS");
  const double seconds = std::atof(argv[2]) / 4;
  for (const bool quiet : {true, false}) {
    stress(argv[1], Codec::f32, seconds, quiet, quiet ? "f32, plans alone" : "f32");
    stress(argv[1], Codec::blockwise8, seconds, quiet, quiet ? "blockwise8, plans alone" : "blockwise8");
  }
  std::puts("paging_stress: passed");
  return 0;
}

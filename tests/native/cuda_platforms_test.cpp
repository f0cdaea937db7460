// What the core does on a simulated CUDA runtime where something is not to be had: batches, discarding, migration,
// memory, a device; and its fences where a call fails. Prints the first thing that is wrong and exits with 1.
//   cuda_platforms_test [name of one group]
#include <algorithm>
#include <cstring>

#include "cuda_actions.h"
#include "gpu/fences.h"
#include "gpu/vm_device.h"

using namespace pagedopt;
using simulated_cuda::Call;

namespace {

std::vector<std::string> moves_of(const std::vector<Call>& calls) {
  std::vector<std::string> moves;
  for (const Call& call : calls)
    if (call.result == cudaSuccess && contains(call.name, "cudaMem") && !contains(call.name, "cudaMemcpy"))
      moves.push_back(call.name + call.detail + " " + std::to_string(call.bytes));
  return moves;
}

void test_batches() {
  const std::string one_up = "cudaMemPrefetchAsync to device 1 ", one_down = "cudaMemPrefetchAsync to host ";
  const std::vector<std::string> ups = {one_up + "65536", one_up + "32768"};
  const std::vector<std::string> downs = {one_down + "65536", one_down + "32768"};
  const bool has_batches = CUDART_VERSION >= 13000;
  const std::vector<std::string> up =
      has_batches ? std::vector<std::string>{"cudaMemPrefetchBatchAsync to device 1 98304"} : ups;
  const std::vector<std::string> gone =
      has_batches ? std::vector<std::string>{"cudaMemDiscardBatchAsync 98304"} : downs;
  const struct {
    const char* name;
    bool other_migrates, batches_fail, on_default_stream;
    std::vector<std::string> prefetched, discarded;
  } rows[] = {
      {"all migrate", true, false, false, up, gone},
      {"batches fail", true, true, false, ups, downs},
      {"another device does not migrate", false, false, false, ups, downs},
      {"on the default stream", true, false, true, ups, downs},
  };
  for (const auto& row : rows) {
    simulated_cuda::install({{row.other_migrates}, {}});
    World world(1);
    if (row.batches_fail)
      for (const char* name : {"cudaMemPrefetchBatchAsync", "cudaMemDiscardBatchAsync"})
        simulated_cuda::fail(name, cudaErrorNotSupported, 1000);
    StreamHandle const stream = row.on_default_stream ? nullptr : world.stream;
    (void)simulated_cuda::take_calls();
    world.gpu->prefetch(world.runs(), Place::device, stream);
    require(moves_of(simulated_cuda::take_calls()) == row.prefetched, std::string("prefetch, ") + row.name);
    world.gpu->discard(world.runs(), stream);
    require(moves_of(simulated_cuda::take_calls()) == row.discarded, std::string("discard, ") + row.name);
    require_clean(kNone, row.name);
  }
}

// A card that torch has filled: pages stay on the host and begin there, and each refusal is counted.
void test_full_card() {
  constexpr std::size_t kTotal = 64 * kBytes;
  simulated_cuda::install({{}, {true, true, kTotal}});
  {
    const auto gpu = make_cuda_gpu(1);
    const auto vm = make_device_vm(gpu, kBytes, 8 * kBytes, true);
    std::byte* full = gpu->allocate(Memory::device, kTotal);
    vm->commit(0, 8);
    for (const PageIndex page : {0, 1, 2}) {
      require(!vm->populate(page), "a page that there is no memory for counts as there");
      const auto* const begin = vm->base() + page * kBytes;
      require(std::all_of(begin, begin + kBytes, [](std::byte b) { return b == std::byte{0}; }), "it is not zeroed");
    }
    require(!vm->enter(3, nullptr) && vm->enter(3, nullptr), "a page begins on the host once");
    const std::byte one{1};
    require(!vm->write(4, vm->base() + 4 * kBytes, &one, 1) && vm->base()[4 * kBytes] == one, "a write to a new page");
    require(vm->visits().visited_pages == 0 && vm->refused_hints() == 5, "what is counted of a full card");
    std::size_t done = 9;
    vm->prefetch({0, 1, 2}, done);
    require(done == 0, "pages came to a full card");
    gpu->free(Memory::device, full);
    full = gpu->allocate(Memory::device, kTotal - kBytes);
    vm->prefetch({0}, done = 0);
    require(done == 1, "a page does not come where there is memory");
    // Asked for together, and then one by one: the second has no memory, either time.
    simulated_cuda::fail("cudaMemPrefetchAsync", cudaErrorMemoryAllocation, 1, 1);
    simulated_cuda::fail("cudaMemPrefetchAsync", cudaErrorMemoryAllocation, 1, 2);
    vm->prefetch({0, 2}, done = 0);
    require(done == 1, "of two pages one has room, and " + std::to_string(done) + " came");
    simulated_cuda::fail("cudaMemPrefetchAsync", cudaErrorMemoryAllocation, 1000);
    simulated_cuda::fail("cudaMemPrefetchBatchAsync", cudaErrorMemoryAllocation, 1000);
    simulated_cuda::fail("cudaMemDiscardBatchAsync", cudaErrorMemoryAllocation, 1000);
    simulated_cuda::fail("cudaMemAdvise", cudaErrorMemoryAllocation, 1000);
    vm->demote({0, 2}, done = 0);
    require(done == 0, "pages went to a host that is full");
    require(!vm->place_lower(5), "a page begins on a host that is full");
    const std::uint64_t before = vm->refused_hints();
    vm->settle(6), vm->discard({0, 1, 2});
    require(vm->refused_hints() == before + 2, "what is refused of settling and discarding is not counted");
    (void)make_device_vm(gpu, kBytes, kBytes, true);
    simulated_cuda::forgive();
    gpu->free(Memory::device, full);
    require(vm->populate(0) && vm->base()[0] == std::byte{0}, "a page that could not be discarded is not zeroed");
  }
  require_clean(kNone, "a full card");
  require_nothing_held("a full card");
}

// Of copies that belong together: the calls for each hint, each way, and what arrives. CUDA 12 has no batches.
void test_copies_of_state() {
  const struct {
    CopyHint hint;
    bool migrates;
    std::vector<std::string> in, out;
  } rows[] = {
      {CopyHint::device, true, {" device", " device"}, {" device", " device"}},
      {CopyHint::none, true, {" none", " none"}, {" none", " none"}},
      {CopyHint::direction, true, {" direction", " direction"}, {" direction", " direction"}},
      {CopyHint::batch, true, {" to host to device 1"}, {" to device 1 to host"}},
      {CopyHint::batch, false, {" none", " none"}, {" none", " none"}},
  };
  for (const auto& row : rows) {
    const std::string what = "copies by hint " + std::to_string(static_cast<int>(row.hint));
    simulated_cuda::install({{}, {row.migrates, true}});
    World world(1);
    world.gpu->set_copy_hint(row.hint);
    std::memset(world.managed(), 1, kBytes);
    const auto details = [&](Place to, const std::vector<Copy>& copies) {
      (void)simulated_cuda::take_calls();
      const auto error = error_of([&] { world.gpu->copy_state(copies, to, world.stream); });
      require(error.has_value() == (CUDART_VERSION < 13000 && row.in.size() == 1), what + ": an error, or none");
      std::vector<std::string> details;
      for (const Call& call : simulated_cuda::take_calls())
        if (call.result == cudaSuccess && contains(call.name, "cudaMemcpy")) details.push_back(call.detail);
      return std::pair(details, error.has_value());
    };
    std::byte* const half = world.device() + kBytes / 2;
    const auto in =
        details(Place::device, {{world.device(), world.managed(0), kBytes / 2}, {half, world.managed(0), kBytes / 2}});
    if (in.second) continue;
    require(in.first == row.in, what + ", in");
    const auto out = details(Place::host, {{world.managed(1), world.device(), kBytes / 2},
                                           {world.managed(1) + kBytes / 2, half, kBytes / 2}});
    require(out.first == row.out, what + ", out");
    require(std::memcmp(world.managed(0), world.managed(1), kBytes) == 0, what + " do not arrive");
    world.gpu->copy_state({}, Place::host, world.stream);
    require_clean(kNone, what);
  }
}

void test_events_that_are_not_done() {
  install();
  World world(1);
  simulated_cuda::fail("cudaEventQuery", cudaErrorNotReady);
  require(!world.gpu->is_done(world.event), "an event counts as done that is not");
  require_clean(kNone, "an event that is not done");
  require(world.gpu->is_done(world.event), "an event does not count as done that is");
}

// How much of what is asked for a range gets, when the runtime refuses so many times.
void test_reserving() {
  constexpr std::size_t kAsked = 64 * kBytes;
  const std::pair<int, std::size_t> rows[] = {{0, kAsked}, {1, kAsked / 2}, {3, kAsked / 8}};
  for (const auto& [refusals, given] : rows) {
    install();
    simulated_cuda::fail("cudaMallocManaged", cudaErrorMemoryAllocation, refusals);
    const auto vm = make_device_vm(make_cuda_gpu(1), kBytes, kAsked, true);
    const std::size_t bytes = vm->page_count() * kBytes;
    require(
        bytes <= given && bytes + kBytes >= given,
        std::to_string(refusals) + " refusals leave " + std::to_string(bytes) + " bytes of " + std::to_string(kAsked));
    require_clean(kNone, "an allocation that was refused");
  }
  install();
  simulated_cuda::fail("cudaMallocManaged", cudaErrorMemoryAllocation, 1000);
  const auto error = error_of([] { make_device_vm(make_cuda_gpu(1), kBytes, kAsked, true); });
  require(error && error->code() == cudaErrorMemoryAllocation && contains(error->what(), "bytes free"),
          "a GPU that gives no managed memory is no error");
  require_clean(kNone, "managed memory that is refused");
  require_nothing_held("managed memory that is refused");
}

void test_platforms() {
  simulated_cuda::install({{}, {false, true}});
  {
    const auto vm = make_device_vm(make_cuda_gpu(1), kBytes, 4 * kBytes, true);
    require(!vm->can_move(), "a device that does not migrate is asked to");
    vm->commit(0, 3);
    vm->clear(0, vm->base(), kBytes);
    require(simulated_cuda::held().registrations == 1 && simulated_cuda::held().memory == 0, "memory is not locked");
    require(simulated_cuda::is_reachable(1, vm->base() + 2 * kBytes, kBytes), "the device cannot use locked memory");
    simulated_cuda::fail("cudaHostRegister", cudaErrorMemoryAllocation);
    const auto error = error_of([&] { vm->commit(3, 4); });
    require(error && contains(error->what(), "of 65536 bytes failed") && contains(error->what(), "ulimit -l"),
            "memory that cannot be locked is no error");
    require(!error_of([&] { vm->commit(3, 4); }), "memory cannot be locked later");
  }
  require_clean(kNone, "a device that does not migrate");
  require_nothing_held("a device that does not migrate");

  simulated_cuda::install({{}, {false, false}});
  const auto error = error_of([] { make_device_vm(make_cuda_gpu(1), kBytes, 4 * kBytes, true); });
  require(error && error->code() == cudaErrorNotSupported && contains(error->what(), "Paged"),
          "a device that can do neither is no error");
}

std::vector<std::string> advices() {
  std::vector<std::string> found;
  for (const Call& call : simulated_cuda::take_calls())
    if (call.name == "cudaMemAdvise") found.push_back(call.detail + " " + std::to_string(call.bytes));
  return found;
}

// One memory for host and device: nothing moves. Memory that the driver moves by itself: what is evicted is to stay.
void test_shared_memory() {
  const struct {
    const char* name;
    bool is_integrated, is_coherent;
    std::vector<std::string> advices;
  } rows[] = {
      {"a card of its own", false, false, {"accessed by to device 1"}},
      {"integrated", true, false, {"accessed by to device 1"}},
      {"coherent", false, true, {"accessed by to device 1", "preferred location to host"}},
  };
  for (const auto& row : rows) {
    simulated_cuda::install({{}, {true, true, 1 << 30, row.is_integrated, row.is_coherent}});
    const auto gpu = make_cuda_gpu(1);
    require(gpu->info().is_integrated == row.is_integrated && gpu->info().is_coherent == row.is_coherent, row.name);
    const auto vm = make_device_vm(gpu, kBytes, 8 * kBytes, true);
    std::vector<std::string> want;
    for (const std::string& advice : row.advices)
      want.push_back(advice + " " + std::to_string(vm->page_count() * kBytes));
    require(advices() == want, std::string(row.name) + ": advice for the range");
    require(vm->can_move() == !row.is_integrated, std::string(row.name) + ": whether pages move");
    const std::byte one{1};
    require(vm->write(0, vm->base(), &one, 1) && vm->base()[0] == one && vm->base()[1] == std::byte{0},
            std::string(row.name) + ": a page that is written to");
    bool any = false;
    for (const Call& call : simulated_cuda::take_calls()) any |= contains(call.name, "Prefetch");
    require(any == !row.is_integrated, std::string(row.name) + ": a page is moved, or is not");
  }
}

void test_old_cards() {
  const struct {
    int major, minor;
    bool is_refused;
  } rows[] = {{7, 5, true}, {7, 0, true}, {6, 1, true}, {8, 0, false}, {8, 9, false}, {9, 0, false}, {12, 0, false}};
  for (const auto& row : rows) {
    simulated_cuda::install({{true, true, 1 << 20, false, false, row.major, row.minor}});
    const auto error = error_of([] { make_cuda_gpu(0); });
    const std::string name = std::to_string(row.major) + "." + std::to_string(row.minor);
    require(error.has_value() == row.is_refused, "a card of compute capability " + name);
    if (error)
      require(contains(error->what(), "simulated 0 has compute capability " + name) && contains(error->what(), "8.0") &&
                  error->code() == cudaErrorNoKernelImageForDevice,
              std::string("it says ") + error->what());
  }
}

void test_absence() {
  const struct {
    std::size_t devices;
    cudaError_t absence;
    const char* words;
  } rows[] = {
      {0, cudaErrorInsufficientDriver, "driver version is insufficient"},
      {2, cudaErrorNoDevice, "no CUDA-capable device"},
      {0, cudaSuccess, "no CUDA-capable device"},
      {1, cudaErrorInitializationError, "initialization error"},
  };
  for (const auto& row : rows) {
    simulated_cuda::install(std::vector<simulated_cuda::Device>(row.devices), row.absence);
    require(cuda_device_count() == 0, std::string("devices are counted: ") + row.words);
    require_clean(kNone, row.words);
    require(contains(cuda_absence(), row.words), "the absence of a device is called " + cuda_absence());
    const auto error = error_of([] { make_cuda_gpu(0); });
    require(error && error->code() == cudaErrorInvalidDevice && contains(error->what(), "no CUDA device 0 among 0") &&
                contains(error->what(), row.words),
            std::string("no device, and no error: ") + row.words);
    require_clean(kNone, row.words);
  }
  install();
  require(cuda_device_count() == 2 && cuda_absence().empty(), "two devices are not counted");
  for (const int device : {-1, 2}) {
    const auto error = error_of([&] { make_cuda_gpu(device); });
    require(error && std::string(error->what()) == "there is no CUDA device " + std::to_string(device) + " among 2",
            "device " + std::to_string(device) + " of 2: " + (error ? error->what() : "no error"));
  }
  require(make_cuda_gpu(1)->info().device == 1 && make_cuda_gpu(1)->info().name == "simulated 1", "another's info");
}

// ---- fences

std::string last_detail(const char* name) {
  std::string detail;
  for (const Call& call : simulated_cuda::take_calls())
    if (call.name == name) detail = call.detail;
  return detail;
}

std::string event_in(const std::string& detail) { return detail.substr(detail.find(' ')); }

// The fence after one that could not be put up is behind those before it.
void test_fence_that_fails() {
  install();
  World world(1);
  StreamHandle const other = world.gpu->make_stream();
  world.streams.push_back(other);
  Fences fences(*world.gpu, false);
  const std::uint64_t first = fences.put_up(world.stream);
  const std::string recorded = last_detail("cudaEventRecord");
  simulated_cuda::fail("cudaEventRecord", cudaErrorInvalidResourceHandle);
  require(error_of([&] { fences.put_up(world.stream); }).has_value(), "a fence that cannot be put up is no error");
  (void)simulated_cuda::take_calls();
  require(fences.put_up(other) == first + 1, "a fence that was not put up counts");
  require(event_in(last_detail("cudaStreamWaitEvent")) == event_in(recorded),
          "a fence is not behind the last that was put up");
}

// A stream that was made where another was is not that one.
void test_fence_on_a_stream_that_is_gone() {
  install();
  World world(1);
  Fences fences(*world.gpu, false);
  StreamHandle const gone = world.gpu->make_stream();
  const std::uint64_t fence = fences.put_up(gone);
  world.gpu->free_stream(gone);
  StreamHandle const other = world.gpu->make_stream();
  world.streams.push_back(other);
  require(other == gone, "a handle is not given out again");
  (void)simulated_cuda::take_calls();
  fences.wait(fence, other);
  require(!last_detail("cudaStreamWaitEvent").empty(), "a new stream does not wait for a fence on another");
}

}  // namespace

int main(int argc, char** argv) {
  return run_groups(argc, argv,
                    {{"batches", test_batches},
                     {"full_card", test_full_card},
                     {"copies_of_state", test_copies_of_state},
                     {"events_that_are_not_done", test_events_that_are_not_done},
                     {"reserving", test_reserving},
                     {"platforms", test_platforms},
                     {"shared_memory", test_shared_memory},
                     {"old_cards", test_old_cards},
                     {"absence", test_absence},
                     {"fence_that_fails", test_fence_that_fails},
                     {"fence_on_a_stream_that_is_gone", test_fence_on_a_stream_that_is_gone}});
}

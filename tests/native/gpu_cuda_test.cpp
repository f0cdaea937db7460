// The calls of gpu_cuda.cpp on a simulated CUDA runtime: what becomes of them when they fail, on which device they
// work, while a graph is captured, and in a forked child. Prints the first thing that is wrong and exits with 1.
//   gpu_cuda_test [name of one group]
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <thread>

#include "cuda_actions.h"
#include "gpu/launch/launcher.h"
#include "gpu/vm_device.h"
#include "hypers.h"

using namespace pagedopt;
using simulated_cuda::Call;

namespace {

// ---- calls that fail

void check_error(const std::optional<GpuError>& error, const Action& action, const char* call, cudaError_t code,
                 const std::string& what) {
  if (action.on == kSwallows) return require(!error, what + " throws " + (error ? error->what() : ""));
  require(error.has_value(), what + " throws nothing");
  const bool is_own = std::strcmp(call, action.call) == 0;
  std::vector<std::string> parts = {call, is_own ? "gpu_cuda.cpp:" : "cuda_device.h:", cudaGetErrorName(code)};
  if (is_own && action.bytes > 0) parts.push_back(" of " + std::to_string(action.bytes) + " bytes failed");
  for (const std::string& part : parts)
    require(contains(error->what(), part), what + " does not say '" + part + "': " + error->what());
  require(error->code() == code, what + ": code " + std::to_string(error->code()));
}

// False where the action makes no such call.
bool check_failure(const Action& action, const char* call, cudaError_t code, int start) {
  const std::string what = std::string(action.name) + ", started on " + std::to_string(start) + ", when " + call +
                           " returns " + cudaGetErrorName(code);
  install();
  start_on(start);
  World world(1);
  (void)simulated_cuda::take_calls();
  simulated_cuda::fail(call, code, 1000);
  const auto error = error_of([&] { action.act(world); });
  simulated_cuda::forgive();
  const std::vector<Call> calls = simulated_cuda::take_calls();
  if (std::none_of(calls.begin(), calls.end(), [&](const Call& made) { return made.name == call; })) return false;
  require_clean(action.on == kStays ? 1 : start, what);
  const bool is_refused = action.on == kHints && std::strcmp(call, action.call) == 0 && means_no_memory(code);
  require(world.is_taken != is_refused, what + (is_refused ? " counts as taken" : " counts as refused"));
  if (is_refused)
    require(!error, what + " throws " + (error ? error->what() : ""));
  else
    check_error(error, action, call, code, what);
  return true;
}

void test_failures() {
  for (const Action& action : kActions)
    for (const int start : {kNone, 0, 1})
      for (const cudaError_t code :
           {cudaErrorMemoryAllocation, cudaErrorOperatingSystem, cudaErrorUnknown, cudaErrorLaunchFailure}) {
        require(check_failure(action, action.call, code, start),
                action.name + std::string(" never calls ") + action.call);
        for (const char* guard : kGuards)
          if (!contains(action.name, "begin_thread")) check_failure(action, guard, code, start);
        require_nothing_held(action.name);
      }
}

// Runs first: what is found once is kept.
void test_driver_functions() {
  install();
  const auto gpu = make_cuda_gpu(0);
  simulated_cuda::fail("cudaGetDriverEntryPoint", cudaErrorInsufficientDriver);
  const auto error = error_of([&] { gpu->synchronize(); });
  require(error && error->code() == cudaErrorInsufficientDriver && contains(error->what(), "cudaGetDriverEntryPoint"),
          "a driver without functions for contexts is no error");
  require_clean(kNone, "a driver without functions for contexts");
  require(!error_of([&] { gpu->synchronize(); }), "the driver's functions are not looked for again");
}

// Every call of the runtime that was made has a row above, or a test of its own.
void test_every_call_has_a_row() {
  std::set<std::string> known(std::begin(kGuards), std::end(kGuards));
  for (const Action& action : kActions) known.insert(action.call);
  for (const char* other :
       {"cudaGetDeviceCount", "cudaGetDriverEntryPoint", "cudaMemPrefetchBatchAsync", "cudaMemDiscardBatchAsync",
        "cuCtxSetCurrent", "cudaStreamBeginCapture", "cudaStreamEndCapture"})
    known.insert(other);
  for (const std::string& name : simulated_cuda::names_of_calls())
    require(known.count(name) != 0, "nothing tests what becomes of " + name + " when it fails");
}

// ---- devices and threads

void require_all_on(int device, const std::string& what) {
  for (const Call& call : simulated_cuda::take_calls()) {
    require(call.result == cudaSuccess, what + ": " + call.name + " returns " + cudaGetErrorName(call.result));
    if (call.current == kNone) continue;
    require(call.current == device, what + ": " + call.name + " with device " + std::to_string(call.current));
    for (const int subject : call.subjects)
      require(subject == device, what + ": " + call.name + " on what is device " + std::to_string(subject) + "'s");
  }
}

bool is_refused_on_default_stream(const Action& action) { return contains(action.name, "default stream"); }

void test_devices() {
  for (const int device : {0, 1})
    for (const int start : {kNone, 0, 1})
      for (const Action& action : kActions) {
        const std::string what =
            std::string(action.name) + " of GPU " + std::to_string(device) + ", started on " + std::to_string(start);
        install();
        start_on(start);
        {
          World world(device);
          require_all_on(device, "making what " + what + " needs");
          action.act(world);
          if (!is_refused_on_default_stream(action)) require_all_on(device, what);
          require_clean(contains(action.name, "begin_thread") ? device : start, what);
          (void)simulated_cuda::take_calls();
        }
        if (start == kNone)
          require(!simulated_cuda::has_context(1 - device), what + " gives the other device a context");
        require_nothing_held(what);
      }
}

void test_begin_thread() {
  install();
  start_on(0);
  std::thread([] {
    make_cuda_gpu(1)->begin_thread();
    require(simulated_cuda::thread_capture_mode() == cudaStreamCaptureModeRelaxed, "captures of others bother it");
    (void)simulated_cuda::take_calls();
    for (const Action& action : kActions) {
      if (contains(action.name, "begin_thread")) continue;
      World world(1);
      action.act(world);
      for (const Call& call : simulated_cuda::take_calls())
        require(call.name != "cudaSetDevice" && call.name != "cuCtxSetCurrent",
                action.name + std::string(" sets the device in a thread of the GPU's own"));
      require_clean(1, action.name);
    }
  }).join();
  require_clean(0, "another thread");
  require(simulated_cuda::thread_capture_mode() == cudaStreamCaptureModeGlobal, "a mode of another thread is changed");
}

// An event can be waited for by another device, and recorded by its own alone.
void test_streams_of_another_device() {
  install();
  World here(0), there(1);
  const auto error = error_of([&] { here.gpu->record(here.event, there.stream); });
  require(error && error->code() == cudaErrorInvalidResourceHandle, "an event is recorded on another device's stream");
  here.gpu->record(here.event, here.stream);
  require(!error_of([&] { there.gpu->wait(here.event, there.stream); }), "no wait for another device's event");
  const auto launch = error_of([&] { here.gpu->run({}, {Pass::update}, 0, 0, there.stream); });
  require(launch && launch->code() == cudaErrorInvalidResourceHandle, "a kernel runs on another device's stream");
  require_clean(kNone, "what concerns another device");
}

// ---- graphs that are captured

void test_capture() {
  install();
  start_on(1);
  World world(1);
  const auto stream = static_cast<cudaStream_t>(world.stream);
  cudaStream_t blocking = nullptr;
  cudaGraph_t graph = nullptr;
  require(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault) == cudaSuccess, "cudaStreamCreateWithFlags");
  world.streams.push_back(blocking);
  Row row;
  DeviceStep step(world.gpu, make_device_tasks({row}, {hyper_of()}), 1, 1, {});

  require(!world.gpu->is_capturing(world.stream), "a stream that is not captured says so");
  (void)cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  require(world.gpu->is_capturing(world.stream), "a stream that is captured says so");
  const auto refused = error_of([&] { step.run({row}, {hyper_of()}, {}, nullptr, {}, world.stream); });
  require(refused && refused->code() == cudaErrorStreamCaptureUnsupported, "a step is captured");
  std::thread([&] {
    require(cudaEventQuery(static_cast<cudaEvent_t>(world.event)) == cudaErrorStreamCaptureUnsupported,
            "a capture that anyone may disturb");
    (void)cudaGetLastError();
    require(!error_of([&] { world.gpu->synchronize(world.event); }), "a thread minds a capture");
    require_clean(0, "a thread that another's capture concerns");
    world.gpu->begin_thread();
    require(!error_of([&] { world.gpu->synchronize(world.event); }), "a thread of the GPU's own minds a capture");
  }).join();
  (void)cudaStreamEndCapture(stream, &graph);

  (void)cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed);
  const auto implicit = error_of([&] { world.gpu->is_capturing(nullptr); });
  require(implicit && implicit->code() == cudaErrorStreamCaptureImplicit, "the default stream joins a capture");
  (void)cudaStreamEndCapture(blocking, &graph);
  require_clean(1, "a capture");
}

// What is done beside it does not end a capture: all but waiting for the whole device, which is not allowed meanwhile.
void test_beside_a_capture() {
  for (const Action& action : kActions) {
    install();
    start_on(1);
    World world(1);
    world.streams.push_back(world.gpu->make_stream());
    const auto captured = static_cast<cudaStream_t>(world.streams.back());
    (void)cudaStreamBeginCapture(captured, cudaStreamCaptureModeGlobal);
    std::thread([&] {
      (void)error_of([&] { action.act(world); });
      const bool is_own_thread = contains(action.name, "begin_thread");
      require(is_own_thread || simulated_cuda::thread_capture_mode() == cudaStreamCaptureModeGlobal,
              action.name + std::string(" changes the thread's mode"));
    }).join();
    cudaGraph_t graph = nullptr;
    const bool is_over = cudaStreamEndCapture(captured, &graph) != cudaSuccess;
    require(is_over == (std::strcmp(action.name, "synchronize") == 0),
            action.name + std::string(is_over ? " ends" : " does not end") + " a capture");
    (void)cudaGetLastError();
  }
}

// ---- a forked child

int exit_status_of(pid_t child) {
  int status = 1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Everything is refused, but for what gives something back: that does nothing. The runtime is not called at all.
void act_in_child(World& world) {
  for (const Action& action : kActions) {
    if (std::strcmp(action.name, "make") == 0) continue;
    const auto error = error_of([&] { action.act(world); });
    const std::string text = error ? error->what() : "";
    require(text.empty() == (action.on == kSwallows), action.name + std::string(" in a forked child: ") + text);
    require(text.empty() || contains(text, "forked child"), action.name + std::string(": ") + text);
  }
}

void test_fork() {
  install();
  {
    auto world = std::make_unique<World>(1);
    Row row;
    auto step = std::make_unique<DeviceStep>(world->gpu, make_device_tasks({row}, {hyper_of()}), 1, 1, StateRange{});
    auto vm = make_device_vm(world->gpu, kBytes, 8 * kBytes, true);
    (void)simulated_cuda::take_calls();
    const pid_t child = ::fork();
    if (child == 0) {
      require(::msync(world->managed(), kBytes, MS_ASYNC) != 0 && errno == ENOMEM, "a child has managed memory mapped");
      act_in_child(*world);
      vm.reset();
      step.reset();
      world.reset();
      require(simulated_cuda::take_calls().empty(), "a forked child calls the runtime");
      ::_exit(0);
    }
    require(exit_status_of(child) == 0, "the child fails");
    require(simulated_cuda::take_calls().empty(), "a forked child acts for its parent");
  }
  require_nothing_held("after a fork");
}

}  // namespace

int main(int argc, char** argv) {
  return run_groups(argc, argv,
                    {{"driver_functions", test_driver_functions},
                     {"failures", test_failures},
                     {"devices", test_devices},
                     {"begin_thread", test_begin_thread},
                     {"streams_of_another_device", test_streams_of_another_device},
                     {"capture", test_capture},
                     {"beside_a_capture", test_beside_a_capture},
                     {"fork", test_fork},
                     {"every_call_has_a_row", test_every_call_has_a_row}});
}

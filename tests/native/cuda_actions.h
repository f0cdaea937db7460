// A GPU on the simulated CUDA runtime, everything that it does as a table, and what has to hold after each.
#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "gpu/gpu.h"
#include "simulated_cuda.h"

namespace pagedopt {

inline constexpr std::size_t kBytes = 64 << 10;
inline constexpr int kNone = -1;  // a thread that never used CUDA

inline void install() { simulated_cuda::install({{}, {}}); }

// A GPU and one of each thing that it gives.
struct World {
  explicit World(int device) : gpu(make_cuda_gpu(device)), host(2 * kBytes) {
    for (const Memory kind : {Memory::managed, Memory::managed, Memory::device, Memory::pinned}) allocate(kind);
    gpu->register_host(host.data(), kBytes);
    stream = gpu->make_stream();
    event = gpu->make_event(true);
  }
  // What a test gave back already is refused by the runtime, and nothing comes of it.
  ~World() {
    for (const auto& [kind, begin] : memory) gpu->free(kind, begin);
    for (std::byte* begin : {host.data(), host.data() + kBytes}) gpu->unregister_host(begin);
    for (StreamHandle other : streams) gpu->free_stream(other);
    for (EventHandle other : events) gpu->free_event(other);
    gpu->free_stream(stream);
    gpu->free_event(event);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void allocate(Memory kind) { memory.emplace_back(kind, gpu->allocate(kind, kBytes)); }
  std::byte* managed(std::size_t index = 0) const { return memory[index].second; }
  std::byte* device() const { return memory[2].second; }
  std::byte* pinned() const { return memory[3].second; }
  std::vector<Run> runs() const { return {{managed(0), kBytes}, {managed(1), kBytes / 2}}; }

  std::shared_ptr<Gpu> gpu;
  std::vector<std::byte> host;
  std::vector<std::pair<Memory, std::byte*>> memory;
  std::vector<StreamHandle> streams;
  std::vector<EventHandle> events;
  StreamHandle stream = nullptr;
  EventHandle event = nullptr;
  bool is_taken = true;  // the last hint
};

// Everything a Gpu does, the call of the runtime it rests on, and the size that call's error names. A hint that there
// is no memory for is not taken; any other error of it throws.
enum class On { error_throws, error_is_swallowed, error_throws_thread_stays, shortage_refuses };
struct Action {
  const char* name;
  const char* call;
  std::size_t bytes;
  On on;
  void (*act)(World&);
};

inline constexpr auto kThrows = On::error_throws, kSwallows = On::error_is_swallowed,
                      kStays = On::error_throws_thread_stays, kHints = On::shortage_refuses;
inline const Action kActions[] = {
    {"make", "cudaGetDeviceProperties", 0, kThrows, [](World& w) { make_cuda_gpu(w.gpu->info().device); }},
    {"make", "cudaDeviceGetAttribute", 0, kThrows, [](World& w) { make_cuda_gpu(w.gpu->info().device); }},
    {"free_bytes", "cudaMemGetInfo", 0, kThrows, [](World& w) { w.gpu->free_bytes(); }},
    {"allocate managed", "cudaMallocManaged", kBytes, kThrows, [](World& w) { w.allocate(Memory::managed); }},
    {"allocate device", "cudaMalloc", kBytes, kThrows, [](World& w) { w.allocate(Memory::device); }},
    {"allocate pinned", "cudaMallocHost", kBytes, kThrows, [](World& w) { w.allocate(Memory::pinned); }},
    {"free managed", "cudaFree", 0, kSwallows, [](World& w) { w.gpu->free(Memory::managed, w.managed()); }},
    {"free device", "cudaFree", 0, kSwallows, [](World& w) { w.gpu->free(Memory::device, w.device()); }},
    {"free pinned", "cudaFreeHost", 0, kSwallows, [](World& w) { w.gpu->free(Memory::pinned, w.pinned()); }},
    {"register_host", "cudaHostRegister", kBytes, kThrows,
     [](World& w) { w.gpu->register_host(w.host.data() + kBytes, kBytes); }},
    {"unregister_host", "cudaHostUnregister", 0, kSwallows, [](World& w) { w.gpu->unregister_host(w.host.data()); }},
    {"begin_thread", "cudaSetDevice", 0, kThrows, [](World& w) { w.gpu->begin_thread(); }},
    {"begin_thread", "cudaThreadExchangeStreamCaptureMode", 0, kStays, [](World& w) { w.gpu->begin_thread(); }},
    {"make_stream", "cudaStreamCreateWithFlags", 0, kThrows,
     [](World& w) { w.streams.push_back(w.gpu->make_stream()); }},
    {"free_stream", "cudaStreamDestroy", 0, kSwallows, [](World& w) { w.gpu->free_stream(w.stream); }},
    {"make_event", "cudaEventCreateWithFlags", 0, kThrows,
     [](World& w) { w.events.push_back(w.gpu->make_event(false)); }},
    {"free_event", "cudaEventDestroy", 0, kSwallows, [](World& w) { w.gpu->free_event(w.event); }},
    {"is_capturing", "cudaStreamIsCapturing", 0, kThrows, [](World& w) { w.gpu->is_capturing(w.stream); }},
    {"record", "cudaEventRecord", 0, kThrows, [](World& w) { w.gpu->record(w.event, w.stream); }},
    {"record, default stream", "cudaEventRecord", 0, kThrows, [](World& w) { w.gpu->record(w.event, nullptr); }},
    {"wait", "cudaStreamWaitEvent", 0, kThrows, [](World& w) { w.gpu->wait(w.event, w.stream); }},
    {"is_done", "cudaEventQuery", 0, kThrows, [](World& w) { w.gpu->is_done(w.event); }},
    {"synchronize an event", "cudaEventSynchronize", 0, kThrows, [](World& w) { w.gpu->synchronize(w.event); }},
    {"synchronize", "cudaDeviceSynchronize", 0, kThrows, [](World& w) { w.gpu->synchronize(); }},
    {"copy", "cudaMemcpyAsync", kBytes, kThrows,
     [](World& w) { w.gpu->copy(w.device(), w.host.data(), kBytes, w.stream); }},
    {"copy, default stream", "cudaMemcpyAsync", kBytes, kThrows,
     [](World& w) { w.gpu->copy(w.managed(), w.pinned(), kBytes, nullptr); }},
    {"copy_state", "cudaMemcpyAsync", kBytes, kThrows,
     [](World& w) { w.gpu->copy_state({{w.device(), w.managed(), kBytes}}, Place::device, w.stream); }},
    {"copy_state, told the direction", "cudaMemcpyAsync", kBytes, kThrows,
     [](World& w) {
       w.gpu->set_copy_hint(CopyHint::direction);
       w.gpu->copy_state({{w.managed(), w.device(), kBytes}}, Place::host, w.stream);
     }},
#if CUDART_VERSION >= 13000
    {"copy_state, in a batch", "cudaMemcpyBatchAsync", 0, kThrows,
     [](World& w) {
       w.gpu->set_copy_hint(CopyHint::batch);
       w.gpu->copy_state({{w.device(), w.managed(), kBytes}}, Place::device, w.stream);
     }},
#endif
    {"clear", "cudaMemsetAsync", kBytes, kThrows, [](World& w) { w.gpu->clear(w.device(), kBytes, nullptr); }},
    {"prefetch", "cudaMemPrefetchAsync", kBytes, kHints,
     [](World& w) { w.is_taken = w.gpu->prefetch({{w.managed(), kBytes}}, Place::device, w.stream); }},
    {"evict", "cudaMemPrefetchAsync", kBytes, kHints,
     [](World& w) { w.is_taken = w.gpu->prefetch({{w.managed(), kBytes}}, Place::host, w.stream); }},
    {"prefetch, default stream", "cudaMemPrefetchAsync", kBytes, kHints,
     [](World& w) { w.is_taken = w.gpu->prefetch(w.runs(), Place::device, nullptr); }},
    {"discard, default stream", "cudaMemPrefetchAsync", kBytes, kHints,
     [](World& w) { w.is_taken = w.gpu->discard(w.runs(), nullptr); }},
    {"map_for_device", "cudaMemAdvise", kBytes, kHints,
     [](World& w) { w.is_taken = w.gpu->map_for_device(w.managed(), kBytes); }},
    {"prefer the device", "cudaMemAdvise", kBytes, kHints,
     [](World& w) { w.is_taken = w.gpu->prefer(w.managed(), kBytes, Place::device); }},
    {"prefer the host", "cudaMemAdvise", kBytes, kHints,
     [](World& w) { w.is_taken = w.gpu->prefer(w.managed(), kBytes, Place::host); }},
    {"begin_rows", "begin_rows", 0, kThrows, [](World& w) { w.gpu->begin_rows({}, 0, 0, w.stream); }},
    {"finish_measure", "finish_measure", 0, kThrows, [](World& w) { w.gpu->finish_measure({}, 0, 0, w.stream); }},
    {"run", "run", 0, kThrows, [](World& w) { w.gpu->run({}, {Pass::update}, 0, 0, nullptr); }},
};
// What comes before them: telling and setting the thread's device and its mode towards captures.
inline const char* const kGuards[] = {"cuCtxGetCurrent", "cudaGetDevice", "cudaSetDevice",
                                      "cudaThreadExchangeStreamCaptureMode"};

// What the driver may answer to a hint that it has no memory for.
inline constexpr cudaError_t kShortages[] = {cudaErrorMemoryAllocation, cudaErrorOperatingSystem, cudaErrorUnknown};

inline bool means_no_memory(cudaError_t code) {
  return std::find(std::begin(kShortages), std::end(kShortages), code) != std::end(kShortages);
}

// Leaves the thread on a device, or as one that never used CUDA.
inline void start_on(int device) {
  if (device != kNone) require(cudaSetDevice(device) == cudaSuccess, "cudaSetDevice");
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <class Act>
std::optional<GpuError> error_of(Act&& act) {
  try {
    act();
  } catch (const GpuError& error) {
    return error;
  }
  return std::nullopt;
}

inline void require_clean(int device, const std::string& what) {
  require(cudaPeekAtLastError() == cudaSuccess, what + " leaves behind " + cudaGetErrorName(cudaPeekAtLastError()));
  require(simulated_cuda::thread_context() == device, what + " leaves the thread on device " +
                                                          std::to_string(simulated_cuda::thread_context()) + ", not " +
                                                          std::to_string(device));
}

inline void require_nothing_held(const std::string& what) {
  const simulated_cuda::Held held = simulated_cuda::held();
  require(held.memory + held.streams + held.events + held.registrations == 0, what + ": something is not given back");
}

}  // namespace pagedopt

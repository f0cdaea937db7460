// What simulated_cuda.cpp knows of the machine, and the rules its calls share.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "simulated_cuda.h"

namespace simulated_cuda {

inline constexpr int kRubbish = 0x7f;  // what memory holds that nobody wrote
inline constexpr std::size_t kMostRegisteredBytes = std::size_t{256} << 20;

enum class Kind { device, managed, pinned, registered };

struct Memory {
  Kind kind;
  std::size_t bytes;
  int device;  // that was current
};

struct Stream {
  int device;
  bool is_blocking;
  bool is_capturing = false, is_broken = false;  // broken: something that is not allowed came between
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id captured_by = {};
};

struct Failure {
  std::string name;
  cudaError_t code;
  int times, skipped;
};

struct Machine {
  std::mutex mutex;
  std::vector<Device> devices;
  cudaError_t absence = cudaSuccess;
  pid_t pid = 0;
  std::set<int> contexts;
  std::map<const std::byte*, Memory> memory;
  std::map<std::uintptr_t, Stream> streams;  // by handle; the least that is free is given out next
  std::map<std::uintptr_t, int> events;      // and their devices
  std::vector<Failure> failures;
  std::vector<Call> calls;
  std::set<std::string> names;
};

inline Machine machine;

// Of a thread. The runtime remembers a device also while the driver has no context for the thread.
inline thread_local int chosen = 0, context = -1;
inline thread_local cudaError_t last_error = cudaSuccess;
inline thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

inline int current_device() { return context >= 0 ? context : chosen; }

inline std::uintptr_t number(const void* handle) { return reinterpret_cast<std::uintptr_t>(handle); }
inline std::string show(const void* handle) { return std::to_string(number(handle)); }

template <class Value>
inline std::uintptr_t free_handle(const std::map<std::uintptr_t, Value>& taken) {
  std::uintptr_t handle = 0x1000;
  while (taken.count(handle) != 0) handle += 0x10;
  return handle;
}

inline int count_of_devices() { return static_cast<int>(machine.devices.size()); }
inline bool is_device(int device) { return device >= 0 && device < count_of_devices(); }
inline bool all_migrate() {
  return std::all_of(machine.devices.begin(), machine.devices.end(), [](const Device& d) { return d.migrates; });
}

// What a call asks for: nothing; its thread's device, which gets a context; or that, and that no graph is captured
// where the thread's mode forbids to interfere.
enum class Wants { nothing, device, no_capture };

// Ends the captures of the streams that `minds` says; whether there are any.
template <class Minds>
inline bool breaks_capture(Minds&& minds) {
  bool any = false;
  for (auto& [handle, stream] : machine.streams)
    if (stream.is_capturing && minds(stream)) any = stream.is_broken = true;
  return any;
}

inline bool is_prohibited() {
  return breaks_capture([](const Stream& stream) {
    if (capture_mode == cudaStreamCaptureModeRelaxed) return false;
    if (stream.captured_by == std::this_thread::get_id()) return stream.mode != cudaStreamCaptureModeRelaxed;
    return capture_mode == cudaStreamCaptureModeGlobal && stream.mode == cudaStreamCaptureModeGlobal;
  });
}

inline cudaError_t refusal(const char* name) {
  if (::getpid() != machine.pid) return cudaErrorInitializationError;
  if (machine.absence != cudaSuccess) return machine.absence;
  for (Failure& failure : machine.failures) {
    if (failure.name != name || failure.times == 0) continue;
    if (failure.skipped-- > 0) continue;
    --failure.times;
    return failure.code;
  }
  return cudaSuccess;
}

template <class Body>
inline cudaError_t perform(const char* name, Wants wants, Body&& body) {
  const std::lock_guard lock(machine.mutex);
  Call call{name, -1, {}, refusal(name), "", 0};
  if (wants != Wants::nothing) {
    call.current = current_device();
    if (call.result == cudaSuccess) machine.contexts.insert(context = call.current);
  }
  if (call.result == cudaSuccess && wants == Wants::no_capture && is_prohibited())
    call.result = cudaErrorStreamCaptureUnsupported;
  if (call.result == cudaSuccess) call.result = body(call);
  if (call.result != cudaSuccess) last_error = call.result;
  machine.calls.push_back(call);
  machine.names.insert(name);
  return call.result;
}

// The device of a stream in `device`. Null is the current device's legacy stream, which no call may use while a
// blocking stream of that device captures: that ends the capture.
inline cudaError_t find(cudaStream_t stream, Call& call, int& device) {
  device = current_device();
  if (stream == nullptr || stream == cudaStreamLegacy) {
    if (breaks_capture([&](const Stream& other) { return other.is_blocking && other.device == device; }))
      return cudaErrorStreamCaptureImplicit;
  } else {
    const auto found = machine.streams.find(number(stream));
    if (found == machine.streams.end()) return cudaErrorInvalidResourceHandle;
    device = found->second.device;
  }
  call.subjects.push_back(device);
  return cudaSuccess;
}

inline bool is_legacy(cudaStream_t stream) { return stream == nullptr || stream == cudaStreamLegacy; }

inline cudaError_t find(cudaEvent_t event, Call& call) {
  const auto found = machine.events.find(number(event));
  if (found == machine.events.end()) return cudaErrorInvalidResourceHandle;
  call.subjects.push_back(found->second);
  return cudaSuccess;
}

inline const std::pair<const std::byte* const, Memory>* memory_at(const void* address) {
  auto next = machine.memory.upper_bound(static_cast<const std::byte*>(address));
  if (next == machine.memory.begin()) return nullptr;
  const auto& entry = *std::prev(next);
  return address < entry.first + entry.second.bytes ? &entry : nullptr;
}

// What is known of [address, address + bytes): null for memory of the host that CUDA knows nothing of.
inline cudaError_t find(const void* address, std::size_t bytes, Call& call, const Memory*& memory) {
  const auto* const begin = static_cast<const std::byte*>(address);
  const auto* const entry = memory_at(address);
  memory = entry == nullptr ? nullptr : &entry->second;
  if (memory == nullptr) return memory_at(begin + bytes - 1) == nullptr ? cudaSuccess : cudaErrorInvalidValue;
  if (begin + bytes > entry->first + memory->bytes) return cudaErrorInvalidValue;  // it ends inside
  call.subjects.push_back(memory->device);
  return cudaSuccess;
}

// pre: nothing of it is known
inline void add(Kind kind, void* begin, std::size_t bytes) {
  machine.memory[static_cast<const std::byte*>(begin)] = {kind, bytes, current_device()};
}

inline std::size_t used_bytes(int device) {
  std::size_t bytes = 0;
  for (const auto& [begin, memory] : machine.memory)
    if (memory.kind == Kind::device && memory.device == device) bytes += memory.bytes;
  return bytes;
}

// All memory comes from mmap: a range that is not for children must not share its pages with the heap.
inline cudaError_t allocate(Kind kind, void** to, std::size_t bytes, Call& call) {
  call.bytes = bytes;
  const int device = current_device();
  if (to == nullptr || bytes == 0) return cudaErrorInvalidValue;
  if (kind == Kind::device && used_bytes(device) + bytes > machine.devices[device].total_bytes)
    return cudaErrorMemoryAllocation;
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  std::memset(memory, kRubbish, bytes);
  add(kind, memory, bytes);
  *to = memory;
  return cudaSuccess;
}

inline cudaError_t release(void* memory, bool is_pinned, Call& call) {
  if (memory == nullptr) return cudaSuccess;
  const auto found = machine.memory.find(static_cast<const std::byte*>(memory));
  if (found == machine.memory.end() || found->second.kind == Kind::registered ||
      (found->second.kind == Kind::pinned) != is_pinned)
    return cudaErrorInvalidValue;
  call.subjects.push_back(found->second.device);
  ::munmap(memory, found->second.bytes);
  machine.memory.erase(found);
  return cudaSuccess;
}

inline cudaError_t find_managed(const void* begin, std::size_t bytes, Call& call) {
  const Memory* memory = nullptr;
  if (bytes == 0) return cudaErrorInvalidValue;
  if (const cudaError_t error = find(begin, bytes, call, memory)) return error;
  call.bytes += bytes;
  return memory != nullptr && memory->kind == Kind::managed ? cudaSuccess : cudaErrorInvalidValue;
}

// Of a move or an advice: a device that migrates, or the host (-1).
inline cudaError_t find_place(int device, Call& call) {
  call.detail += device < 0 ? " to host" : " to device " + std::to_string(device);
  if (device < 0) return cudaSuccess;
  call.subjects.push_back(device);
  return is_device(device) && machine.devices[device].migrates ? cudaSuccess : cudaErrorInvalidDevice;
}

// Managed memory takes the place of other managed memory, and of none that was allocated.
inline bool is_full(int device, std::size_t bytes) {
  return is_device(device) && used_bytes(device) + bytes > machine.devices[device].total_bytes;
}

inline cudaError_t prefetch(const void* begin, std::size_t bytes, int device, cudaStream_t stream, Call& call) {
  int of_stream = 0;
  if (const cudaError_t error = find(stream, call, of_stream)) return error;
  if (const cudaError_t error = find_managed(begin, bytes, call)) return error;
  if (!machine.devices[of_stream].migrates) return cudaErrorInvalidDevice;
  if (const cudaError_t error = find_place(device, call)) return error;
  return is_full(device, bytes) ? cudaErrorMemoryAllocation : cudaSuccess;
}

inline cudaError_t advise(const void* begin, std::size_t bytes, cudaMemoryAdvise advice, int device, Call& call) {
  call.detail = advice == cudaMemAdviseSetAccessedBy ? "accessed by" : "preferred location";
  if (advice != cudaMemAdviseSetAccessedBy && advice != cudaMemAdviseSetPreferredLocation) return cudaErrorInvalidValue;
  if (const cudaError_t error = find_managed(begin, bytes, call)) return error;
  return find_place(device, call);
}

#if CUDART_VERSION >= 13000
// As CUDA 12 counts them: -1 is the host. None: the place is neither that nor a device.
inline std::optional<int> number_of(cudaMemLocation place) {
  if (place.type == cudaMemLocationTypeHost) return -1;
  if (place.type == cudaMemLocationTypeDevice && is_device(place.id)) return place.id;
  return std::nullopt;
}

// What the batched calls have in common.
inline cudaError_t check_batch(void** begins, std::size_t* bytes, std::size_t count, unsigned long long flags,
                               cudaStream_t stream, Call& call) {
  int of_stream = 0;
  if (const cudaError_t error = find(stream, call, of_stream)) return error;
  if (is_legacy(stream) || flags != 0 || count == 0 || begins == nullptr || bytes == nullptr)
    return cudaErrorInvalidValue;
  if (!all_migrate()) return cudaErrorNotSupported;
  for (std::size_t i = 0; i < count; ++i)
    if (const cudaError_t error = find_managed(begins[i], bytes[i], call)) return error;
  return cudaSuccess;
}
#endif

// Whether the ends of a copy are what its kind says: managed memory is either.
inline bool fits(cudaMemcpyKind kind, const Memory* to, const Memory* from) {
  const auto on_device = [](const Memory* m) {
    return m != nullptr && (m->kind == Kind::device || m->kind == Kind::managed);
  };
  const auto on_host = [](const Memory* m) { return m == nullptr || m->kind != Kind::device; };
  switch (kind) {
    case cudaMemcpyDefault: return true;
    case cudaMemcpyDeviceToDevice: return on_device(to) && on_device(from);
    case cudaMemcpyHostToDevice: return on_device(to) && on_host(from);
    case cudaMemcpyDeviceToHost: return on_host(to) && on_device(from);
    default: return false;
  }
}

inline cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, Call& call) {
  const Memory *target = nullptr, *source = nullptr;
  call.bytes += bytes;
  if (const cudaError_t error = find(to, bytes, call, target)) return error;
  if (const cudaError_t error = find(from, bytes, call, source)) return error;
  if (!fits(kind, target, source)) return cudaErrorInvalidValue;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

}  // namespace simulated_cuda

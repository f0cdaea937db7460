#include <cudaTypedefs.h>

#include "simulated_machine.h"

namespace simulated_cuda {

void install(const std::vector<Device>& devices, cudaError_t absence) {
  const std::lock_guard lock(machine.mutex);
  machine.devices = devices;
  machine.absence = absence;
  machine.pid = ::getpid();
  machine.contexts.clear();
  machine.memory.clear();
  machine.streams.clear();
  machine.events.clear();
  machine.failures.clear();
  machine.calls.clear();
  chosen = 0, context = -1;
  last_error = cudaSuccess;
  capture_mode = cudaStreamCaptureModeGlobal;
}

std::vector<Call> take_calls() {
  const std::lock_guard lock(machine.mutex);
  return std::exchange(machine.calls, {});
}

std::vector<std::string> names_of_calls() {
  const std::lock_guard lock(machine.mutex);
  return {machine.names.begin(), machine.names.end()};
}

void fail(const std::string& name, cudaError_t code, int times, int skipped) {
  const std::lock_guard lock(machine.mutex);
  machine.failures.push_back({name, code, times, skipped});
}

void forgive() {
  const std::lock_guard lock(machine.mutex);
  machine.failures.clear();
}

cudaError_t launch(const char* name, cudaStream_t stream) {
  (void)perform(name, Wants::device, [&](Call& call) {
    int device = 0;
    if (const cudaError_t error = find(stream, call, device)) return error;
    return device == current_device() ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
  return cudaGetLastError();
}

bool is_reachable(int device, const void* memory, std::size_t bytes) {
  const std::lock_guard lock(machine.mutex);
  const auto* const entry = memory_at(memory);
  if (entry == nullptr || static_cast<const std::byte*>(memory) + bytes > entry->first + entry->second.bytes)
    return false;
  const Memory& found = entry->second;
  return found.kind == Kind::registered ? machine.devices[device].shares_host_address
                                        : found.kind != Kind::device || found.device == device;
}

Held held() {
  const std::lock_guard lock(machine.mutex);
  const auto registrations =
      static_cast<std::size_t>(std::count_if(machine.memory.begin(), machine.memory.end(),
                                             [](const auto& entry) { return entry.second.kind == Kind::registered; }));
  return {machine.memory.size() - registrations, machine.streams.size(), machine.events.size(), registrations};
}

bool has_context(int device) {
  const std::lock_guard lock(machine.mutex);
  return machine.contexts.count(device) != 0;
}

int thread_context() { return context; }
cudaStreamCaptureMode thread_capture_mode() { return capture_mode; }

}  // namespace simulated_cuda

using namespace simulated_cuda;

// ---- errors. None of these counts as a call: they reach no device

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

namespace {

struct Word {
  cudaError_t code;
  const char *name, *text;
};

#define WORD(code, text) {code, #code, text}
constexpr Word kWords[] = {
    WORD(cudaSuccess, "no error"),
    WORD(cudaErrorInvalidValue, "invalid argument"),
    WORD(cudaErrorMemoryAllocation, "out of memory"),
    WORD(cudaErrorInitializationError, "initialization error"),
    WORD(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    WORD(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    WORD(cudaErrorInvalidDevice, "invalid device ordinal"),
    WORD(cudaErrorDeviceUninitialized, "invalid device context"),
    WORD(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    WORD(cudaErrorNotReady, "device not ready"),
    WORD(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    WORD(cudaErrorOperatingSystem, "OS call failed or operation not supported on this OS"),
    WORD(cudaErrorUnknown, "unknown error"),
    WORD(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped"),
    WORD(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    WORD(cudaErrorLaunchFailure, "unspecified launch failure"),
    WORD(cudaErrorNotSupported, "operation not supported"),
    WORD(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    WORD(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    WORD(cudaErrorStreamCaptureImplicit,
         "operation would make the legacy stream depend on a capturing blocking stream"),
};
#undef WORD

const Word* word_of(cudaError_t code) {
  const auto* const found =
      std::find_if(std::begin(kWords), std::end(kWords), [&](const Word& word) { return word.code == code; });
  return found == std::end(kWords) ? nullptr : found;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t code) {
  const Word* const word = word_of(code);
  return word == nullptr ? "unrecognized error code" : word->name;
}
const char* cudaGetErrorString(cudaError_t code) {
  const Word* const word = word_of(code);
  return word == nullptr ? "unrecognized error code" : word->text;
}

// ---- devices and contexts

cudaError_t cudaGetDeviceCount(int* count) {
  return perform("cudaGetDeviceCount", Wants::nothing, [&](Call&) {
    *count = count_of_devices();
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return perform("cudaGetDevice", Wants::nothing, [&](Call&) {
    *device = current_device();
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return perform("cudaSetDevice", Wants::nothing, [&](Call&) {
    if (!is_device(device)) return cudaErrorInvalidDevice;
    machine.contexts.insert(chosen = context = device);
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return perform("cudaGetDeviceProperties", Wants::nothing, [&](Call&) {
    if (!is_device(device)) return cudaErrorInvalidDevice;
    *properties = {};
    std::strcpy(properties->name, ("simulated " + std::to_string(device)).c_str());
    properties->totalGlobalMem = machine.devices[device].total_bytes;
    properties->major = machine.devices[device].major;
    properties->minor = machine.devices[device].minor;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int device) {
  return perform("cudaDeviceGetAttribute", Wants::nothing, [&](Call&) {
    if (!is_device(device)) return cudaErrorInvalidDevice;
    const Device& of = machine.devices[device];
    switch (name) {
      case cudaDevAttrConcurrentManagedAccess: *value = of.migrates; return cudaSuccess;
      case cudaDevAttrCanUseHostPointerForRegisteredMem: *value = of.shares_host_address; return cudaSuccess;
      case cudaDevAttrIntegrated: *value = of.is_integrated; return cudaSuccess;
      case cudaDevAttrPageableMemoryAccessUsesHostPageTables: *value = of.uses_host_page_tables; return cudaSuccess;
      default: return cudaErrorInvalidValue;
    }
  });
}

cudaError_t cudaDeviceSynchronize() {
  return perform("cudaDeviceSynchronize", Wants::no_capture, [](Call&) {
    // Whatever the mode [CUDA C++ Programming Guide, "Prohibited and Unhandled Operations"].
    const bool any = breaks_capture([](const Stream& stream) { return stream.device == current_device(); });
    return any ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return perform("cudaThreadExchangeStreamCaptureMode", Wants::nothing, [&](Call&) {
    std::swap(*mode, capture_mode);
    return cudaSuccess;
  });
}

namespace {

// The driver's: they leave no error behind for the runtime.
template <class Body>
CUresult perform_driver(const char* name, Body&& body) {
  const cudaError_t before = last_error;
  const cudaError_t result = perform(name, Wants::nothing, body);
  last_error = before;
  return static_cast<CUresult>(result);
}

CUresult CUDAAPI get_current(CUcontext* to) {
  return perform_driver("cuCtxGetCurrent", [&](Call&) {
    *to = reinterpret_cast<CUcontext>(static_cast<std::intptr_t>(context + 1));
    return cudaSuccess;
  });
}

CUresult CUDAAPI set_current(CUcontext to) {
  return perform_driver("cuCtxSetCurrent", [&](Call&) {
    const int device = static_cast<int>(number(to)) - 1;
    if (device >= 0 && machine.contexts.count(device) == 0) return cudaErrorDeviceUninitialized;
    context = device;
    return cudaSuccess;
  });
}

cudaError_t find_function(const char* name, void** function, cudaDriverEntryPointQueryResult* status) {
  return perform("cudaGetDriverEntryPoint", Wants::nothing, [&](Call&) {
    *function = std::strcmp(name, "cuCtxGetCurrent") == 0   ? reinterpret_cast<void*>(get_current)
                : std::strcmp(name, "cuCtxSetCurrent") == 0 ? reinterpret_cast<void*>(set_current)
                                                            : nullptr;
    *status = *function == nullptr ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
    return cudaSuccess;
  });
}

}  // namespace

#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned int, unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  return find_function(name, function, status);
}
#else
cudaError_t cudaGetDriverEntryPoint(const char* name, void** function, unsigned long long,
                                    cudaDriverEntryPointQueryResult* status) {
  return find_function(name, function, status);
}
#endif

// ---- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  return perform("cudaStreamCreateWithFlags", Wants::device, [&](Call&) {
    if (flags != cudaStreamDefault && flags != cudaStreamNonBlocking) return cudaErrorInvalidValue;
    const std::uintptr_t handle = free_handle(machine.streams);
    machine.streams[handle] = Stream{current_device(), flags == cudaStreamDefault};
    *stream = reinterpret_cast<cudaStream_t>(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return perform("cudaStreamDestroy", Wants::device, [&](Call& call) {
    int device = 0;
    if (is_legacy(stream)) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = find(stream, call, device)) return error;
    machine.streams.erase(number(stream));
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return perform("cudaStreamBeginCapture", Wants::device, [&](Call& call) {
    int device = 0;
    if (is_legacy(stream)) return cudaErrorStreamCaptureUnsupported;
    if (const cudaError_t error = find(stream, call, device)) return error;
    Stream& found = machine.streams[number(stream)];
    found.is_capturing = true, found.is_broken = false;
    found.mode = mode, found.captured_by = std::this_thread::get_id();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return perform("cudaStreamEndCapture", Wants::device, [&](Call& call) {
    int device = 0;
    if (is_legacy(stream)) return cudaErrorInvalidValue;
    if (const cudaError_t error = find(stream, call, device)) return error;
    Stream& found = machine.streams[number(stream)];
    found.is_capturing = false;
    *graph = nullptr;
    return found.is_broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return perform("cudaStreamIsCapturing", Wants::device, [&](Call& call) {
    int device = 0;
    // This one asks, and ends nothing.
    std::vector<bool> before;
    for (const auto& entry : machine.streams) before.push_back(entry.second.is_broken);
    const cudaError_t error = find(stream, call, device);
    std::size_t i = 0;
    for (auto& entry : machine.streams) entry.second.is_broken = before[i++];
    if (error != cudaSuccess) return error;
    *status = !is_legacy(stream) && machine.streams[number(stream)].is_capturing ? cudaStreamCaptureStatusActive
                                                                                 : cudaStreamCaptureStatusNone;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
  return perform("cudaStreamWaitEvent", Wants::device, [&](Call& call) {
    int device = 0;
    if (flags != cudaEventWaitDefault) return cudaErrorInvalidValue;
    if (const cudaError_t error = find(stream, call, device)) return error;
    call.detail = show(stream) + " " + show(event);
    return find(event, call);  // of any device
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags) {
  return perform("cudaEventCreateWithFlags", Wants::device, [&](Call&) {
    if (flags > 7) return cudaErrorInvalidValue;
    const std::uintptr_t handle = free_handle(machine.events);
    machine.events[handle] = current_device();
    *event = reinterpret_cast<cudaEvent_t>(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return perform("cudaEventDestroy", Wants::device, [&](Call& call) {
    if (const cudaError_t error = find(event, call)) return error;
    machine.events.erase(number(event));
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return perform("cudaEventRecord", Wants::device, [&](Call& call) {
    int device = 0;
    if (const cudaError_t error = find(event, call)) return error;
    const int of_event = call.subjects.back();
    if (const cudaError_t error = find(stream, call, device)) return error;
    call.detail = show(stream) + " " + show(event);
    return of_event == device ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return perform("cudaEventQuery", Wants::no_capture, [&](Call& call) { return find(event, call); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return perform("cudaEventSynchronize", Wants::no_capture, [&](Call& call) { return find(event, call); });
}

// Errors of the CUDA runtime as exceptions, and which device a thread works on.
#pragma once

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <string>

#include "base/error.h"
#include "gpu/gpu.h"

// Stream 0 is torch's default stream, which is the legacy one.
#if defined(__CUDART_API_PER_THREAD_DEFAULT_STREAM)
#error "pagedopt is not for CUDA_API_PER_THREAD_DEFAULT_STREAM"
#endif

namespace pagedopt {

// What else there is to say about memory that was refused; empty when nothing.
using CudaAdvice = std::string (*)(cudaError_t code);

inline std::string room_on_card(cudaError_t code) {
  std::size_t free = 0, total = 0;
  if (code != cudaErrorMemoryAllocation || cudaMemGetInfo(&free, &total) != cudaSuccess) return {};
  return "; the card has " + std::to_string(free) + " of " + std::to_string(total) + " bytes free";
}

inline std::string room_to_lock(cudaError_t) {
  return "; the system limits locked memory (ulimit -l), or there is not enough of it";
}

// Throws what went wrong in words, without the call's arguments, after taking the error from the runtime, which would
// report it again elsewhere.
inline void check_cuda(cudaError_t code, const char* call, const char* file, int line, std::size_t bytes = 0,
                       CudaAdvice advice = nullptr) {
  if (code == cudaSuccess) return;
  const std::string text = std::string(call, std::strcspn(call, "(")) +
                           (bytes ? " of " + std::to_string(bytes) + " bytes" : "") +
                           " failed: " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ", " +
                           file_name(file) + ":" + std::to_string(line) + ")" + (advice ? advice(code) : "");
  (void)cudaGetLastError();
  throw GpuError(text, static_cast<int>(code));
}
#define PAGEDOPT_TRY(call) ::pagedopt::check_cuda((call), #call, __FILE__, __LINE__)
#define PAGEDOPT_TRY_BYTES(call, ...) ::pagedopt::check_cuda((call), #call, __FILE__, __LINE__, __VA_ARGS__)
// For what gives a code under a name of our own, or as another type. The driver's codes are the runtime's.
#define PAGEDOPT_TRY_AS(name, call, bytes) \
  ::pagedopt::check_cuda(static_cast<cudaError_t>(call), name, __FILE__, __LINE__, bytes)

// The driver's functions that tell and set the context a thread works in. The runtime finds them: nothing is linked to
// the driver.
struct ContextFunctions {
  PFN_cuCtxGetCurrent_v4000 get_current;
  PFN_cuCtxSetCurrent_v4000 set_current;
};

inline void* find_in_driver(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult status{};
#if CUDART_VERSION >= 12050
  PAGEDOPT_TRY(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &status));
#else
  PAGEDOPT_TRY(cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &status));
#endif
  if (found == nullptr)
    throw GpuError("the CUDA driver has no " + std::string(name), static_cast<int>(cudaErrorInsufficientDriver));
  return found;
}

inline const ContextFunctions& context_functions() {
  static const ContextFunctions functions = {
      reinterpret_cast<PFN_cuCtxGetCurrent_v4000>(find_in_driver("cuCtxGetCurrent")),
      reinterpret_cast<PFN_cuCtxSetCurrent_v4000>(find_in_driver("cuCtxSetCurrent"))};
  return functions;
}

// The calling thread's device, for as long as this lives. Then the thread has its context back, or none. Setting its
// device again would make a context there, also where that is device 0 because the thread never chose one.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    PAGEDOPT_TRY_AS("cuCtxGetCurrent", context_functions().get_current(&before_), 0);
    int current = -1;
    if (before_ != nullptr) PAGEDOPT_TRY(cudaGetDevice(&current));
    if (current == device) return;
    PAGEDOPT_TRY(cudaSetDevice(device));
    changed_ = true;
  }
  ~OnDevice() {
    if (changed_) (void)context_functions().set_current(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  CUcontext before_ = nullptr;
  bool changed_ = false;
};

// While this lives, what the thread calls does not end a graph that a stream captures. No call of this library is part
// of one [CUDA Runtime API, cudaThreadExchangeStreamCaptureMode].
class RelaxedCapture {
 public:
  RelaxedCapture() { PAGEDOPT_TRY(cudaThreadExchangeStreamCaptureMode(&before_)); }
  ~RelaxedCapture() {
    if (cudaThreadExchangeStreamCaptureMode(&before_) != cudaSuccess) (void)cudaGetLastError();
  }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode before_ = cudaStreamCaptureModeRelaxed;
};

// Both, in the order in which they have to come: the mode wants a context.
struct AtWork {
  explicit AtWork(int number) : device(number) {}
  OnDevice device;
  RelaxedCapture mode;
};

}  // namespace pagedopt

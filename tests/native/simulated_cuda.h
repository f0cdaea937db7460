// A CUDA runtime that is simulated: the functions of cuda_runtime_api.h that the core calls, to be linked in its place.
// Streams do their work at once; what is strict is who may call what: each call fails as the header says the real one
// does, leaves its error behind, and is on record with the device that was current and those of what it was given.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <vector>

namespace simulated_cuda {

struct Device {
  bool migrates = true;             // concurrentManagedAccess
  bool shares_host_address = true;  // canUseHostPointerForRegisteredMem
  std::size_t total_bytes = std::size_t{1} << 30;
  bool is_integrated = false;
  bool uses_host_page_tables = false;  // pageableMemoryAccessUsesHostPageTables
  int major = 9, minor = 0;            // compute capability
};

// The machine from now on, with nothing in it, and the calling thread as one that never used CUDA. With an `absence`,
// all calls return that.
void install(const std::vector<Device>& devices, cudaError_t absence = cudaSuccess);

struct Call {
  std::string name;
  int current;                // device of the calling thread; -1: the call wants none, and gives the thread none
  std::vector<int> subjects;  // devices of the streams, events and memory it was given
  cudaError_t result;
  std::string detail;  // where a move goes, or an advice
  std::size_t bytes;
};
std::vector<Call> take_calls();             // since the last time, in order
std::vector<std::string> names_of_calls();  // all that were ever made, each once

// The next `times` calls of this name return `code` and do nothing, after `skipped` that are left alone.
void fail(const std::string& name, cudaError_t code, int times = 1, int skipped = 0);
void forgive();  // no call is made to fail any more

// A kernel of this name, launched on the calling thread's device; returns what cudaGetLastError would.
cudaError_t launch(const char* name, cudaStream_t stream);
// Whether a kernel on the device can use the memory.
bool is_reachable(int device, const void* memory, std::size_t bytes);

struct Held {
  std::size_t memory, streams, events, registrations;
};
Held held();                   // by the process
bool has_context(int device);  // of the process
int thread_context();          // the device whose context the calling thread is in; -1: in none
cudaStreamCaptureMode thread_capture_mode();

}  // namespace simulated_cuda

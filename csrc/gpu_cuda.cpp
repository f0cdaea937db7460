// The CUDA runtime behind gpu.h, and nothing else. Compiled for CUDA 12 and 13; the differences between them are all
// here. The runtime is linked statically and finds the driver when it is first called: without one, the count is 0.
#include <cuda_runtime_api.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"
#include "gpu.h"

namespace pagedopt {
namespace {

// Throws what went wrong in words, after taking the error from the runtime, which would report it again elsewhere.
void check(cudaError_t code, const char* call, int line, std::size_t bytes = 0, const char* advice = "") {
  if (code == cudaSuccess) return;
  (void)cudaGetLastError();
  std::string text = std::string(call) + (bytes ? " of " + std::to_string(bytes) + " bytes" : "") +
                     " failed: " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ", " +
                     file_name(__FILE__) + ":" + std::to_string(line) + ")";
  if (code == cudaErrorMemoryAllocation) {
    std::size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess)
      text += "; the card has " + std::to_string(free) + " of " + std::to_string(total) + " bytes free";
    (void)cudaGetLastError();
  }
  throw GpuError(text + advice, static_cast<int>(code));
}
#define PAGEDOPT_TRY(call) check((call), #call, __LINE__)
#define PAGEDOPT_TRY_BYTES(call, ...) check((call), #call, __LINE__, __VA_ARGS__)

// The calling thread's device, for as long as this lives.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    PAGEDOPT_TRY(cudaGetDevice(&before_));
    if (before_ == device) return;
    PAGEDOPT_TRY(cudaSetDevice(device));
    changed_ = true;
  }
  ~OnDevice() {
    if (changed_) (void)cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

cudaStream_t stream_of(StreamHandle stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(EventHandle event) { return static_cast<cudaEvent_t>(event); }

#if CUDART_VERSION >= 13000
cudaMemLocation location(Place place, int device) {
  return place == Place::host ? cudaMemLocation{cudaMemLocationTypeHost, 0}
                              : cudaMemLocation{cudaMemLocationTypeDevice, device};
}
#endif

cudaError_t prefetch_async(const Run& run, Place place, int device, cudaStream_t stream) {
#if CUDART_VERSION >= 13000
  return cudaMemPrefetchAsync(run.begin, run.bytes, location(place, device), 0, stream);
#else
  return cudaMemPrefetchAsync(run.begin, run.bytes, place == Place::host ? cudaCpuDeviceId : device, stream);
#endif
}

#if CUDART_VERSION >= 13000
// Runs as the batched calls take them.
struct Batch {
  explicit Batch(const std::vector<Run>& runs) {
    for (const Run& run : runs) {
      memory.push_back(run.begin);
      bytes.push_back(run.bytes);
    }
  }
  std::vector<void*> memory;
  std::vector<std::size_t> bytes;
};
#endif

// All runs in one call; false where that is not to be had: before CUDA 13, or with a device that cannot migrate.
bool prefetch_batch(const std::vector<Run>& runs, Place place, int device, cudaStream_t stream) {
#if CUDART_VERSION >= 13000
  Batch batch(runs);
  cudaMemLocation to = location(place, device);
  std::size_t first = 0;  // of the runs that go there: all of them
  if (cudaMemPrefetchBatchAsync(batch.memory.data(), batch.bytes.data(), runs.size(), &to, &first, 1, 0, stream) ==
      cudaSuccess)
    return true;
  (void)cudaGetLastError();
#else
  (void)runs, (void)place, (void)device, (void)stream;
#endif
  return false;
}

// The same.
bool discard_batch(const std::vector<Run>& runs, cudaStream_t stream) {
#if CUDART_VERSION >= 13000
  Batch batch(runs);
  if (cudaMemDiscardBatchAsync(batch.memory.data(), batch.bytes.data(), runs.size(), 0, stream) == cudaSuccess)
    return true;
  (void)cudaGetLastError();
#else
  (void)runs, (void)stream;
#endif
  return false;
}

cudaMemcpyKind kind_of(CopyHint hint, Place to) {
  if (hint == CopyHint::device) return cudaMemcpyDeviceToDevice;
  if (hint == CopyHint::none) return cudaMemcpyDefault;
  return to == Place::device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
}

void copy_batch(const std::vector<Copy>& copies, Place to, int device, cudaStream_t stream) {
#if CUDART_VERSION >= 13000
  if (copies.empty()) return;
  std::vector<void*> targets;
  std::vector<const void*> sources;
  std::vector<std::size_t> bytes;
  for (const Copy& copy : copies) {
    targets.push_back(copy.to);
    sources.push_back(copy.from);
    bytes.push_back(copy.bytes);
  }
  cudaMemcpyAttributes how{};
  how.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  how.srcLocHint = location(to == Place::device ? Place::host : Place::device, device);
  how.dstLocHint = location(to, device);
  how.flags = cudaMemcpyFlagPreferOverlapWithCompute;
  std::size_t first = 0;  // of the copies that are made so: all of them
  PAGEDOPT_TRY(
      cudaMemcpyBatchAsync(targets.data(), sources.data(), bytes.data(), copies.size(), &how, &first, 1, stream));
#else
  (void)copies, (void)to, (void)device, (void)stream;
  throw GpuError("copies in one call need CUDA 13", static_cast<int>(cudaErrorNotSupported));
#endif
}

cudaError_t advise(const void* memory, std::size_t bytes, cudaMemoryAdvise advice, int device) {
#if CUDART_VERSION >= 13000
  return cudaMemAdvise(memory, bytes, advice, {cudaMemLocationTypeDevice, device});
#else
  return cudaMemAdvise(memory, bytes, advice, device);
#endif
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  PAGEDOPT_TRY(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

class CudaGpu final : public Gpu {
 public:
  explicit CudaGpu(int device) : owner_pid_(::getpid()) {
    cudaDeviceProp properties{};
    PAGEDOPT_TRY(cudaGetDeviceProperties(&properties, device));
    info_.name = properties.name;
    info_.device = device;
    info_.total_bytes = properties.totalGlobalMem;
    info_.major = properties.major;
    info_.minor = properties.minor;
    info_.can_migrate = attribute(cudaDevAttrConcurrentManagedAccess, device) != 0;
    info_.shares_host_address = attribute(cudaDevAttrCanUseHostPointerForRegisteredMem, device) != 0;
  }

  const GpuInfo& info() const noexcept override { return info_; }

  std::size_t free_bytes() override {
    const OnDevice here(info_.device);
    std::size_t free = 0, total = 0;
    PAGEDOPT_TRY(cudaMemGetInfo(&free, &total));
    return free;
  }

  std::byte* allocate(Memory kind, std::size_t bytes) override {
    const OnDevice here(info_.device);
    void* memory = nullptr;
    switch (kind) {
      case Memory::managed:
        PAGEDOPT_TRY_BYTES(cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal), bytes);
        (void)::madvise(memory, bytes, MADV_DONTFORK);  // a child that touched it would crash
        break;
      case Memory::device: PAGEDOPT_TRY_BYTES(cudaMalloc(&memory, bytes), bytes); break;
      case Memory::pinned: PAGEDOPT_TRY_BYTES(cudaMallocHost(&memory, bytes), bytes); break;
    }
    return static_cast<std::byte*>(memory);
  }

  void free(Memory kind, void* memory) noexcept override {
    if (memory == nullptr || is_foreign()) return;
    try {
      const OnDevice here(info_.device);
      (void)(kind == Memory::pinned ? cudaFreeHost(memory) : cudaFree(memory));
    } catch (const GpuError&) {
    }
    (void)cudaGetLastError();
  }

  void register_host(void* memory, std::size_t bytes) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY_BYTES(cudaHostRegister(memory, bytes, cudaHostRegisterMapped | cudaHostRegisterPortable), bytes,
                       "; the system limits locked memory (ulimit -l), or there is not enough of it");
  }

  void unregister_host(void* memory) noexcept override {
    if (is_foreign()) return;
    (void)cudaHostUnregister(memory);
    (void)cudaGetLastError();
  }

  // Without this each call would set the device and set it back, which gives every process a context on device 0. And a
  // graph that another thread records is not to end because this one waits for events.
  void begin_thread() override {
    PAGEDOPT_TRY(cudaSetDevice(info_.device));
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    PAGEDOPT_TRY(cudaThreadExchangeStreamCaptureMode(&mode));
  }

  bool is_capturing(StreamHandle stream) override {
    const OnDevice here(info_.device);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    PAGEDOPT_TRY(cudaStreamIsCapturing(stream_of(stream), &status));
    return status != cudaStreamCaptureStatusNone;
  }

  StreamHandle make_stream() override {
    const OnDevice here(info_.device);
    cudaStream_t stream = nullptr;
    PAGEDOPT_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
  }

  void free_stream(StreamHandle stream) noexcept override {
    if (!is_foreign()) (void)cudaStreamDestroy(stream_of(stream));
  }

  EventHandle make_event(bool spins) override {
    const OnDevice here(info_.device);
    cudaEvent_t event = nullptr;
    PAGEDOPT_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | (spins ? 0U : cudaEventBlockingSync)));
    return event;
  }

  void free_event(EventHandle event) noexcept override {
    if (!is_foreign()) (void)cudaEventDestroy(event_of(event));
  }

  void record(EventHandle event, StreamHandle stream) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY(cudaEventRecord(event_of(event), stream_of(stream)));
  }

  void wait(EventHandle event, StreamHandle stream) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
  }

  bool is_done(EventHandle event) override {
    const OnDevice here(info_.device);
    const cudaError_t code = cudaEventQuery(event_of(event));
    if (code == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    PAGEDOPT_TRY(code);
    return true;
  }

  void synchronize(EventHandle event) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY(cudaEventSynchronize(event_of(event)));
  }

  void synchronize() override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY(cudaDeviceSynchronize());
  }

  void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY_BYTES(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)), bytes);
  }

  // Told that both ends are the device's, the runtime lets the device reach managed memory through its mapping, and may
  // take it for a copy within the device; told that one is the host's, it may let the host copy what is there [CUDA C++
  // Programming Guide, Unified Memory, "Memcpy()/Memset() Behavior"].
  void copy_state(const std::vector<Copy>& copies, Place to, StreamHandle stream) override {
    const OnDevice here(info_.device);
    const CopyHint hint = info_.can_migrate ? copy_hint() : CopyHint::none;
    if (hint == CopyHint::batch) return copy_batch(copies, to, info_.device, stream_of(stream));
    for (const Copy& copy : copies)
      PAGEDOPT_TRY_BYTES(cudaMemcpyAsync(copy.to, copy.from, copy.bytes, kind_of(hint, to), stream_of(stream)),
                         copy.bytes);
  }

  void clear(void* memory, std::size_t bytes, StreamHandle stream) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY_BYTES(cudaMemsetAsync(memory, 0, bytes, stream_of(stream)), bytes);
  }

  void prefetch(const std::vector<Run>& runs, Place place, StreamHandle stream) override {
    const OnDevice here(info_.device);
    if (runs.size() > 1 && prefetch_batch(runs, place, info_.device, stream_of(stream))) return;
    for (const Run& run : runs)
      PAGEDOPT_TRY_BYTES(prefetch_async(run, place, info_.device, stream_of(stream)), run.bytes);
  }

  // Where nothing can be discarded it is moved to the host, so that it does not have to make room later.
  void discard(const std::vector<Run>& runs, StreamHandle stream) override {
    const OnDevice here(info_.device);
    if (!discard_batch(runs, stream_of(stream))) prefetch(runs, Place::host, stream);
  }

  void map_for_device(std::byte* memory, std::size_t bytes) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY_BYTES(advise(memory, bytes, cudaMemAdviseSetAccessedBy, info_.device), bytes);
  }

  void prefer_device(std::byte* memory, std::size_t bytes) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY_BYTES(advise(memory, bytes, cudaMemAdviseSetPreferredLocation, info_.device), bytes);
  }

  void begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                  StreamHandle stream) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY(static_cast<cudaError_t>(cuda_kernels.begin_rows(tables, first_row, last_row, stream)));
  }

  void finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                      StreamHandle stream) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY(static_cast<cudaError_t>(cuda_kernels.finish_measure(tables, first_row, last_row, stream)));
  }

  void run(const StepTables& tables, Pass pass, std::uint64_t first_part, std::uint64_t last_part,
           StreamHandle stream) override {
    const OnDevice here(info_.device);
    PAGEDOPT_TRY(static_cast<cudaError_t>(cuda_kernels.run(tables, pass, first_part, last_part, stream)));
  }

 private:
  bool is_foreign() const noexcept { return ::getpid() != owner_pid_; }

  GpuInfo info_;
  int owner_pid_;
};

}  // namespace

int cuda_device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  (void)cudaGetLastError();
  return count;
}

std::string cuda_absence() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  return code == cudaSuccess ? (count > 0 ? "" : "no CUDA device") : cudaGetErrorString(code);
}

std::shared_ptr<Gpu> make_cuda_gpu(int device) {
  if (device < 0 || device >= cuda_device_count())
    throw GpuError("there is no CUDA device " + std::to_string(device) + " among " +
                       std::to_string(cuda_device_count()) + ": " + cuda_absence(),
                   static_cast<int>(cudaErrorInvalidDevice));
  return std::make_shared<CudaGpu>(device);
}

}  // namespace pagedopt

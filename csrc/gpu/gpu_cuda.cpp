// The CUDA runtime behind gpu.h, and nothing else. Compiled for CUDA 12 and 13; the differences between them are all
// here and in cuda_device.h. The runtime is linked statically and finds the driver when it is first called: without
// one, the count is 0.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "gpu/cuda_device.h"

namespace pagedopt {
namespace {

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

cudaError_t advise(const void* memory, std::size_t bytes, cudaMemoryAdvise advice, Place place, int device) {
#if CUDART_VERSION >= 13000
  return cudaMemAdvise(memory, bytes, advice, location(place, device));
#else
  return cudaMemAdvise(memory, bytes, advice, place == Place::host ? cudaCpuDeviceId : device);
#endif
}

// What the driver answers to a hint that it has no memory for: by that name, or as a call of the system that failed, or
// as a status that has no name in CUDA. Where the context is broken instead, the next call says so.
bool is_refusal(cudaError_t code) {
  return code == cudaErrorMemoryAllocation || code == cudaErrorOperatingSystem || code == cudaErrorUnknown;
}

// Whether a hint was taken. Throws what has nothing to do with memory.
bool is_taken(const char* call, cudaError_t code, std::size_t bytes) {
  if (!is_refusal(code)) PAGEDOPT_TRY_AS(call, code, bytes);
  if (code != cudaSuccess) (void)cudaGetLastError();
  return code == cudaSuccess;
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  PAGEDOPT_TRY(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

// The kernels use instructions of compute capability 8.0, and are compiled for that and newer ones.
void refuse_old(const GpuInfo& info) {
  if (info.major >= 8) return;
  throw GpuError(info.name + " has compute capability " + std::to_string(info.major) + "." +
                     std::to_string(info.minor) +
                     ", and pagedopt's kernels need 8.0 or newer (Ampere): use another GPU, or torch.optim on this one",
                 static_cast<int>(cudaErrorNoKernelImageForDevice));
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
    info_.is_integrated = attribute(cudaDevAttrIntegrated, device) != 0;
    info_.is_coherent = attribute(cudaDevAttrPageableMemoryAccessUsesHostPageTables, device) != 0;
    refuse_old(info_);
  }

  const GpuInfo& info() const noexcept override { return info_; }

  std::size_t free_bytes() override {
    const AtWork here = on_device();
    std::size_t free = 0, total = 0;
    PAGEDOPT_TRY(cudaMemGetInfo(&free, &total));
    return free;
  }

  std::byte* allocate(Memory kind, std::size_t bytes) override {
    const AtWork here = on_device();
    void* memory = nullptr;
    switch (kind) {
      case Memory::managed:
        PAGEDOPT_TRY_BYTES(cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal), bytes, room_on_card);
        (void)::madvise(memory, bytes, MADV_DONTFORK);  // a child that touched it would crash
        break;
      case Memory::device: PAGEDOPT_TRY_BYTES(cudaMalloc(&memory, bytes), bytes, room_on_card); break;
      case Memory::pinned: PAGEDOPT_TRY_BYTES(cudaMallocHost(&memory, bytes), bytes, room_to_lock); break;
    }
    return static_cast<std::byte*>(memory);
  }

  void free(Memory kind, void* memory) noexcept override {
    if (memory != nullptr) give_back([&] { return kind == Memory::pinned ? cudaFreeHost(memory) : cudaFree(memory); });
  }

  void register_host(void* memory, std::size_t bytes) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY_BYTES(cudaHostRegister(memory, bytes, cudaHostRegisterMapped | cudaHostRegisterPortable), bytes,
                       room_to_lock);
  }

  void unregister_host(void* memory) noexcept override {
    give_back([&] { return cudaHostUnregister(memory); });
  }

  // So that no call has to set the device and the mode, and set them back.
  void begin_thread() override {
    refuse_in_fork();
    PAGEDOPT_TRY(cudaSetDevice(info_.device));
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    PAGEDOPT_TRY(cudaThreadExchangeStreamCaptureMode(&mode));
  }

  bool is_capturing(StreamHandle stream) override {
    const AtWork here = on_device();
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    PAGEDOPT_TRY(cudaStreamIsCapturing(stream_of(stream), &status));
    return status != cudaStreamCaptureStatusNone;
  }

  StreamHandle make_stream() override {
    const AtWork here = on_device();
    cudaStream_t stream = nullptr;
    PAGEDOPT_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
  }

  void free_stream(StreamHandle stream) noexcept override {
    give_back([&] { return cudaStreamDestroy(stream_of(stream)); });
  }

  EventHandle make_event(bool spins) override {
    const AtWork here = on_device();
    cudaEvent_t event = nullptr;
    PAGEDOPT_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | (spins ? 0U : cudaEventBlockingSync)));
    return event;
  }

  void free_event(EventHandle event) noexcept override {
    give_back([&] { return cudaEventDestroy(event_of(event)); });
  }

  void record(EventHandle event, StreamHandle stream) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY(cudaEventRecord(event_of(event), stream_of(stream)));
  }

  void wait(EventHandle event, StreamHandle stream) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
  }

  bool is_done(EventHandle event) override {
    const AtWork here = on_device();
    const cudaError_t code = cudaEventQuery(event_of(event));
    if (code == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    PAGEDOPT_TRY_AS("cudaEventQuery", code, 0);
    return true;
  }

  void synchronize(EventHandle event) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY(cudaEventSynchronize(event_of(event)));
  }

  void synchronize() override {
    const AtWork here = on_device();
    PAGEDOPT_TRY(cudaDeviceSynchronize());
  }

  void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY_BYTES(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)), bytes);
  }

  // Told that both ends are the device's, the runtime lets the device reach managed memory through its mapping, and may
  // take it for a copy within the device; told that one is the host's, it may let the host copy what is there [CUDA C++
  // Programming Guide, Unified Memory, "Memcpy()/Memset() Behavior"].
  void copy_state(const std::vector<Copy>& copies, Place to, StreamHandle stream) override {
    const AtWork here = on_device();
    const CopyHint hint = info_.can_migrate ? copy_hint() : CopyHint::none;
    if (hint == CopyHint::batch) return copy_batch(copies, to, info_.device, stream_of(stream));
    for (const Copy& copy : copies)
      PAGEDOPT_TRY_BYTES(cudaMemcpyAsync(copy.to, copy.from, copy.bytes, kind_of(hint, to), stream_of(stream)),
                         copy.bytes);
  }

  void clear(void* memory, std::size_t bytes, StreamHandle stream) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY_BYTES(cudaMemsetAsync(memory, 0, bytes, stream_of(stream)), bytes);
  }

  void clear_on_host(std::byte* memory, std::size_t bytes) override {
    refuse_in_fork();
    std::memset(memory, 0, bytes);
  }

  bool prefetch(const std::vector<Run>& runs, Place place, StreamHandle stream) override {
    const AtWork here = on_device();
    if (runs.size() > 1 && prefetch_batch(runs, place, info_.device, stream_of(stream))) return true;
    return std::all_of(runs.begin(), runs.end(), [&](const Run& run) {
      return is_taken("cudaMemPrefetchAsync", prefetch_async(run, place, info_.device, stream_of(stream)), run.bytes);
    });
  }

  // Where nothing can be discarded it is moved to the host, so that it does not have to make room later.
  bool discard(const std::vector<Run>& runs, StreamHandle stream) override {
    const AtWork here = on_device();
    return discard_batch(runs, stream_of(stream)) || prefetch(runs, Place::host, stream);
  }

  bool map_for_device(std::byte* memory, std::size_t bytes) override {
    const AtWork here = on_device();
    return is_taken("cudaMemAdvise", advise(memory, bytes, cudaMemAdviseSetAccessedBy, Place::device, info_.device),
                    bytes);
  }

  bool prefer(std::byte* memory, std::size_t bytes, Place place) override {
    const AtWork here = on_device();
    return is_taken("cudaMemAdvise", advise(memory, bytes, cudaMemAdviseSetPreferredLocation, place, info_.device),
                    bytes);
  }

  void begin_rows(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                  StreamHandle stream) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY_AS("launch of begin_rows", cuda_kernels.begin_rows(tables, first_row, last_row, stream), 0);
  }

  void finish_measure(const StepTables& tables, std::uint32_t first_row, std::uint32_t last_row,
                      StreamHandle stream) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY_AS("launch of finish_measure", cuda_kernels.finish_measure(tables, first_row, last_row, stream), 0);
  }

  void run(const StepTables& tables, Launch what, std::uint64_t first_part, std::uint64_t last_part,
           StreamHandle stream) override {
    const AtWork here = on_device();
    PAGEDOPT_TRY_AS("launch of run", cuda_kernels.run(tables, what, first_part, last_part, stream), 0);
  }

 private:
  // All that reaches the runtime asks for this first, so that in a forked child nothing does.
  AtWork on_device() const {
    refuse_in_fork();
    return AtWork(info_.device);
  }

  void refuse_in_fork() const {
    if (::getpid() != owner_pid_)
      throw GpuError("a forked child cannot use the GPU of its parent, process " + std::to_string(owner_pid_) +
                         ": make the optimizer in the child, or use the spawn start method",
                     static_cast<int>(cudaErrorInitializationError));
  }

  // Whatever stands in the way, the context has gone or this is a fork: there is nothing left to give back.
  template <class Free>
  void give_back(Free&& free) noexcept {
    try {
      const AtWork here = on_device();
      if (free() != cudaSuccess) (void)cudaGetLastError();
    } catch (const std::exception&) {
    }
  }

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
  const int count = cuda_device_count();
  if (device >= 0 && device < count) return std::make_shared<CudaGpu>(device);
  throw GpuError("there is no CUDA device " + std::to_string(device) + " among " + std::to_string(count) +
                     (count > 0 ? "" : ": " + cuda_absence()),
                 static_cast<int>(cudaErrorInvalidDevice));
}

}  // namespace pagedopt

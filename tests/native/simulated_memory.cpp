// The calls of simulated_cuda.h's runtime that are about memory.
#include "simulated_machine.h"

using namespace simulated_cuda;

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return perform("cudaMemGetInfo", Wants::device, [&](Call&) {
    *total = machine.devices[current_device()].total_bytes;
    *free = *total - used_bytes(current_device());
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  return perform("cudaMalloc", Wants::no_capture,
                 [&](Call& call) { return allocate(Kind::device, memory, bytes, call); });
}

cudaError_t cudaMallocManaged(void** memory, std::size_t bytes, unsigned int flags) {
  return perform("cudaMallocManaged", Wants::no_capture, [&](Call& call) {
    if (flags != cudaMemAttachGlobal && flags != cudaMemAttachHost) return cudaErrorInvalidValue;
    return allocate(Kind::managed, memory, bytes, call);
  });
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  return perform("cudaMallocHost", Wants::no_capture,
                 [&](Call& call) { return allocate(Kind::pinned, memory, bytes, call); });
}

cudaError_t cudaFree(void* memory) {
  return perform("cudaFree", Wants::no_capture, [&](Call& call) { return release(memory, false, call); });
}

cudaError_t cudaFreeHost(void* memory) {
  return perform("cudaFreeHost", Wants::no_capture, [&](Call& call) { return release(memory, true, call); });
}

cudaError_t cudaHostRegister(void* begin, std::size_t bytes, unsigned int flags) {
  return perform("cudaHostRegister", Wants::no_capture, [&](Call& call) {
    call.bytes = bytes;
    if (begin == nullptr || bytes == 0 || flags > 0xf) return cudaErrorInvalidValue;
    if (bytes > kMostRegisteredBytes) return cudaErrorMemoryAllocation;
    const Memory* memory = nullptr;
    if (find(begin, bytes, call, memory) != cudaSuccess || memory != nullptr)
      return cudaErrorHostMemoryAlreadyRegistered;
    add(Kind::registered, begin, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaHostUnregister(void* begin) {
  return perform("cudaHostUnregister", Wants::no_capture, [&](Call& call) {
    const auto found = machine.memory.find(static_cast<const std::byte*>(begin));
    if (found == machine.memory.end() || found->second.kind != Kind::registered)
      return cudaErrorHostMemoryNotRegistered;
    call.subjects.push_back(found->second.device);
    machine.memory.erase(found);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return perform("cudaMemcpyAsync", Wants::device, [&](Call& call) {
    int device = 0;
    if (const cudaError_t error = find(stream, call, device)) return error;
    call.detail = kind == cudaMemcpyDeviceToDevice ? " device" : kind == cudaMemcpyDefault ? " none" : " direction";
    return copy(to, from, bytes, kind, call);
  });
}

cudaError_t cudaMemsetAsync(void* begin, int value, std::size_t bytes, cudaStream_t stream) {
  return perform("cudaMemsetAsync", Wants::device, [&](Call& call) {
    int device = 0;
    const Memory* memory = nullptr;
    call.bytes = bytes;
    if (const cudaError_t error = find(stream, call, device)) return error;
    if (const cudaError_t error = find(begin, bytes, call, memory)) return error;
    if (memory == nullptr) return cudaErrorInvalidValue;
    std::memset(begin, value, bytes);
    return cudaSuccess;
  });
}

// ---- managed memory

#if CUDART_VERSION >= 13000
cudaError_t cudaMemPrefetchAsync(const void* begin, std::size_t bytes, cudaMemLocation place, unsigned int flags,
                                 cudaStream_t stream) {
  return perform("cudaMemPrefetchAsync", Wants::device, [&](Call& call) {
    const std::optional<int> device = number_of(place);
    if (flags != 0 || !device) return cudaErrorInvalidValue;
    return prefetch(begin, bytes, *device, stream, call);
  });
}

cudaError_t cudaMemAdvise(const void* begin, std::size_t bytes, cudaMemoryAdvise advice, cudaMemLocation place) {
  return perform("cudaMemAdvise", Wants::device, [&](Call& call) {
    const std::optional<int> device = number_of(place);
    return device ? advise(begin, bytes, advice, *device, call) : cudaErrorInvalidValue;
  });
}

cudaError_t cudaMemPrefetchBatchAsync(void** begins, std::size_t* bytes, std::size_t count, cudaMemLocation* places,
                                      std::size_t* firsts, std::size_t place_count, unsigned long long flags,
                                      cudaStream_t stream) {
  return perform("cudaMemPrefetchBatchAsync", Wants::device, [&](Call& call) {
    if (const cudaError_t error = check_batch(begins, bytes, count, flags, stream, call)) return error;
    if (place_count == 0 || place_count > count || firsts[0] != 0) return cudaErrorInvalidValue;
    for (std::size_t i = 0; i < place_count; ++i) {
      const std::optional<int> device = number_of(places[i]);
      if (!device || firsts[i] >= count || (i > 0 && firsts[i] <= firsts[i - 1])) return cudaErrorInvalidValue;
      if (const cudaError_t error = find_place(*device, call)) return error;
      if (is_full(*device, call.bytes)) return cudaErrorMemoryAllocation;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaMemDiscardBatchAsync(void** begins, std::size_t* bytes, std::size_t count, unsigned long long flags,
                                     cudaStream_t stream) {
  return perform("cudaMemDiscardBatchAsync", Wants::device, [&](Call& call) {
    if (const cudaError_t error = check_batch(begins, bytes, count, flags, stream, call)) return error;
    for (std::size_t i = 0; i < count; ++i) std::memset(begins[i], kRubbish, bytes[i]);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyBatchAsync(void* const* tos, const void* const* froms, const std::size_t* bytes,
                                 std::size_t count, cudaMemcpyAttributes* attributes, std::size_t* firsts,
                                 std::size_t attribute_count, cudaStream_t stream) {
  return perform("cudaMemcpyBatchAsync", Wants::device, [&](Call& call) {
    int device = 0;
    if (const cudaError_t error = find(stream, call, device)) return error;
    if (is_legacy(stream) || count == 0 || attribute_count == 0 || attribute_count > count || firsts[0] != 0)
      return cudaErrorInvalidValue;
    for (std::size_t i = 0; i < attribute_count; ++i) {
      if (attributes[i].srcAccessOrder == cudaMemcpySrcAccessOrderInvalid) return cudaErrorInvalidValue;
      if (firsts[i] >= count || (i > 0 && firsts[i] <= firsts[i - 1])) return cudaErrorInvalidValue;
      for (const cudaMemLocation& hint : {attributes[i].srcLocHint, attributes[i].dstLocHint}) {
        const std::optional<int> place = number_of(hint);
        if (!place) return cudaErrorInvalidValue;
        if (const cudaError_t error = find_place(*place, call)) return error;
      }
    }
    for (std::size_t i = 0; i < count; ++i)
      if (const cudaError_t error = copy(tos[i], froms[i], bytes[i], cudaMemcpyDefault, call)) return error;
    return cudaSuccess;
  });
}
#else
cudaError_t cudaMemPrefetchAsync(const void* begin, std::size_t bytes, int device, cudaStream_t stream) {
  return perform("cudaMemPrefetchAsync", Wants::device,
                 [&](Call& call) { return prefetch(begin, bytes, device, stream, call); });
}

cudaError_t cudaMemAdvise(const void* begin, std::size_t bytes, cudaMemoryAdvise advice, int device) {
  return perform("cudaMemAdvise", Wants::device,
                 [&](Call& call) { return advise(begin, bytes, advice, device, call); });
}
#endif

// Preloaded into a process: some of the calls that _core makes to the operating system fail, or do only a part, with
// the side effects that real failures have.
//   fault_arm(per_mille, mask)   of which calls how many fail; bit i of the mask stands for row i of `Fault`
//   fault_plan(i, nth)           the nth call from now on that row i fits fails, and no other
//   fault_calls()                how many calls the planned row fitted so far
//   fault_count(i)               how often row i struck
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>
#include <utility>

namespace {

enum Fault {
  write_eio,
  write_eintr,
  write_short,
  write_full,
  write_torn,  // a part is written, then EIO
  read_eio,
  read_eintr,
  read_short,
  read_torn,
  allocate_full,  // a part is allocated, then ENOSPC
  allocate_eintr,
  no_holes,
  mmap_enomem,
  mmap_unmapped,  // what was at the address is gone, and the call fails
  mremap_enomem,
  mremap_unmapped,
  munmap_enomem,
  madvise_einval,
  populate_eio,    // where a use would raise SIGBUS
  protect_enomem,  // a part is protected
  no_descriptor,
  no_thread,
  fault_count_of
};

std::atomic<int> per_mille{0};
std::atomic<unsigned> armed{0};
std::atomic<std::uint64_t> state{12345};
std::atomic<int> planned{-1};
std::atomic<long> planned_nth{0}, planned_calls{0};
std::atomic<long> counts[fault_count_of];
thread_local int next_write = 0, next_read = 0, next_open = 0;  // errno of the thread's next call, after a torn one

unsigned random_number() {
  std::uint64_t x = state.fetch_add(0x9E3779B97F4A7C15U);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return static_cast<unsigned>(x >> 33);
}

bool is_of_core(void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr && std::strstr(info.dli_fname, "pagedopt/_core");
}

bool any_caller_is_of_core() {
  void* callers[12];
  const int count = backtrace(callers, 12);
  return std::any_of(callers, callers + count, is_of_core);
}

bool strikes(Fault fault, bool is_ours) {
  if (!is_ours) return false;
  const bool is_planned = planned == fault && ++planned_calls == planned_nth;
  const bool is_drawn = (armed >> fault & 1U) != 0 && static_cast<int>(random_number() % 1000) < per_mille;
  if (is_planned || is_drawn) ++counts[fault];
  return is_planned || is_drawn;
}

bool is_watched(Fault fault) { return planned == fault || (armed >> fault & 1U) != 0; }

template <class Call>
Call* real(const char* name) {
  return reinterpret_cast<Call*>(dlsym(RTLD_NEXT, name));
}

int refuse(int code) {
  errno = code;
  return -1;
}

std::size_t part_of(std::size_t bytes) { return bytes > 4096 ? (bytes / 2) & ~std::size_t{4095} : bytes; }

}  // namespace

#define STRIKES(fault) (is_watched(fault) && strikes(fault, is_of_core(__builtin_return_address(0))))

extern "C" {

void fault_arm(int rate, unsigned mask) {
  per_mille = rate;
  armed = mask;
}

void fault_plan(int fault, long nth) {
  planned = -1;
  planned_calls = 0;
  planned_nth = nth;
  planned = fault;
}

long fault_calls() { return planned_calls; }

long fault_count(int fault) { return counts[fault]; }

ssize_t pwrite(int fd, const void* from, std::size_t bytes, off_t offset) {
  static auto* const call = real<ssize_t(int, const void*, std::size_t, off_t)>("pwrite");
  if (next_write != 0) return refuse(std::exchange(next_write, 0));
  if (STRIKES(write_eio)) return refuse(EIO);
  if (STRIKES(write_eintr)) return refuse(EINTR);
  if (STRIKES(write_full)) return refuse(ENOSPC);
  if (STRIKES(write_torn)) {
    next_write = EIO;
    return call(fd, from, part_of(bytes), offset);
  }
  return call(fd, from, STRIKES(write_short) ? part_of(bytes) : bytes, offset);
}

ssize_t preadv(int fd, const iovec* to, int count, off_t offset) {
  static auto* const call = real<ssize_t(int, const iovec*, int, off_t)>("preadv");
  if (next_read != 0) return refuse(std::exchange(next_read, 0));
  if (STRIKES(read_eio)) return refuse(EIO);
  if (STRIKES(read_eintr)) return refuse(EINTR);
  const bool is_torn = STRIKES(read_torn);
  if (is_torn) next_read = EIO;
  const iovec part{to->iov_base, part_of(to->iov_len)};
  return is_torn || STRIKES(read_short) ? call(fd, &part, 1, offset) : call(fd, to, count, offset);
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
  static auto* const call = real<int(int, off_t, off_t)>("posix_fallocate");
  if (STRIKES(allocate_full)) {
    call(fd, offset, bytes / 2);
    return ENOSPC;
  }
  return STRIKES(allocate_eintr) ? EINTR : call(fd, offset, bytes);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  static auto* const call = real<int(int, int, off_t, off_t)>("fallocate");
  return STRIKES(no_holes) ? refuse(EOPNOTSUPP) : call(fd, mode, offset, bytes);
}

void* mmap(void* at, std::size_t bytes, int protection, int flags, int fd, off_t offset) {
  static auto* const call = real<void*(void*, std::size_t, int, int, int, off_t)>("mmap");
  static auto* const unmap = real<int(void*, std::size_t)>("munmap");
  const bool is_unmapped = (flags & MAP_FIXED) != 0 && STRIKES(mmap_unmapped);
  if (is_unmapped) unmap(at, bytes);
  if (!is_unmapped && !STRIKES(mmap_enomem)) return call(at, bytes, protection, flags, fd, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

void* mremap(void* from, std::size_t bytes, std::size_t new_bytes, int flags, ...) {
  static auto* const call = real<void*(void*, std::size_t, std::size_t, int, ...)>("mremap");
  static auto* const unmap = real<int(void*, std::size_t)>("munmap");
  va_list more;
  va_start(more, flags);
  void* const to = (flags & MREMAP_FIXED) != 0 ? va_arg(more, void*) : nullptr;
  va_end(more);
  const bool is_unmapped = to != nullptr && STRIKES(mremap_unmapped);
  if (is_unmapped) unmap(to, new_bytes);
  if (!is_unmapped && !STRIKES(mremap_enomem)) return call(from, bytes, new_bytes, flags, to);
  errno = ENOMEM;
  return MAP_FAILED;
}

int munmap(void* at, std::size_t bytes) {
  static auto* const call = real<int(void*, std::size_t)>("munmap");
  return STRIKES(munmap_enomem) ? refuse(ENOMEM) : call(at, bytes);
}

int madvise(void* at, std::size_t bytes, int advice) {
  static auto* const call = real<int(void*, std::size_t, int)>("madvise");
  constexpr int kPopulateRead = 22, kPopulateWrite = 23;
  if ((advice == kPopulateRead || advice == kPopulateWrite) && STRIKES(populate_eio)) return refuse(EFAULT);
  return STRIKES(madvise_einval) ? refuse(EINVAL) : call(at, bytes, advice);
}

int mprotect(void* at, std::size_t bytes, int protection) {
  static auto* const call = real<int(void*, std::size_t, int)>("mprotect");
  if (!STRIKES(protect_enomem)) return call(at, bytes, protection);
  call(at, part_of(bytes), protection);
  return refuse(ENOMEM);
}

int open(const char* path, int flags, ...) {
  static auto* const call = real<int(const char*, int, ...)>("open");
  va_list more;
  va_start(more, flags);
  const int mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, int) : 0;
  va_end(more);
  if (!STRIKES(no_descriptor)) return call(path, flags, mode);
  next_open = EMFILE;
  return refuse(EMFILE);
}

int mkostemp(char* path, int flags) {
  static auto* const call = real<int(char*, int)>("mkostemp");
  return next_open != 0 ? refuse(std::exchange(next_open, 0)) : call(path, flags);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*work)(void*), void* argument) {
  static auto* const call = real<int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>("pthread_create");
  if (is_watched(no_thread) && strikes(no_thread, any_caller_is_of_core())) return EAGAIN;
  return call(thread, attributes, work, argument);
}

}  // extern "C"

// Preloaded into a process: some of the calls that _core makes to the operating system fail, or do only a part.
//   fault_arm(per_mille, mask)   of which calls how many fail; bit i of the mask stands for row i of `Fault`
//   fault_count(i)               how often row i did
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>

namespace {

enum Fault {
  write_eio,
  write_eintr,
  write_short,
  write_full,
  read_eio,
  read_eintr,
  read_short,
  allocate_full,
  allocate_eintr,
  no_holes,
  mmap_enomem,
  mremap_enomem,
  madvise_einval,
  fault_count_of
};

std::atomic<int> per_mille{0};
std::atomic<unsigned> armed{0};
std::atomic<std::uint64_t> state{12345};
std::atomic<long> counts[fault_count_of];

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

bool strikes(Fault fault, void* caller) {
  if ((armed >> fault & 1U) == 0 || !is_of_core(caller)) return false;
  if (static_cast<int>(random_number() % 1000) >= per_mille) return false;
  ++counts[fault];
  return true;
}

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

#define STRIKES(fault) strikes(fault, __builtin_return_address(0))

extern "C" {

void fault_arm(int rate, unsigned mask) {
  per_mille = rate;
  armed = mask;
}

long fault_count(int fault) { return counts[fault]; }

ssize_t pwrite(int fd, const void* from, std::size_t bytes, off_t offset) {
  static auto* const call = real<ssize_t(int, const void*, std::size_t, off_t)>("pwrite");
  if (STRIKES(write_eio)) return refuse(EIO);
  if (STRIKES(write_eintr)) return refuse(EINTR);
  if (STRIKES(write_full)) return refuse(ENOSPC);
  return call(fd, from, STRIKES(write_short) ? part_of(bytes) : bytes, offset);
}

ssize_t preadv(int fd, const iovec* to, int count, off_t offset) {
  static auto* const call = real<ssize_t(int, const iovec*, int, off_t)>("preadv");
  if (STRIKES(read_eio)) return refuse(EIO);
  if (STRIKES(read_eintr)) return refuse(EINTR);
  const iovec part{to->iov_base, part_of(to->iov_len)};
  return STRIKES(read_short) ? call(fd, &part, 1, offset) : call(fd, to, count, offset);
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
  static auto* const call = real<int(int, off_t, off_t)>("posix_fallocate");
  if (STRIKES(allocate_full)) return ENOSPC;
  return STRIKES(allocate_eintr) ? EINTR : call(fd, offset, bytes);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  static auto* const call = real<int(int, int, off_t, off_t)>("fallocate");
  return STRIKES(no_holes) ? refuse(EOPNOTSUPP) : call(fd, mode, offset, bytes);
}

void* mmap(void* at, std::size_t bytes, int protection, int flags, int fd, off_t offset) {
  static auto* const call = real<void*(void*, std::size_t, int, int, int, off_t)>("mmap");
  if (!STRIKES(mmap_enomem)) return call(at, bytes, protection, flags, fd, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

void* mremap(void* from, std::size_t bytes, std::size_t new_bytes, int flags, ...) {
  static auto* const call = real<void*(void*, std::size_t, std::size_t, int, ...)>("mremap");
  va_list more;
  va_start(more, flags);
  void* const to = (flags & MREMAP_FIXED) != 0 ? va_arg(more, void*) : nullptr;
  va_end(more);
  if (!STRIKES(mremap_enomem)) return call(from, bytes, new_bytes, flags, to);
  errno = ENOMEM;
  return MAP_FAILED;
}

int madvise(void* at, std::size_t bytes, int advice) {
  static auto* const call = real<int(void*, std::size_t, int)>("madvise");
  return STRIKES(madvise_einval) ? refuse(EINVAL) : call(at, bytes, advice);
}

}  // extern "C"

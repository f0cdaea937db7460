#include "memory/write_watch.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "memory/ready_pages.h"

// Of Linux 5.7 and 6.1; the headers of a build may be older than the kernel it will run on.
#ifndef UFFDIO_WRITEPROTECT
struct uffdio_writeprotect {
  struct uffdio_range range;
  __u64 mode;
};
#define UFFDIO_WRITEPROTECT _IOWR(UFFDIO, 0x06, struct uffdio_writeprotect)
#define UFFDIO_WRITEPROTECT_MODE_WP (1ULL << 0)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

namespace pagedopt {
namespace {

constexpr const char* kManyMappings = "vm.max_map_count may be too small for this many pages: raise it or page_bytes";

uffdio_range range_of(const std::byte* begin, std::size_t bytes) {
  return {reinterpret_cast<std::uintptr_t>(begin), bytes};
}

// Sees faults of the kernel, too: one that sees only those of user code makes read(2) into a tensor fail.
int open_faults() {
  int fd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) {
    const int device = ::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
      fd = ::ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
      ::close(device);
    }
  }
  if (fd < 0)
    PAGEDOPT_THROW_VM("userfaultfd", 0, "it wants CAP_SYS_PTRACE, vm.unprivileged_userfaultfd = 1 or /dev/userfaultfd");
  // EVENT_REMAP: what is registered stays so when it is moved.
  uffdio_api api{UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMAP, 0};
  if (::ioctl(fd, UFFDIO_API, &api) != 0) {
    const int code = errno;
    ::close(fd);
    errno = code;
    PAGEDOPT_THROW_VM("UFFDIO_API", 0, "it wants Linux 5.7");
  }
  return fd;
}

// Every OS page there gets memory, so that all of them can be protected; contents stay, whoever writes meanwhile.
void fill_in(std::byte* begin, std::size_t bytes) noexcept {
  if (::madvise(begin, bytes, MADV_POPULATE_WRITE) == 0) return;
  for (std::size_t i = 0; i < bytes; i += kOsPageBytes)
    __atomic_fetch_or(reinterpret_cast<unsigned char*>(begin + i), 0, __ATOMIC_RELAXED);
}

}  // namespace

WriteWatch::WriteWatch(std::byte* base, std::size_t page_bytes, std::size_t page_count, Touch touch)
    : base_(base), page_bytes_(page_bytes), page_count_(page_count), touch_(std::move(touch)) {
  faults_ = open_faults();
  stop_ = ::eventfd(0, EFD_CLOEXEC);
  try {
    if (stop_ < 0) PAGEDOPT_THROW_VM("eventfd", 0, "");
    thread_ = start_thread("pagedopt-watch", [this] { serve(); });
  } catch (...) {
    if (stop_ >= 0) ::close(stop_);
    ::close(faults_);
    throw;
  }
}

WriteWatch::~WriteWatch() {
  const std::uint64_t one = 1;
  while (::write(stop_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
  ::close(stop_);
  ::close(faults_);  // lifts what is left of protections, and wakes
}

void WriteWatch::serve() {
  pollfd ready[] = {{faults_, POLLIN, 0}, {stop_, POLLIN, 0}};
  for (;;) {
    if (::poll(ready, 2, -1) < 0 && errno != EINTR) return;
    if (ready[1].revents != 0) return;
    while (answer()) {
    }
    if ((ready[0].revents & (POLLERR | POLLNVAL)) != 0) return;  // somebody closed our descriptor
  }
}

// False if there is nothing to answer. That something registered was moved only has to be read.
bool WriteWatch::answer() {
  uffd_msg message;
  if (::read(faults_, &message, sizeof message) != sizeof message) return false;
  if (message.event != UFFD_EVENT_PAGEFAULT) return true;
  const auto address = reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(message.arg.pagefault.address));
  if (address >= base_ && address < at(0) + page_count_ * page_bytes_)
    lift(static_cast<PageIndex>(static_cast<std::size_t>(address - base_) / page_bytes_));
  return true;
}

// Registering splits a mapping in three until lifting or a move ends it. EAGAIN: a mapping is just being moved, and the
// thread here has to be free to read that.
void WriteWatch::protect_range(std::byte* begin, std::size_t bytes, std::uint64_t mode) {
  for (;;) {
    {
      const Lock lock(mutex_);
      uffdio_register registration{range_of(begin, bytes), mode, 0};
      if (::ioctl(faults_, UFFDIO_REGISTER, &registration) != 0)
        PAGEDOPT_THROW_VM("UFFDIO_REGISTER", bytes, kManyMappings);
      uffdio_writeprotect protection{range_of(begin, bytes), UFFDIO_WRITEPROTECT_MODE_WP};
      if (::ioctl(faults_, UFFDIO_WRITEPROTECT, &protection) == 0) return;
      if (errno != EAGAIN) PAGEDOPT_THROW_VM("UFFDIO_WRITEPROTECT", bytes, "");
    }
    ::sched_yield();
  }
}

void WriteWatch::protect(PageIndex first, std::size_t count) {
  fill_in(at(first), count * page_bytes_);
  protect_range(at(first), count * page_bytes_, UFFDIO_REGISTER_MODE_WP);
}

void WriteWatch::protect_beside(std::byte* memory) {
  fill_in(memory, page_bytes_);
  protect_range(memory, page_bytes_, UFFDIO_REGISTER_MODE_WP);
}

bool WriteWatch::protect_fresh(PageIndex page) {
  protect_range(at(page), page_bytes_, UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
  return !has_content(page);
}

// Where it cannot be seen, content is assumed.
bool WriteWatch::has_content(PageIndex page) const {
  constexpr std::uint64_t kPresentOrSwapped = std::uint64_t{3} << 62;
  const int fd = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return true;
  std::vector<std::uint64_t> entries(page_bytes_ / kOsPageBytes);
  const std::size_t bytes = entries.size() * sizeof(std::uint64_t);
  const auto offset = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at(page)) / kOsPageBytes * 8);
  const bool is_whole = ::pread(fd, entries.data(), bytes, offset) == static_cast<ssize_t>(bytes);
  ::close(fd);
  if (!is_whole) return true;
  for (const std::uint64_t entry : entries)
    if ((entry & kPresentOrSwapped) != 0) return true;
  return false;
}

void WriteWatch::guard(PageIndex first, std::size_t count) {
  const std::size_t bytes = count * page_bytes_;
  void* const empty =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (empty == MAP_FAILED) PAGEDOPT_THROW_VM("mmap", bytes, kManyMappings);
  (void)::madvise(empty, bytes, MADV_DONTFORK);
  uffdio_register registration{range_of(static_cast<std::byte*>(empty), bytes), UFFDIO_REGISTER_MODE_MISSING, 0};
  const bool is_registered = ::ioctl(faults_, UFFDIO_REGISTER, &registration) == 0;
  if (is_registered && ::mremap(empty, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at(first)) != MAP_FAILED) return;
  const int code = errno;
  ::munmap(empty, bytes);
  errno = code;
  PAGEDOPT_THROW_VM(is_registered ? "mremap" : "UFFDIO_REGISTER", bytes, kManyMappings);
}

void WriteWatch::wake(PageIndex page) noexcept {
  uffdio_range range = range_of(at(page), page_bytes_);
  (void)::ioctl(faults_, UFFDIO_WAKE, &range);
}

void WriteWatch::lift(PageIndex page) noexcept {
  {
    const Lock lock(mutex_);
    if (!touch_(page)) return;
    uffdio_range range = range_of(at(page), page_bytes_);
    uffdio_writeprotect none{range, 0};  // where registration cannot end, for it would split a mapping of too many
    if (::ioctl(faults_, UFFDIO_UNREGISTER, &range) != 0) (void)::ioctl(faults_, UFFDIO_WRITEPROTECT, &none);
  }
  wake(page);
}

}  // namespace pagedopt

#include "memory/spill_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "base/error.h"
#include "memory/unwatched.h"

namespace pagedopt {
namespace {

std::string mib(std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

SpillFile::~SpillFile() {
  if (io_ >= 0 && io_ != map_) ::close(io_);
  if (map_ >= 0) ::close(map_);
}

// Every call of a transfer may be cut short, by a signal or by a disk that fills.
template <class Call>
void SpillFile::transfer(const char* name, std::size_t bytes, Call&& call) {
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t moved = call(done, io_);
    if (moved > 0) {
      done += static_cast<std::size_t>(moved);
    } else if (moved == 0) {
      errno = EIO;
      PAGEDOPT_THROW_VM(name, bytes, "the spill file in " + directory_ + " ended early");
    } else if (errno == EINVAL && io_ != map_ && direct_ == DirectIo::automatic) {
      const Lock lock(opening_);
      io_ = map_.load();  // this file system takes O_DIRECT at open and refuses it here
    } else if (errno != EINTR) {
      PAGEDOPT_THROW_VM(name, bytes, advice(errno));
    }
  }
}

void SpillFile::allocate(off_t offset, std::size_t bytes) {
  open_once();
  int code = 0;
  do code = ::posix_fallocate(map_, offset, static_cast<off_t>(bytes));
  while (code == EINTR);
  if (code != 0) {
    // A part may have been taken, which nothing counts.
    (void)::fallocate(map_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(bytes));
    errno = code;
    PAGEDOPT_THROW_VM("posix_fallocate", bytes, advice(code));
  }
  bytes_ += bytes;
}

void SpillFile::write(const std::byte* from, std::size_t bytes, off_t offset) {
  transfer("pwrite", bytes, [&](std::size_t done, int fd) {
    const Unwatched unwatched;
    return ::pwrite(fd, from + done, bytes - done, offset + static_cast<off_t>(done));
  });
}

void SpillFile::read(std::byte* const* to, std::size_t pieces, std::size_t piece_bytes, off_t offset) {
  std::vector<iovec> left;
  transfer("preadv", pieces * piece_bytes, [&](std::size_t done, int fd) {
    left.clear();
    for (std::size_t i = done / piece_bytes, skip = done % piece_bytes; i < pieces; ++i, skip = 0)
      left.push_back({to[i] + skip, piece_bytes - skip});
    return ::preadv(fd, left.data(), static_cast<int>(left.size()), offset + static_cast<off_t>(done));
  });
}

bool SpillFile::release(off_t offset, std::size_t bytes) noexcept {
  if (::fallocate(map_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(bytes)) != 0)
    return false;
  bytes_ -= bytes;
  return true;
}

void SpillFile::drop_cache(off_t offset, std::size_t bytes) noexcept {
  ::posix_fadvise(map_, offset, static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
}

std::string SpillFile::advice(int code) const {
  struct statvfs disk{};
  std::string text = "the spill file in " + directory_ + " holds " + mib(bytes());
  if (::statvfs(directory_.c_str(), &disk) == 0) text += ", " + mib(disk.f_bavail * disk.f_frsize) + " are free there";
  if (code == EINVAL && direct_ == DirectIo::on)
    return text + ". This file system refuses O_DIRECT for pages of this size: set direct_io to auto or off";
  if (code == ENOSPC || code == EDQUOT || code == EFBIG)
    return text + ". Free space, set spill_dir to a larger disk, or raise the budget";
  if (is_shortage(code)) return text + ". This process or machine is short of what the call needs";
  return text +
         ". The disk or its file system failed, and the kernel's log (dmesg) may say why: set spill_dir to another";
}

void SpillFile::open_once() {
  const Lock lock(opening_);
  if (map_ >= 0) return;
  if (directory_.empty()) {
    errno = ENOENT;
    PAGEDOPT_THROW_VM("open", 0, "no spill directory: set spill_dir to a directory on a disk");
  }
  int fd = ::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) fd = open_and_unlink();
  int flags = 0;  // on btrfs, copy on write would need new space even for space allocated before
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
    flags |= FS_NOCOW_FL;
    (void)::ioctl(fd, FS_IOC_SETFLAGS, &flags);
  }
  io_ = direct_ == DirectIo::off ? fd : reopen_direct(fd);
  map_ = fd;
}

int SpillFile::open_and_unlink() {
  std::string path = directory_ + "/pagedopt-spill-XXXXXX";
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0)
    PAGEDOPT_THROW_VM("open", 0,
                      "no file can be made in " + directory_ + ": " +
                          (errno == EMFILE || errno == ENFILE ? "too many files are open (ulimit -n)"
                                                              : "set spill_dir to a writable directory"));
  ::unlink(path.c_str());
  return fd;
}

int SpillFile::reopen_direct(int fd) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const int direct = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  if (direct >= 0) return direct;
  if (direct_ == DirectIo::on) {
    const int code = errno;
    ::close(fd);
    errno = code;
    PAGEDOPT_THROW_VM("open", 0,
                      "the file system of " + directory_ + " refuses O_DIRECT: set direct_io to auto or off");
  }
  return fd;
}

}  // namespace pagedopt

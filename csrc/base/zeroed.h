// Tables with an element for each page of an address range, which is much longer than what is ever used of it: the
// operating system gives them memory as they are touched.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace pagedopt {

// `count` elements that are zero at first. Bytes of zeros have to be a T.
template <class T>
class Zeroed {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  explicit Zeroed(std::size_t count) : size_(count) {
    if (count == 0) return;
    void* range = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) PAGEDOPT_THROW_VM("mmap", bytes(), "no address space for the table of pages");
    data_ = static_cast<T*>(range);
  }
  ~Zeroed() {
    if (data_ != nullptr) ::munmap(data_, bytes());
  }
  Zeroed(Zeroed&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Zeroed& operator=(Zeroed&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::size_t size() const noexcept { return size_; }
  T& operator[](std::size_t index) noexcept { return data_[index]; }
  const T& operator[](std::size_t index) const noexcept { return data_[index]; }

 private:
  std::size_t bytes() const noexcept { return size_ * sizeof(T); }

  T* data_ = nullptr;
  std::size_t size_;
};

}  // namespace pagedopt

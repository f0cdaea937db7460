// The shared memory of a CTA, which knows of each word who wrote and read it since the last barrier.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ptx_program.h"

namespace ptx {

class SharedMemory {
 public:
  explicit SharedMemory(const Kernel& kernel) : memory_(kernel.shared_bytes / kWordBytes), words_(memory_.size()) {
    for (const Kernel::Range& range : kernel.shared)
      for (std::size_t at = range.begin / kWordBytes; at * kWordBytes < range.end; ++at) words_[at].exists = true;
  }

  void begin_cta() { first_phase_ = ++phase_; }
  void pass_barrier() { ++phase_; }

  // What is wrong with it, or null. pre: aligned to whole words
  const char* mark_load(std::uint64_t at, std::size_t bytes, int warp) {
    return mark(at, bytes, [&](Word& word) -> const char* {
      if (word.written < first_phase_) return "shared memory that nobody wrote";
      if (word.written == phase_ && word.writer != warp) return "no barrier between another warp's store and this load";
      word.reader = word.read == phase_ && word.reader != warp ? kSeveral : warp;
      word.read = phase_;
      return nullptr;
    });
  }
  const char* mark_store(std::uint64_t at, std::size_t bytes, int warp) {
    return mark(at, bytes, [&](Word& word) -> const char* {
      if (word.written == phase_ && word.writer != warp) return "no barrier between another warp's store and this one";
      if (word.read == phase_ && word.reader != warp) return "no barrier between another warp's load and this store";
      word.writer = warp, word.written = phase_;
      return nullptr;
    });
  }

  // pre: it was marked
  std::byte* at(std::uint64_t at) { return reinterpret_cast<std::byte*>(memory_.data()) + at; }

 private:
  static constexpr std::size_t kWordBytes = 4;
  static constexpr int kSeveral = -1;
  struct Word {
    std::uint64_t written = 0, read = 0;  // phases
    int writer = 0, reader = 0;           // warps
    bool exists = false;                  // in an array
  };

  template <class Mark>
  const char* mark(std::uint64_t at, std::size_t bytes, Mark mark_word) {
    for (std::uint64_t word = at / kWordBytes; word < (at + bytes) / kWordBytes; ++word) {
      if (word >= words_.size() || !words_[word].exists) return "outside of the arrays of shared memory";
      if (const char* const wrong = mark_word(words_[word])) return wrong;
    }
    return nullptr;
  }

  std::vector<std::uint32_t> memory_;
  std::vector<Word> words_;
  std::uint64_t phase_ = 0;        // counts barriers and CTAs
  std::uint64_t first_phase_ = 0;  // of this CTA: what was written before is not defined
};

}  // namespace ptx

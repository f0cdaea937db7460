// Runs kernels of PTX: the warps of a CTA one after the other, each from barrier to barrier. Lanes of a warp that part
// run apart, those that are furthest behind first, and together again where they meet. What a GPU leaves open, or would
// not survive, is a Fault.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "ptx_counts.h"
#include "ptx_program.h"
#include "ptx_shared.h"

namespace ptx {

// What the warps of a CTA have in common.
struct Cta {
  explicit Cta(const Kernel& kernel) : shared(kernel), executed(kernel.code.size()) {}

  std::vector<std::byte> parameters;
  SharedMemory shared;
  std::vector<std::uint64_t> executed;  // how often, of each instruction
  Counts* counts = nullptr;             // of accesses; null: they are not counted
  std::optional<std::mt19937> order;    // draws who goes first, and when lanes part
};

class Warp {
 public:
  Warp(const Kernel& kernel, int index);
  void begin(std::uint32_t cta);
  // To the end, or the next barrier of the CTA.
  void run(Cta& cta);
  bool has_ended() const { return groups_.empty(); }
  // The barrier it has come to. pre: !has_ended()
  const Instruction& barrier() const { return kernel_.code[groups_[0].at]; }
  void pass_barrier() { ++groups_[0].at; }
  [[noreturn]] void fail(const Instruction& x, std::uint32_t lanes, const std::string& why) const;

 private:
  struct Group {  // lanes that are at the same instruction
    std::uint32_t at, lanes;
  };

  bool choose(Cta& cta, Group& chosen);
  void part(Group& group, std::mt19937& order) const;
  bool is_ready(const Group& group) const;
  void put(const Group& group);
  void step(Group group, Cta& cta);
  void perform(const Instruction& x, std::uint32_t active, Cta& cta);
  void leave(std::uint32_t lanes);
  void compute(const Instruction& x, std::uint32_t active);
  void access(const Instruction& x, std::uint32_t active, Cta& cta);
  std::byte* memory_at(const Instruction& x, std::uint64_t at, std::size_t bytes, int lane, Cta& cta);
  void load_parameter(const Instruction& x, std::uint32_t active, const Cta& cta);
  void shuffle(const Instruction& x, std::uint32_t active);
  void reduce(const Instruction& x, std::uint32_t active);
  std::uint32_t active_of(const Instruction& x, std::uint32_t lanes) const;

  using Register = std::array<std::uint64_t, kLanes>;
  const Kernel& kernel_;
  int index_;
  std::vector<Register> registers_;
  std::vector<Group> groups_;                 // by `at`, each once
  std::uint32_t live_ = 0, called_ = 0;       // lanes; those in a function
  std::array<std::uint32_t, kLanes> back_{};  // where a function returns to
};

// Runs the CTAs of launches of one kernel.
class Grid {
 public:
  Grid(const Kernel& kernel, unsigned threads, std::optional<unsigned> order, bool counts_accesses);
  void run(unsigned ctas, void* const* arguments);
  Counts take_counts();

 private:
  void run_cta(std::uint32_t index);
  void pass_barrier();

  const Kernel& kernel_;
  Counts counts_;
  Cta cta_;
  std::vector<Warp> warps_;
};

}  // namespace ptx

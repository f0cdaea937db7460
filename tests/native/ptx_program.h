// The kernels of a module of PTX, as instructions whose operands are numbers of registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ptx_compute.h"
#include "ptx_text.h"

namespace ptx {

enum class Does : std::uint8_t {
  compute,
  load,            // from[0] is the address
  store,           // from[0] is the address, the others what is stored
  load_parameter,  // of the kernel
  branch,
  leave,  // a function, or the kernel
  end,    // the lane
  // None of these may have a guard:
  call,
  barrier,  // of the CTA
  // These wait for the lanes of a mask, from.back():
  sync_warp,
  shuffle,  // from the lane whose number differs in the bits of from[1], among all (from[2] is 31)
  reduce,   // to the largest
};
enum class Space : std::uint8_t { global, shared };

struct Instruction {
  Does does = Does::compute;
  Space space = Space::global;
  bool is_signed = false;  // a load extends the sign
  bool has_guard = false;  // only lanes in which `guard` is `guard_value` do it
  bool guard_value = true;
  int bytes = 0;  // of one of the numbers that are loaded or stored
  std::uint32_t guard = 0;
  std::uint32_t target = 0;  // of a branch or call
  std::int64_t offset = 0;   // of an address, or of a parameter
  std::vector<std::uint32_t> to, from;
  Compute compute;
  std::string name;  // `ld.global.v4.u32`
  std::string text;  // with operands
  int line = 0;
};

struct Constant {
  std::uint32_t reg;
  std::uint64_t value;
};

struct Kernel {
  static constexpr std::uint32_t kThread = 0, kCta = 1;  // registers: threadIdx.x, blockIdx.x
  std::string name;
  std::vector<Variable> parameters;
  std::vector<std::size_t> parameter_offsets;
  std::size_t parameter_bytes = 0;
  std::vector<Instruction> code;  // functions that it calls are behind it
  std::uint32_t registers = 2;
  std::vector<Constant> constants;  // registers of a value that never changes
  struct Range {
    std::size_t begin, end;
  };
  std::vector<Range> shared;  // bytes of shared memory that arrays have
  std::size_t shared_bytes = 0;
};

class Program {
 public:
  Program(const std::string& ptx, Approximate approximate);
  const Kernel& kernel(const std::string& name) const;

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::vector<std::unique_ptr<std::byte, Free>> globals_;
  std::vector<Kernel> kernels_;
};

}  // namespace ptx

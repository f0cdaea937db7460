// One optimizer step over many tensors: what the rows are, how their work is cut into tasks, and running them.
// Raw pointers and sizes only. Results do not depend on the instruction set nor on the number of threads.
//
// step/cpu/kernels.cpp is compiled once per instruction set with -DPAGEDOPT_ISA=<name> (see CMakeLists.txt); on x86-64
// step_host.cpp needs -DPAGEDOPT_X86 to know that avx2 and avx512 were built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "rules/codec.h"
#include "rules/norms.h"
#include "rules/rules.h"

namespace pagedopt {

class Workers;

enum class Dtype : std::uint8_t { f32, bf16, f16, f64 };  // of a parameter and its gradient; f64 on the host alone
// How every slot of a row is stored. 8 bits: one code an element and one float32 absmax for 256 elements or for the
// tensor. f64 goes with parameters of that type.
enum class Codec : std::uint8_t { f32, blockwise8, tensorwise8, f64 };

PAGEDOPT_HD bool is_8bit(Codec codec) { return codec == Codec::blockwise8 || codec == Codec::tensorwise8; }

// One parameter of the step. The addresses are not owned.
struct Row {
  void* param = nullptr;
  const void* grad = nullptr;      // null: the row is skipped this step
  void* slot[kMostSlots] = {};     // null: absent
  float* absmax[kMostSlots] = {};  // with the 8-bit codecs
  float* step = nullptr;           // t - 1 before the step, t after; written when the row's last task is done
  float* gnorm_history = nullptr;  // float32[kGnormHistory], with percentile clipping; zeros at the start
  std::int64_t numel = 0;
  std::uint32_t group = 0;  // index of its Hyper
  Dtype dtype = Dtype::f32;
  Codec codec = Codec::f32;
};

// What a step asks of the memory its state lives in; none is needed for ordinary memory.
class Gate {
 public:
  virtual ~Gate() = default;
  // Returns when the task's state may be touched. When it throws, leave() is not called.
  virtual void enter(std::size_t task, unsigned worker) = 0;
  // Called after every enter() that returned.
  virtual void leave(std::size_t task, unsigned worker) noexcept = 0;
  // This worker takes no more tasks of this step. Called for every worker below `threads`, hired or not.
  virtual void idle(unsigned worker) noexcept = 0;
  // This worker has left all tasks before `task` and waits, holding nothing, for others to finish what `task` builds
  // on. Then it enters `task`. Whoever waits for a worker's progress must count it as being at `task`.
  virtual void reach(std::size_t /*task*/, unsigned worker) noexcept { idle(worker); }
};

// What a task does. A row has its update tasks; before them, gradient_norm tasks under percentile clipping and measure
// tasks under max_unorm or the tensorwise codec. A pass of a row starts when the one before it is complete.
enum class Pass : std::uint8_t {
  gradient_norm,  // ||g||: touches no state
  measure,        // norms of move and parameter, absmax of the new moments: reads state
  update,         // reads and writes parameter and state
};

struct Task {
  std::uint32_t row;
  Pass pass;
  std::int64_t first, last;  // elements [first, last); `first` is a multiple of kTaskElements
};

struct Span {
  std::byte* begin;
  std::byte* end;
  int slot;  // whose codes or numbers these are, or whose absmax
  bool is_absmax;
};

// Elements of a task. 3.5 MiB of float32 Adam traffic, some 100 us: long beside what a task costs to hand out and gate
// (1 us), short beside a step. A multiple of kBlockElements.
inline constexpr std::int64_t kTaskElements = std::int64_t{1} << 17;

// The fixed partition of the rows' work, in order. Independent of the gradients and of the number of threads; to be
// made anew when rows or one of max_unorm, percentile_clipping changed.
std::vector<Task> make_tasks(const std::vector<Row>& rows, const std::vector<Hyper>& hypers);

// Throws std::invalid_argument when the row lacks memory, or a group, that a step needs.
void check_row(const Row& row, std::size_t index, const std::vector<Hyper>& hypers);

// The bytes of state (slots and absmax) that a task touches; returns how many spans were filled.
std::size_t spans_of(const Row& row, const Task& task, Span out[2 * kMostSlots]);

// Runs one step. `grad_scale` multiplies every gradient (1: none). At most `threads` threads work, the caller is one of
// them. An exception of the gate stops the step and is rethrown; rows whose `step` was not advanced may then be partly
// updated. Throws std::invalid_argument when the tasks do not fit rows and hypers, or a row lacks memory it needs.
void step_host(std::vector<Row>& rows, const std::vector<Hyper>& hypers, const std::vector<Task>& tasks,
               double grad_scale, unsigned threads, Workers& workers, Gate* gate);

// Records `norm` (of the scaled gradient) as that of step t in `history`[(t - 1) mod 100] and returns min(1, clip /
// norm), where clip is the entry of rank floor(percentile * k / 100), from 0, of the k entries above zero in ascending
// order. So norms of zero and steps before clipping was on do not count. A norm that is not finite counts as infinite.
double clip_scale(float* history, double norm, double t, int percentile);

// The 8-bit codec by itself. `block` elements share an absmax; ceil(numel / block) of them. Numbers that are not
// finite, and below zero in the unsigned map, are stored as zero.
void encode(const float* from, std::int64_t numel, std::uint8_t* codes, float* absmax, bool is_signed,
            std::int64_t block);
void decode(const std::uint8_t* codes, const float* absmax, std::int64_t numel, float* to, bool is_signed,
            std::int64_t block);
const CodeMap& code_map(bool is_signed);

// Instruction sets: the one in use, those this machine has (best first; `portable` is always among them), and choosing
// one. set_isa throws std::invalid_argument for a name that isas() does not list.
std::string isa();
std::vector<std::string> isas();
void set_isa(const std::string& name);

}  // namespace pagedopt

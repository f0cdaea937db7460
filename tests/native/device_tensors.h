// A parameter with its state, and a step of the kernels of a GPU over several: those that are emulated on the CPU, or
// where PAGEDOPT_CUDA is defined those that nvcc made.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "gpu/kernels/tables.h"
#include "hypers.h"

namespace pagedopt {

// ---- one parameter with its state ----

struct Case {
  std::string name;
  Dtype dtype = Dtype::f32;
  Codec codec = Codec::f32;
  Hyper hyper = hyper_of();
  std::int64_t numel = 1003;
  int param_offset = 0, grad_offset = 0;  // elements after an address that is a multiple of 256
  double grad_size = 0.1, spread = 1.0;   // gradients are normal, times 10^-(up to spread)
  unsigned steps = 3;
};

// Bytes at a multiple of 256 and `skip` more, with others around them that nobody may write.
class Memory {
 public:
  explicit Memory(std::size_t size, std::size_t skip = 0)
      : size_(size), skip_(skip), bytes_(size + skip + 3 * kMargin, kFence) {
    std::memset(data(), 0, size);
  }
  void* data() {
    const auto at = reinterpret_cast<std::uintptr_t>(bytes_.data()) + kMargin;
    return bytes_.data() + kMargin + (kMargin - at % kMargin) % kMargin + skip_;
  }
  const void* data() const { return const_cast<Memory*>(this)->data(); }
  std::size_t size() const { return size_; }
  Memory(const Memory& other) : Memory(other.size_, other.skip_) { std::memcpy(data(), other.data(), size_); }
  Memory& operator=(const Memory&) = delete;
  bool fenced() const {
    const auto* first = static_cast<const std::uint8_t*>(data());
    const auto is_fence = [](std::uint8_t byte) { return byte == kFence; };
    return std::all_of(bytes_.data(), first, is_fence) &&
           std::all_of(first + size_, bytes_.data() + bytes_.size(), is_fence);
  }

 private:
  static constexpr std::size_t kMargin = 256;
  static constexpr std::uint8_t kFence = 0xa5;
  std::size_t size_, skip_;
  std::vector<std::uint8_t> bytes_;
};

inline std::size_t bytes_of(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 2; }

struct Tensor {
  explicit Tensor(const Case& c)
      : c(c),
        param(c.numel * bytes_of(c.dtype), c.param_offset * bytes_of(c.dtype)),
        grad(c.numel * bytes_of(c.dtype), c.grad_offset * bytes_of(c.dtype)),
        gnorms(4 * kGnormHistory),
        step(4) {
    std::mt19937 random(5);
    std::normal_distribution<double> normal;
    for (std::int64_t i = 0; i < c.numel; ++i) put(param, i, static_cast<float>(normal(random)));
    const std::int64_t scales = c.codec == Codec::f32 ? 0 : c.codec == Codec::tensorwise8 ? 1 : (c.numel + 255) / 256;
    for (int i = 0; i < kMostSlots; ++i) {
      slot.emplace_back(c.numel * (c.codec == Codec::f32 ? 4 : 1));
      absmax.emplace_back(4 * scales);
      if (is_signed(c.hyper.rule, i) && c.codec != Codec::f32) std::memset(slot[i].data(), 127, c.numel);
    }
  }

  void put(Memory& memory, std::int64_t i, float x) const {
    const std::uint16_t half = c.dtype == Dtype::bf16 ? to_bf16(x) : to_f16(x);
    auto* const to = static_cast<std::uint8_t*>(memory.data()) + i * bytes_of(c.dtype);
    std::memcpy(to, c.dtype == Dtype::f32 ? static_cast<const void*>(&x) : &half, bytes_of(c.dtype));
  }

  Row row(std::uint32_t group = 0) {
    Row r;
    r.param = param.data();
    r.grad = grad.data();
    for (int i = 0; i < slots_of(c.hyper.rule); ++i) {
      r.slot[i] = slot[i].data();
      r.absmax[i] = c.codec == Codec::f32 ? nullptr : static_cast<float*>(absmax[i].data());
    }
    r.step = static_cast<float*>(step.data());
    r.gnorm_history = static_cast<float*>(gnorms.data());
    r.numel = c.numel;
    r.group = group;
    r.dtype = c.dtype;
    r.codec = c.codec;
    return r;
  }

  Case c;
  Memory param, grad, gnorms, step;
  std::vector<Memory> slot, absmax;
};

// Every codec and dtype, changed.
inline std::vector<Case> kinds(const std::string& name, const std::function<void(Case&)>& change) {
  std::vector<Case> all;
  const char* codecs[] = {"f32", "blockwise8", "tensorwise8"};
  const char* dtypes[] = {"float32", "bfloat16", "float16"};
  for (const Codec codec : {Codec::f32, Codec::blockwise8, Codec::tensorwise8})
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
      Case c;
      c.hyper.lr = 0.01;
      c.hyper.weight_decay = 0.1;
      c.codec = codec;
      c.dtype = dtype;
      c.name = name + ", " + codecs[static_cast<int>(codec)] + ", " + dtypes[static_cast<int>(dtype)];
      change(c);
      if (c.codec == Codec::f32 || has_8bit(c.hyper.rule)) all.push_back(c);
    }
  return all;
}

inline void new_gradient(Tensor& tensor, unsigned t) {
  std::mt19937 random(100 + t);
  std::normal_distribution<double> normal;
  const Case& c = tensor.c;
  for (std::int64_t i = 0; i < c.numel; ++i) {
    const double scale = c.grad_size * std::pow(10.0, -c.spread * static_cast<double>(random() % 1000) / 1000);
    const bool zero = random() % 7 == 0 || (i / 256) % 3 == 1;  // some, and whole blocks
    tensor.put(tensor.grad, i, zero ? 0.0F : static_cast<float>(normal(random) * scale * (1 + t % 3)));
  }
}

// ---- a step of several tensors ----

struct Options {
  const float* found_inf = nullptr;
  const float* grad_scale = nullptr;
  double host_grad_scale = 1.0;
  std::vector<const float*> lr;    // by group
  std::uint64_t tasks_a_run = ~0;  // a stage goes in several runs of so many
};

inline void device_step(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const Options& options) {
  const DeviceTasks made = make_device_tasks(rows, hypers);
  std::vector<DeviceHyper> groups;
  for (std::size_t i = 0; i < hypers.size(); ++i)
    groups.push_back({hypers[i], i < options.lr.size() ? options.lr[i] : nullptr});
  std::vector<RowWork> work(rows.size());
  std::memset(static_cast<void*>(work.data()), 0x5a, work.size() * sizeof(RowWork));
  std::vector<Partial> partials(made.partial_count);
  StepTables tables;
  tables.rows = rows.data(), tables.hypers = groups.data(), tables.parts = made.parts.data();
  tables.row_partials = made.row_partials.data(), tables.work = work.data(), tables.partials = partials.data();
  tables.found_inf = options.found_inf, tables.grad_scale = options.grad_scale;
  tables.host_grad_scale = options.host_grad_scale;
#if defined(PAGEDOPT_CUDA)
  const DeviceKernels& kernels = cuda_kernels;
#else
  const DeviceKernels& kernels = emulated_kernels;
#endif
  bool begun = false;
  const auto begin = [&] {
    if (!begun) kernels.begin_rows(tables, 0, static_cast<std::uint32_t>(rows.size()), nullptr);
    begun = true;
  };
  for (const Stage& stage : made.stages) {
    if (stage.launch.pass != Pass::gradient_norm) begin();
    for (std::uint64_t first = stage.first_task, last; first < stage.last_task; first = last) {
      last = stage.last_task - first > options.tasks_a_run ? first + options.tasks_a_run : stage.last_task;
      require(kernels.run(tables, stage.launch, made.first_part[first], made.first_part[last], nullptr) == 0,
              "run fails");
    }
    if (stage.launch.pass == Pass::measure) kernels.finish_measure(tables, stage.first_row, stage.last_row, nullptr);
  }
}

}  // namespace pagedopt

// Registration only: what Python sees of the core. Everything that can take long lets go of the GIL.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/error.h"
#include "gpu/launch/launcher.h"
#include "memory/arena.h"
#include "python/arguments.h"
#include "python/tensors.h"
#include "python/unlocked.h"
#include "step/step.h"
#include "sweep/sweep.h"
#include "sweep/tensor_sweep.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pagedopt {

void bind_gpu(py::module_& m);  // both in bindings_gpu.cpp
void bind_placement(py::module_& m);
#if defined(PAGEDOPT_EMULATED_GPU)
void bind_emulated_gpu(py::module_& m);  // in bindings_emulated.cpp
#endif
void bind_arena(py::module_& m);    // in bindings_arena.cpp
void bind_tensors(py::module_& m);  // in bindings_tensors.cpp

namespace {

using Addresses = std::vector<std::uintptr_t>;

RuleId rule_of(const std::string& name) {
#define PAGEDOPT_CHOICE(id, Rule) {#id, RuleId::id},
  return choose<RuleId>("rule", name, {PAGEDOPT_RULES(PAGEDOPT_CHOICE)});
#undef PAGEDOPT_CHOICE
}

Hyper hyper_of(const std::string& rule, double lr, double weight_decay, bool decoupled, bool maximize,
               bool bias_correction, bool skip_zeros, double max_unorm, int percentile_clipping,
               const std::vector<double>& numbers) {
  Hyper hyper{rule_of(rule),   lr,         weight_decay, decoupled,           maximize,
              bias_correction, skip_zeros, max_unorm,    percentile_clipping, {}};
  std::size_t wanted = 0;
  with_rule(hyper.rule, [&](auto r) { wanted = kNumbersOf<decltype(r)>; });
  if (numbers.size() != wanted)
    throw std::invalid_argument(rule + " takes " + std::to_string(wanted) + " numbers, not " +
                                std::to_string(numbers.size()));
  std::copy(numbers.begin(), numbers.end(), hyper.number);
  return hyper;
}

// The slots, as (name, whether it is signed); the names of the numbers; whether state may have 8 bits.
template <class R>
py::tuple described() {
  py::list slots, numbers;
  for (int i = 0; i < kSlotsOf<R>; ++i) slots.append(py::make_tuple(R::kSlots[i].name, R::kSlots[i].is_signed));
  for (int i = 0; i < kNumbersOf<R>; ++i) numbers.append(R::kNumbers[i]);
  return py::make_tuple(py::tuple(slots), py::tuple(numbers), R::kHas8bit);
}

void bind_step(py::module_& m) {
  py::dict rules;
#define PAGEDOPT_DESCRIBED(id, Rule) rules[#id] = described<Rule>();
  PAGEDOPT_RULES(PAGEDOPT_DESCRIBED)
#undef PAGEDOPT_DESCRIBED
  m.attr("RULES") = rules;
  m.def("isa", &isa, "The instruction set the kernels use: avx512, avx2 or portable.");
  m.def("isas", &isas, "The instruction sets this machine can run, best first.");
  m.def("set_isa", &set_isa, "name"_a);
  m.def(
      "code_map",
      [](bool is_signed) {
        return py::bytes(reinterpret_cast<const char*>(code_map(is_signed).value), 256 * sizeof(float));
      },
      "signed"_a, "The 256 float32 values of the dynamic 8-bit map, as bytes.");

  py::class_<Hyper>(m, "Hyper")
      .def(py::init(&hyper_of), py::kw_only(), "rule"_a, "lr"_a, "weight_decay"_a, "decoupled"_a, "maximize"_a,
           "bias_correction"_a, "skip_zeros"_a, "max_unorm"_a, "percentile_clipping"_a, "numbers"_a);

  py::class_<Sweep>(m, "Sweep")
      .def(py::init([](const TensorRows& rows, const std::vector<Hyper>& hypers, std::shared_ptr<Arena> arena,
                       std::shared_ptr<Gpu> gpu) {
             const Unlocked release;
             return std::make_unique<Sweep>(rows.rows(), hypers, std::move(arena), std::move(gpu));
           }),
           "rows"_a, "hypers"_a, "arena"_a = nullptr, "gpu"_a = nullptr)
      .def("step", &Sweep::step, "hypers"_a, "grad_scale"_a, "threads"_a, py::call_guard<Unlocked>())
      .def(
          "step_on",
          [](Sweep& sweep, const std::vector<Hyper>& hypers, std::uintptr_t stream, double grad_scale,
             std::uintptr_t found_inf, std::uintptr_t scale, const Addresses& lr, std::uintptr_t ring,
             std::size_t ring_bytes) {
            DeviceArguments arguments{grad_scale, pointer<const float>(found_inf), pointer<const float>(scale), {}};
            for (const std::uintptr_t address : lr) arguments.lr.push_back(pointer<const float>(address));
            const Unlocked release;
            sweep.step_on(hypers, arguments, {pointer<std::byte>(ring), ring_bytes}, pointer<void>(stream));
          },
          "hypers"_a, py::kw_only(), "stream"_a, "grad_scale"_a, "found_inf"_a, "scale"_a, "lr"_a, "ring"_a = 0,
          "ring_bytes"_a = 0,
          "Puts the step on a stream of the GPU. Addresses of device float32 numbers, 0 for none; `lr` by group. The "
          "ring: memory of the device through which state on the host passes, in use until what is on the stream after "
          "this call is done; 0 to use the state where it is.")
      .def("release", &Sweep::release, py::call_guard<Unlocked>(), "Evicts its pages; returns how many left.")
      .def("restore", &Sweep::restore, py::call_guard<Unlocked>(), "Its pages come back, ahead of its next step.")
      .def_property_readonly("ring_bytes", &Sweep::ring_bytes, "What `ring` is to have; 0 where it is of no use now.");
}

void bind_tensor_sweep(py::module_& m) {
  using Spans = std::vector<std::pair<std::uintptr_t, std::size_t>>;  // address, bytes
  py::class_<TensorSweep>(m, "TensorSweep")
      .def(py::init([](std::shared_ptr<Arena> arena, const std::vector<Spans>& tasks) {
             std::vector<std::vector<ByteSpan>> spans(tasks.size());
             for (std::size_t task = 0; task < tasks.size(); ++task)
               for (const auto& [address, nbytes] : tasks[task])
                 spans[task].push_back({pointer<std::byte>(address), pointer<std::byte>(address) + nbytes});
             const Unlocked release;
             return std::make_unique<TensorSweep>(std::move(arena), spans);
           }),
           "arena"_a, "tasks"_a, "The memory that each task uses, as (address, nbytes).")
      .def(
          "step",
          [](TensorSweep& sweep, const std::vector<std::size_t>& tasks, const py::function& update,
             std::uintptr_t stream) {
            Unlocked release;
            const auto call = [&](std::size_t task) {
              const Relocked held(release);
              update(task);
            };
            sweep.step(tasks, call, pointer<void>(stream));
          },
          "tasks"_a, "update"_a, py::kw_only(), "stream"_a,
          "Calls `update(task)` for these tasks, which ascend, each while its pages are pinned. `stream`: that of the "
          "GPU; 0 on the host.");
}

}  // namespace
}  // namespace pagedopt

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core of pagedopt: arenas of paged memory and the steps over them.";
  py::register_exception<pagedopt::VmError>(m, "VmError", PyExc_OSError);
  py::register_exception<pagedopt::GpuError>(m, "GpuError", PyExc_RuntimeError);
  py::register_exception<pagedopt::ForkError>(m, "ForkError", PyExc_RuntimeError);
  pagedopt::bind_gpu(m);
#if defined(PAGEDOPT_EMULATED_GPU)
  pagedopt::bind_emulated_gpu(m);
#endif
  pagedopt::bind_arena(m);
  pagedopt::bind_tensors(m);
  pagedopt::bind_step(m);
  pagedopt::bind_tensor_sweep(m);
  pagedopt::bind_placement(m);
  py::module_::import("atexit").attr("register")(py::cpp_function(&pagedopt::close_border));
}

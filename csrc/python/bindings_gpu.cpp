// Registration of GPUs and of what is measured on them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "gpu/launch/placement.h"
#include "python/unlocked.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pagedopt {
namespace {

constexpr std::array<const char*, kCopyHints.size()> kHintNames = {"device", "none", "direction", "batch"};

CopyHint hint_named(const std::string& name) {
  for (std::size_t i = 0; i < kHintNames.size(); ++i)
    if (name == kHintNames[i]) return kCopyHints[i];
  throw std::invalid_argument("a hint is device, none, direction or batch, not " + name);
}

py::dict info_dict(const GpuInfo& info) {
  return py::dict("name"_a = info.name, "device"_a = info.device, "total_bytes"_a = info.total_bytes,
                  "can_migrate"_a = info.can_migrate, "shares_host_address"_a = info.shares_host_address,
                  "is_integrated"_a = info.is_integrated, "is_coherent"_a = info.is_coherent,
                  "capability"_a = py::make_tuple(info.major, info.minor));
}

}  // namespace

void bind_placement(py::module_& m) {
  m.def(
      "choose_copy_hint",
      [](const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
        HintTimes times{};
        {
          const Unlocked release;
          times = choose_copy_hint(gpu, arena);
        }
        py::dict named;
        for (std::size_t i = 0; i < times.size(); ++i) named[kHintNames[i]] = times[i];
        return named;
      },
      "gpu"_a, "arena"_a,
      "Seconds of a staged step over 64 MiB of state by each hint on copies; infinite where the runtime refuses. The "
      "fastest is in force from here on.");
  m.def(
      "choose_evict_way",
      [](const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
        EvictTimes times{};
        {
          const Unlocked release;
          times = choose_evict_way(gpu, arena);
        }
        py::dict named;
        for (std::size_t i = 0; i < times.size(); ++i)
          named[py::make_tuple(kEvictWays[i].pages_at_once, kEvictWays[i].threads)] = times[i];
        return named;
      },
      "gpu"_a, "arena"_a,
      "Seconds in which 64 MiB of state are moved to the host by each (pages a call, threads); infinite where the "
      "driver "
      "refuses. The fastest is the arena's `evict_way` from here on.");
  m.def(
      "measure_placement",
      [](const std::shared_ptr<Gpu>& gpu, const std::shared_ptr<Arena>& arena) {
        PlacementTimes times{};
        {
          const Unlocked release;
          times = measure_placement(gpu, arena);
        }
        return py::make_tuple(times.stream_s, times.direct_s, times.staged_s);
      },
      "gpu"_a, "arena"_a,
      "Seconds of a step over 64 MiB of state on the host: moved in and out, used in place, and copied through a "
      "ring.");
}

void bind_gpu(py::module_& m) {
  using unlocked = py::call_guard<Unlocked>;
  m.def("cuda_device_count", &cuda_device_count, "CUDA devices; 0 without a driver, or in a build without CUDA.");
  m.def("cuda_absence", &cuda_absence, "Why there is no CUDA device, in words; empty if there is one.");
  py::class_<Gpu, std::shared_ptr<Gpu>>(m, "Gpu")
      .def(py::init([](int device) {
             const Unlocked release;
             return make_cuda_gpu(device);
           }),
           "device"_a, "A CUDA device, by its number.")
      .def_property_readonly("info", [](const Gpu& gpu) { return info_dict(gpu.info()); })
      .def_property_readonly("free_bytes",
                             [](Gpu& gpu) {
                               const Unlocked release;
                               return gpu.free_bytes();
                             })
      .def("begin_thread", &Gpu::begin_thread, "This thread works for this GPU alone from now on.")
      .def("synchronize", py::overload_cast<>(&Gpu::synchronize), unlocked())
      .def_property(
          "copy_hint", [](const Gpu& gpu) { return kHintNames[static_cast<std::size_t>(gpu.copy_hint())]; },
          [](Gpu& gpu, const std::string& name) { gpu.set_copy_hint(hint_named(name)); },
          "What the runtime is told of copies of state: `device`, `none`, `direction` or `batch`.")
      .def(
          "copy_state",
          [](Gpu& gpu, std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool to_device,
             std::uintptr_t stream) {
            gpu.copy_state({{reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes}},
                           to_device ? Place::device : Place::host, reinterpret_cast<StreamHandle>(stream));
          },
          "to"_a, "source"_a, "nbytes"_a, py::kw_only(), "to_device"_a, "stream"_a,
          "Puts a copy of state on a stream, as a staged step makes it.", unlocked());
}

}  // namespace pagedopt

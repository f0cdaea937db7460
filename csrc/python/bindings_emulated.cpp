// Registration of the emulated GPU; only in builds with PAGEDOPT_EMULATED_GPU.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "emulated/gpu.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pagedopt {

void bind_emulated_gpu(py::module_& m) {
  py::class_<EmulatedGpu, Gpu, std::shared_ptr<EmulatedGpu>>(m, "EmulatedGpu")
      .def(py::init<std::size_t, std::uint64_t, bool, bool, bool, bool>(), py::kw_only(), "total_bytes"_a, "seed"_a,
           "eager"_a, "can_migrate"_a = true, "is_integrated"_a = false, "is_coherent"_a = false)
      .def_property_readonly("device_bytes", &EmulatedGpu::device_bytes)
      .def_property_readonly("kept_bytes", &EmulatedGpu::kept_bytes)
      .def_property_readonly("peak_device_bytes", &EmulatedGpu::peak_device_bytes)
      .def_property_readonly("overlaps", &EmulatedGpu::overlaps)
      .def("fail_after", &EmulatedGpu::fail_after, "calls"_a,
           "The call after so many that put work on a stream fails, once.")
      .def("refuse", &EmulatedGpu::refuse, "after"_a, "times"_a,
           "Of the hints from now on, so many are refused after so many that are not.")
      .def_property_readonly("hints", &EmulatedGpu::hints)
      .def_property_readonly("starved_bytes", &EmulatedGpu::starved_bytes,
                             "Used by the device before anybody placed them, when it had no memory for them.")
      .def(
          "clear",
          [](EmulatedGpu& gpu, std::uintptr_t memory, std::size_t bytes) {
            gpu.clear(reinterpret_cast<void*>(memory), bytes, nullptr);
          },
          "memory"_a, "nbytes"_a, "Puts the clearing of memory on the default stream.")
      .def("take", &EmulatedGpu::take, "nbytes"_a, "Others allocate so much of its memory.")
      .def("give", &EmulatedGpu::give, "nbytes"_a, "And free it.")
      .def(
          "use_kernels",
          [](EmulatedGpu& gpu, std::uintptr_t kernels) { gpu.use(*reinterpret_cast<const DeviceKernels*>(kernels)); },
          "address"_a, "The address of the DeviceKernels (gpu/kernels/tables.h) that its steps run from now on.")
      .def(
          "take_log",
          [](EmulatedGpu& gpu) {
            py::list log;
            for (const EmulatedGpu::Done& done : gpu.take_log())
              log.append(py::make_tuple(done.what, done.stream, done.begin, done.bytes, done.lower_bytes));
            return log;
          },
          "What was done since the last call, in order: (what, stream, address or first part, bytes or parts, bytes of "
          "state that a kernel found on the host).");
}

}  // namespace pagedopt

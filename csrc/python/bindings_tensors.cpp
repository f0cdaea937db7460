// Registration only: rows made from tensors, and the 8-bit codec over tensors.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/tensors.h"
#include "python/unlocked.h"
#include "step/step.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pagedopt {
namespace {

Codec codec_of(const std::string& name) {
  if (name == "f32") return Codec::f32;
  if (name == "blockwise8") return Codec::blockwise8;
  if (name == "tensorwise8") return Codec::tensorwise8;
  if (name == "f64") return Codec::f64;
  throw std::invalid_argument("codec is one of f32, f64, blockwise8, tensorwise8, not " + name);
}

// Values, their codes and their absmax, checked against each other.
struct Coded {
  TensorFacts values, codes, absmax;

  Coded(const py::object& values_of, const py::object& codes_of, const py::object& absmax_of, std::int64_t block)
      : values(contiguous_on_host(values_of, kFloat32, "values")),
        codes(contiguous_on_host(codes_of, kUint8, "codes")),
        absmax(contiguous_on_host(absmax_of, kFloat32, "absmax")) {
    const std::int64_t numel = values.numel();
    if (block < 1 || codes.numel() != numel || absmax.numel() < (numel + block - 1) / block)
      throw std::invalid_argument(std::to_string(numel) + " values need as many codes and an absmax for every " +
                                  std::to_string(block) + "; there are " + std::to_string(codes.numel()) + " and " +
                                  std::to_string(absmax.numel()));
  }
};

void encode_tensor(const py::object& values, const py::object& codes, const py::object& absmax, bool is_signed,
                   std::int64_t block) {
  const Coded coded(values, codes, absmax, block);
  const Unlocked release;
  encode(reinterpret_cast<const float*>(coded.values.data), coded.values.numel(),
         reinterpret_cast<std::uint8_t*>(coded.codes.data), reinterpret_cast<float*>(coded.absmax.data), is_signed,
         block);
}

void decode_tensor(const py::object& codes, const py::object& absmax, const py::object& values, bool is_signed,
                   std::int64_t block) {
  const Coded coded(values, codes, absmax, block);
  const Unlocked release;
  decode(reinterpret_cast<const std::uint8_t*>(coded.codes.data), reinterpret_cast<const float*>(coded.absmax.data),
         coded.values.numel(), reinterpret_cast<float*>(coded.values.data), is_signed, block);
}

}  // namespace

void bind_tensors(py::module_& m) {
  m.def("encode", &encode_tensor, "values"_a, "codes"_a, "absmax"_a, "signed"_a, "block"_a,
        "Encodes float32 values; all three are contiguous tensors on the CPU.");
  m.def("decode", &decode_tensor, "codes"_a, "absmax"_a, "values"_a, "signed"_a, "block"_a);
  m.def("tensor_readers", &tensor_readers, "How tensors can be read with this torch; the first way is in use.");
  m.def("set_tensor_reader", &set_tensor_reader, "name"_a);

  py::class_<TensorRows>(m, "Rows")
      .def(py::init<>())
      .def("__len__", &TensorRows::size)
      .def(
          "append",
          [](TensorRows& rows, const py::object& param, const py::dict& entry, std::vector<std::string> slots,
             std::vector<std::int64_t> strides, std::string history, std::uint32_t group, const std::string& codec) {
            rows.append(param, entry,
                        {std::move(slots), std::move(strides), std::move(history), group, codec_of(codec)});
          },
          "param"_a, "entry"_a, py::kw_only(), "slots"_a, "strides"_a, "history"_a, "group"_a, "codec"_a)
      .def("has_own_state", &TensorRows::has_all_own_state, "Whether the state is still what the rows were made from.")
      .def("look", &TensorRows::look,
           "None where a parameter or its state changed; else the parameters with a gradient, and the rows whose "
           "gradient needs a stand-in.")
      .def("set_grad", &TensorRows::set_grad, "row"_a, "grad"_a)
      .def("set_param", &TensorRows::set_param, "row"_a, "param"_a)
      .def_property_readonly("gapped", &TensorRows::gapped, "Rows whose parameter needs a dense stand-in.");
}

}  // namespace pagedopt

// The one place where a tensor of torch becomes an address. The rest of the core goes by addresses, so everything that
// could make an address mean something else is read and compared here: type, shape, strides, device, alignment.
//
// torch is asked through DLPack's C exchange API where it has that (one call gives all facts), or through the tensor's
// attributes. Both readers give the same facts. All functions want the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "step/step.h"

namespace pagedopt {

// Kinds of numbers, as DLPack counts them; `other` for what only torch's own dtype objects name.
enum class NumberKind : std::uint8_t { integer = 0, whole = 1, real = 2, bfloat = 4, other = 255 };

struct ElementType {
  NumberKind kind = NumberKind::other;
  std::uint8_t bits = 0;
  bool operator==(const ElementType& that) const { return kind == that.kind && bits == that.bits; }
};

inline constexpr ElementType kFloat64{NumberKind::real, 64}, kFloat32{NumberKind::real, 32},
    kFloat16{NumberKind::real, 16}, kBfloat16{NumberKind::bfloat, 16}, kUint8{NumberKind::whole, 8};

inline constexpr std::int32_t kCpu = 1;  // DLPack's number for the host

struct TensorDevice {
  std::int32_t type = 0, index = 0;  // of the device, as DLPack counts them
  bool operator==(const TensorDevice& that) const { return type == that.type && index == that.index; }
};

// What a tensor is. `shape` and `strides` (in elements) point into the tensor: valid until anything else is called.
struct TensorFacts {
  std::byte* data = nullptr;
  ElementType element;
  TensorDevice device;
  std::int32_t ndim = 0;
  const std::int64_t* shape = nullptr;
  const std::int64_t* strides = nullptr;
  std::vector<std::int64_t> own;  // what they point to where the reader had to copy

  std::int64_t numel() const noexcept;
  std::int64_t bytes() const noexcept { return numel() * element.bits / 8; }
  bool is_contiguous() const noexcept;
  // Whether element i of memory is the same element of the tensor as in a tensor of this shape with `strides`.
  bool is_in_order(const std::vector<std::int64_t>& strides) const noexcept;
  bool is_aligned(std::size_t bytes) const noexcept { return reinterpret_cast<std::uintptr_t>(data) % bytes == 0; }
  std::string text() const;  // for messages
};

// Reads the facts. False where the object has no plain memory: no tensor, or a sparse, meta or wrapping one.
bool read_tensor(pybind11::handle tensor, TensorFacts& facts);

// The readers by name, the one in use first: "dlpack" where torch has it, and "attributes".
std::vector<std::string> tensor_readers();
void set_tensor_reader(const std::string& name);

// The facts of a contiguous tensor in memory of the CPU; throws std::invalid_argument with `what` where it is none.
TensorFacts contiguous_on_host(pybind11::handle tensor, ElementType element, const char* what);

// The rows of a step, made from tensors, with everything they were made from.
class TensorRows {
 public:
  using Rows = std::vector<Row>;

  // How a row's state is stored.
  struct Layout {
    std::vector<std::string> slots;     // keys of the slots in the core's order
    std::vector<std::int64_t> strides;  // of parameter, gradient and slots in memory; dense
    std::string history;                // key of the norms of past gradients; empty: none
    std::uint32_t group = 0;
    Codec codec = Codec::f32;
  };

  TensorRows() : rows_(std::make_shared<Rows>()) {}

  // Throws std::invalid_argument where a tensor is not what its row needs.
  void append(const pybind11::object& param, const pybind11::dict& entry, const Layout& layout);

  // Looks at every parameter, gradient and state tensor, and gives the rows this step's addresses. None where a
  // parameter or its state is no longer what its row was made from, even at the same address. Else (touched, unusual):
  // the parameters that have a gradient, and the rows of gradients that cannot be used as they are (type, shape,
  // device, order, alignment, or a subclass of Tensor).
  pybind11::object look();

  bool has_all_own_state();  // whether look() would find all state as it was

  // Gives a row a stand-in for its gradient or parameter. Throws std::invalid_argument where that does not fit.
  void set_grad(std::size_t row, const pybind11::object& grad);
  void set_param(std::size_t row, const pybind11::object& param);

  // Rows whose parameter has gaps: the step works on a dense stand-in.
  const std::vector<std::size_t>& gapped() const noexcept { return gapped_; }
  std::size_t size() const noexcept { return rows_->size(); }
  const std::shared_ptr<Rows>& rows() const noexcept { return rows_; }

 private:
  // Where torch keeps the facts of a tensor in memory. Only ever fetched ahead, never read: it may be out of date.
  struct Nearby {
    const void* sizes = nullptr;
    const void* storage = nullptr;
  };
  // A tensor as it was when its row was made.
  struct Seen {
    std::byte* data;
    ElementType element;
    TensorDevice device;
    std::int32_t ndim;
    std::size_t dims;  // where its shape and then its strides begin in dims_
    Nearby nearby;
  };
  struct Value {
    pybind11::object object;
    std::ptrdiff_t seen;  // index into seen_; -1: not of the row
  };
  struct Source {
    pybind11::object param;
    pybind11::dict entry;
    Seen seen_param;
    std::size_t first_value, last_value;  // in values_
    std::vector<std::int64_t> strides;
    bool is_gapped;
    const void* last_grad;  // only to be fetched ahead
    Nearby nearby_grad;
  };

  Seen remember(pybind11::handle tensor, const TensorFacts& facts);
  bool is_as_seen(const TensorFacts& facts, const Seen& seen) const noexcept;
  bool is_shape_of(const TensorFacts& facts, const Seen& seen) const noexcept;
  bool has_own_state(const Source& source);
  void fetch_ahead(std::size_t index) const noexcept;
  bool look_at(std::size_t index, pybind11::list& unusual);
  void watch(Source& source, const pybind11::dict& entry, const std::vector<pybind11::object>& used);
  bool is_usable(const TensorFacts& facts, const Source& source) const noexcept;

  std::shared_ptr<Rows> rows_;
  std::vector<Source> sources_;
  std::vector<Value> values_;
  std::vector<Seen> seen_;
  std::vector<std::int64_t> dims_;
  std::vector<std::size_t> gapped_;
  pybind11::list params_;
};

}  // namespace pagedopt

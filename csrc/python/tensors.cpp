#include "python/tensors.h"

#include <algorithm>
#include <stdexcept>

namespace py = pybind11;

namespace pagedopt {
namespace {

// ---- DLPack's C exchange API, version 1: https://dmlc.github.io/dlpack/latest/c_api.html. Only what is used of it.

struct DlTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

struct DlExchange {
  std::uint32_t major, minor;
  DlExchange* older;
  void* unused[3];
  int (*tensor_of)(void* object, DlTensor* out);  // borrows: no copy, no synchronisation. -1 with a Python error
};

bool read_dlpack(const DlExchange& exchange, py::handle tensor, TensorFacts& facts) {
  DlTensor found;
  if (exchange.tensor_of(tensor.ptr(), &found) != 0) {
    PyErr_Clear();
    return false;
  }
  facts.data = static_cast<std::byte*>(found.data) + found.byte_offset;
  facts.element = {static_cast<NumberKind>(found.code), found.lanes == 1 ? found.bits : std::uint8_t{0}};
  facts.device = {found.device_type, found.device_id};
  facts.ndim = found.ndim;
  facts.shape = found.shape;
  facts.strides = found.strides;
  return found.strides != nullptr || found.ndim == 0;
}

// ---- The same by attributes

struct Names {
  py::object tensor_type, parameter_type, base_type, strided;
  std::vector<std::pair<py::object, ElementType>> dtypes;
  const DlExchange* exchange = nullptr;
  bool by_attributes = false;
  py::str grad{"grad"};
  const PyGetSetDef* get_grad = nullptr;
};

Names make_names() {
  const py::module_ torch = py::module_::import("torch");
  Names names;
  names.tensor_type = torch.attr("Tensor").cast<py::object>();
  names.parameter_type = torch.attr("nn").attr("Parameter");
  names.base_type = py::module_::import("torch._C").attr("TensorBase");
  names.strided = torch.attr("strided");
  const std::pair<const char*, ElementType> dtypes[] = {{"float32", kFloat32},
                                                        {"bfloat16", kBfloat16},
                                                        {"float16", kFloat16},
                                                        {"uint8", kUint8},
                                                        {"float64", kFloat64},
                                                        {"int8", {NumberKind::integer, 8}},
                                                        {"int64", {NumberKind::integer, 64}}};
  for (const auto& [name, element] : dtypes) names.dtypes.emplace_back(torch.attr(name), element);
  const py::object capsule = py::getattr(names.tensor_type, "__dlpack_c_exchange_api__", py::object(py::none()));
  if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) {
    auto* exchange = static_cast<DlExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    while (exchange != nullptr && exchange->major != 1) exchange = exchange->older;
    names.exchange = exchange;
  }
  names.by_attributes = names.exchange == nullptr;
  const py::object grad = names.base_type.attr("grad");
  if (Py_TYPE(grad.ptr()) == &PyGetSetDescr_Type)
    names.get_grad = reinterpret_cast<PyGetSetDescrObject*>(grad.ptr())->d_getset;
  return names;
}

Names& names() {
  static auto* made = new Names(make_names());  // never destroyed: the interpreter may be gone by then
  return *made;
}

// As DLPack counts devices.
TensorDevice device_of(const py::object& device) {
  const auto type = device.attr("type").cast<std::string>();
  const py::object index = device.attr("index");
  return {type == "cpu" ? kCpu : type == "cuda" ? 2 : 255, index.is_none() ? 0 : index.cast<std::int32_t>()};
}

bool read_attributes(py::handle tensor, TensorFacts& facts) try {
  const py::object layout = tensor.attr("layout"), found = tensor.attr("dtype");
  if (!layout.is(names().strided) || tensor.attr("is_meta").cast<bool>()) return false;
  facts.data = reinterpret_cast<std::byte*>(tensor.attr("data_ptr")().cast<std::uintptr_t>());
  facts.element = {};
  for (const auto& [dtype, element] : names().dtypes)
    if (dtype.is(found)) facts.element = element;
  facts.device = device_of(tensor.attr("device"));
  facts.own.clear();
  for (const py::handle size : tensor.attr("shape")) facts.own.push_back(size.cast<std::int64_t>());
  facts.ndim = static_cast<std::int32_t>(facts.own.size());
  for (const py::handle stride : tensor.attr("stride")()) facts.own.push_back(stride.cast<std::int64_t>());
  facts.shape = facts.own.data();
  facts.strides = facts.own.data() + facts.ndim;
  return true;
} catch (const py::error_already_set&) {  // a tensor without storage
  return false;
}

std::string list_text(const std::int64_t* numbers, std::int32_t count) {
  std::string text = "(";
  for (std::int32_t i = 0; i < count; ++i) text += (i ? ", " : "") + std::to_string(numbers[i]);
  return text + ")";
}

std::string element_text(ElementType element) {
  const char* kind = element.kind == NumberKind::bfloat    ? "bfloat"
                     : element.kind == NumberKind::real    ? "float"
                     : element.kind == NumberKind::whole   ? "uint"
                     : element.kind == NumberKind::integer ? "int"
                                                           : "unknown";
  return kind + std::to_string(element.bits);
}

Dtype dtype_of(ElementType element) {
  if (element == kFloat32) return Dtype::f32;
  if (element == kBfloat16) return Dtype::bf16;
  if (element == kFloat16) return Dtype::f16;
  if (element == kFloat64) return Dtype::f64;
  throw std::invalid_argument("the parameter is of type " + element_text(element) +
                              "; float32, bfloat16, float16 and float64 can be updated");
}

// Kernels read state in vectors of this size.
constexpr std::size_t kStateAlignment = 16;

// The address of a tensor of state. `empty`: what stands in where there is no element.
std::byte* state_address(const TensorFacts& facts, ElementType element, std::int64_t numel, TensorDevice device,
                         const std::string& name, std::byte* empty) {
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument(name + " is " + facts.text() + "; " + what);
  };
  require(facts.element == element, element_text(element) + " is needed");
  require(facts.numel() == numel, std::to_string(numel) + " elements are needed");
  require(facts.device == device, "it has to be on the device of its parameter");
  if (numel == 0) return empty;
  require(facts.data != nullptr, "its memory was freed");
  require(facts.is_aligned(numel == 1 ? element.bits / std::size_t{8} : kStateAlignment),
          "its memory has to be aligned to 16 bytes");
  return facts.data;
}

TensorFacts facts_in(const py::dict& entry, const std::string& key) {
  const py::str name(key);
  TensorFacts facts;
  if (!entry.contains(name) || !read_tensor(entry[name], facts))
    throw std::invalid_argument("its state has no tensor " + key);
  return facts;
}

bool is_plain_type(py::handle object);

// Whether the elements stand for their negatives: the imaginary part of a conjugate, which is dense if it is one
// number.
bool is_negated(const py::object& tensor) { return tensor.attr("is_neg")().cast<bool>(); }

// What `param.grad` is. Of a plain tensor its property is called without being looked up.
py::object gradient_of(const py::object& param) {
  const Names& known = names();
  PyObject* const grad = known.get_grad != nullptr && is_plain_type(param)
                             ? known.get_grad->get(param.ptr(), known.get_grad->closure)
                             : PyObject_GetAttr(param.ptr(), known.grad.ptr());
  if (grad == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(grad);
}

bool is_plain_type(py::handle object) {
  const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
  return type == names().tensor_type.ptr() || type == names().parameter_type.ptr();
}

}  // namespace

// ---- facts

std::int64_t TensorFacts::numel() const noexcept {
  std::int64_t count = 1;
  for (std::int32_t i = 0; i < ndim; ++i) count *= shape[i];
  return count;
}

bool TensorFacts::is_contiguous() const noexcept {
  std::int64_t step = 1;
  for (std::int32_t i = ndim; i-- > 0;) {
    if (shape[i] != 1 && strides[i] != step) return numel() == 0;
    step *= shape[i];
  }
  return true;
}

bool TensorFacts::is_in_order(const std::vector<std::int64_t>& order) const noexcept {
  if (order.size() != static_cast<std::size_t>(ndim)) return false;
  for (std::int32_t i = 0; i < ndim; ++i)
    if (shape[i] != 1 && strides[i] != order[static_cast<std::size_t>(i)]) return numel() == 0;
  return true;
}

std::string TensorFacts::text() const {
  return element_text(element) + " of shape " + list_text(shape, ndim) + " and strides " + list_text(strides, ndim);
}

bool read_tensor(py::handle tensor, TensorFacts& facts) {
  const Names& known = names();
  if (!is_plain_type(tensor) &&
      !PyObject_TypeCheck(tensor.ptr(), reinterpret_cast<PyTypeObject*>(known.base_type.ptr())))
    return false;
  return known.by_attributes ? read_attributes(tensor, facts) : read_dlpack(*known.exchange, tensor, facts);
}

std::vector<std::string> tensor_readers() {
  if (names().exchange == nullptr) return {"attributes"};
  return names().by_attributes ? std::vector<std::string>{"attributes", "dlpack"}
                               : std::vector<std::string>{"dlpack", "attributes"};
}

void set_tensor_reader(const std::string& name) {
  const std::vector<std::string> known = tensor_readers();
  if (std::find(known.begin(), known.end(), name) == known.end())
    throw std::invalid_argument("no reader of tensors '" + name + "' with this torch");
  names().by_attributes = name == "attributes";
}

TensorFacts contiguous_on_host(py::handle tensor, ElementType element, const char* what) {
  TensorFacts facts;
  if (!read_tensor(tensor, facts)) throw std::invalid_argument(std::string(what) + " is no tensor with memory");
  const bool is_right = facts.element == element && facts.device.type == kCpu && facts.is_contiguous();
  if (!is_right || (facts.data == nullptr && facts.numel() > 0))
    throw std::invalid_argument(std::string(what) + " is " + facts.text() + "; a contiguous " + element_text(element) +
                                " tensor on the CPU is needed");
  return facts;
}

// ---- rows

namespace {

constexpr std::ptrdiff_t kCacheLine = 64;
constexpr std::size_t kRowsAhead = 8;  // about as long as memory takes to answer

void fetch(const void* address) {
  __builtin_prefetch(address);
  asm volatile("");  // else GCC sees that a function only fetches, and leaves out calls of it
}

}  // namespace

TensorRows::Seen TensorRows::remember(py::handle tensor, const TensorFacts& facts) {
  const py::object storage = py::getattr(tensor.attr("untyped_storage")(), "_cdata", py::int_(0));
  const Nearby nearby{facts.shape, reinterpret_cast<const void*>(storage.cast<std::uintptr_t>())};
  const Seen seen{facts.data, facts.element, facts.device, facts.ndim, dims_.size(), nearby};
  dims_.insert(dims_.end(), facts.shape, facts.shape + facts.ndim);
  dims_.insert(dims_.end(), facts.strides, facts.strides + facts.ndim);
  return seen;
}

bool TensorRows::is_shape_of(const TensorFacts& facts, const Seen& seen) const noexcept {
  return facts.ndim == seen.ndim && std::equal(facts.shape, facts.shape + facts.ndim, dims_.data() + seen.dims);
}

// All but the address.
bool TensorRows::is_as_seen(const TensorFacts& facts, const Seen& seen) const noexcept {
  return facts.element == seen.element && facts.device == seen.device && is_shape_of(facts, seen) &&
         std::equal(facts.strides, facts.strides + facts.ndim, dims_.data() + seen.dims + seen.ndim);
}

void TensorRows::watch(Source& source, const py::dict& entry, const std::vector<py::object>& used) {
  source.first_value = values_.size();
  for (const auto& item : entry) {
    const auto value = py::reinterpret_borrow<py::object>(item.second);
    const bool is_used = std::any_of(used.begin(), used.end(), [&](const py::object& one) { return one.is(value); });
    values_.push_back({value, is_used ? static_cast<std::ptrdiff_t>(seen_.size()) : -1});
    if (!is_used) continue;
    TensorFacts facts;
    if (!read_tensor(value, facts)) throw std::invalid_argument("its state changed while the step began");
    seen_.push_back(remember(value, facts));
  }
  source.last_value = values_.size();
}

void TensorRows::append(const py::object& param, const py::dict& entry, const Layout& layout) {
  TensorFacts facts;
  if (!read_tensor(param, facts))
    throw std::invalid_argument("it is a " + std::string(Py_TYPE(param.ptr())->tp_name) + " without memory of its own");
  const std::int64_t numel = facts.numel();
  if (numel > 0 && facts.data == nullptr) throw std::invalid_argument("its memory was freed (is it sharded?)");
  if (layout.slots.size() > static_cast<std::size_t>(kMostSlots)) throw std::invalid_argument("too many slots");

  const bool is_gapped = !facts.is_in_order(layout.strides) || !facts.is_aligned(facts.element.bits / 8);
  Source source{param, entry, remember(param, facts), 0, 0, layout.strides, is_gapped, nullptr, {}};
  std::vector<py::object> used;
  Row row{};
  const auto take = [&](const std::string& key, ElementType element, std::int64_t count, bool is_slot) {
    const TensorFacts state = facts_in(entry, key);
    if (is_slot ? !state.is_in_order(layout.strides) : !state.is_contiguous())
      throw std::invalid_argument(key + " is " + state.text() +
                                  "; its elements are not in the order of the parameter's");
    used.push_back(entry[py::str(key)]);
    return state_address(state, element, count, facts.device, key, reinterpret_cast<std::byte*>(row.step));
  };
  row.step = reinterpret_cast<float*>(take("step", kFloat32, 1, false));
  row.numel = numel;
  row.group = layout.group;
  row.dtype = dtype_of(facts.element);
  // An empty row counts its steps, and that is all.
  row.codec = numel == 0 && is_8bit(layout.codec) ? Codec::f32 : layout.codec;
  row.param = numel == 0 ? static_cast<void*>(row.step) : facts.data;
  const bool has_codes = is_8bit(layout.codec);
  const ElementType stored = has_codes ? kUint8 : layout.codec == Codec::f64 ? kFloat64 : kFloat32;
  const std::int64_t absmax = layout.codec == Codec::blockwise8 ? (numel + kBlockElements - 1) / kBlockElements
                                                                : std::min<std::int64_t>(numel, 1);
  for (std::size_t i = 0; i < layout.slots.size(); ++i) {
    row.slot[i] = take(layout.slots[i], stored, numel, true);
    if (has_codes) row.absmax[i] = reinterpret_cast<float*>(take(layout.slots[i] + "_absmax", kFloat32, absmax, false));
  }
  if (!layout.history.empty())
    row.gnorm_history = reinterpret_cast<float*>(take(layout.history, kFloat32, kGnormHistory, false));
  watch(source, entry, used);
  if (is_gapped) gapped_.push_back(sources_.size());
  sources_.push_back(std::move(source));
  rows_->push_back(row);
  params_.append(param);
}

bool TensorRows::has_own_state(const Source& source) {
  PyObject *key = nullptr, *value = nullptr;
  Py_ssize_t at = 0;
  std::size_t i = source.first_value;
  TensorFacts facts;
  for (; PyDict_Next(source.entry.ptr(), &at, &key, &value); ++i) {
    if (i == source.last_value || values_[i].object.ptr() != value) return false;
    if (values_[i].seen < 0) continue;
    const Seen& seen = seen_[static_cast<std::size_t>(values_[i].seen)];
    if (!read_tensor(value, facts) || facts.data != seen.data || !is_as_seen(facts, seen)) return false;
  }
  return i == source.last_value;
}

bool TensorRows::has_all_own_state() {
  return std::all_of(sources_.begin(), sources_.end(), [this](const Source& source) { return has_own_state(source); });
}

bool TensorRows::is_usable(const TensorFacts& facts, const Source& source) const noexcept {
  const Seen& param = source.seen_param;
  return facts.element == param.element && facts.device == param.device && is_shape_of(facts, param) &&
         facts.is_in_order(source.strides) && facts.is_aligned(facts.element.bits / 8) &&
         (facts.data != nullptr || facts.numel() == 0);
}

// A look follows pointers into memory that nothing else touches during a step: most of its time it would wait for it.
void TensorRows::fetch_ahead(std::size_t index) const noexcept {
  if (index >= sources_.size()) return;
  const auto fetch_lines = [&](const void* first, std::ptrdiff_t from, std::ptrdiff_t to) {
    for (; from <= to; from += kCacheLine) fetch(static_cast<const std::byte*>(first) + from);
  };
  const auto fetch_tensor = [&](const void* object, const Nearby& nearby) {
    fetch(object);
    fetch_lines(nearby.sizes, -kCacheLine, kCacheLine);
    fetch(nearby.storage);
  };
  const Source& source = sources_[index];
  fetch_tensor(source.param.ptr(), source.seen_param.nearby);
  fetch_tensor(source.last_grad, source.nearby_grad);
  fetch(source.entry.ptr());
  fetch_lines(reinterpret_cast<PyDictObject*>(source.entry.ptr())->ma_keys, 0, 2 * kCacheLine);
  for (std::size_t i = source.first_value; i < source.last_value; ++i) {
    const Value& value = values_[i];
    fetch_tensor(value.object.ptr(), value.seen < 0 ? Nearby{} : seen_[static_cast<std::size_t>(value.seen)].nearby);
  }
}

bool TensorRows::look_at(std::size_t index, py::list& unusual) {
  Source& source = sources_[index];
  Row& row = (*rows_)[index];
  TensorFacts facts;
  if (!has_own_state(source) || !read_tensor(source.param, facts) || !is_as_seen(facts, source.seen_param))
    return false;
  if (row.numel > 0 && !source.is_gapped) {
    if (facts.data == nullptr || !facts.is_aligned(facts.element.bits / 8)) return false;
    row.param = facts.data;
  }
  const py::object grad = gradient_of(source.param);
  row.grad = nullptr;
  if (grad.is_none()) return true;
  row.grad = row.param;  // marks the row as one to update; for an unusual gradient set_grad() replaces it
  if (!is_plain_type(grad) || !read_tensor(grad, facts) || !is_usable(facts, source) ||
      (row.numel == 1 && is_negated(grad)))
    unusual.append(index);
  else if (row.numel > 0)
    row.grad = facts.data;
  source.last_grad = grad.ptr();
  source.nearby_grad.sizes = facts.shape;
  return true;
}

py::object TensorRows::look() {
  py::list unusual, touched;
  std::size_t idle = 0;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    fetch_ahead(i + kRowsAhead);
    if (!look_at(i, unusual)) return py::none();
    idle += (*rows_)[i].grad == nullptr ? 1 : 0;
  }
  if (idle == 0) return py::make_tuple(params_, unusual);
  for (std::size_t i = 0; i < sources_.size(); ++i)
    if ((*rows_)[i].grad != nullptr) touched.append(sources_[i].param);
  return py::make_tuple(touched, unusual);
}

void TensorRows::set_grad(std::size_t index, const py::object& grad) {
  TensorFacts facts;
  if (!read_tensor(grad, facts) || !is_usable(facts, sources_.at(index)))
    throw std::invalid_argument("a stand-in for a gradient does not fit its row");
  if ((*rows_)[index].numel > 0) (*rows_)[index].grad = facts.data;
}

void TensorRows::set_param(std::size_t index, const py::object& param) {
  TensorFacts facts;
  if (!read_tensor(param, facts) || !is_usable(facts, sources_.at(index)))
    throw std::invalid_argument("a stand-in for a parameter does not fit its row");
  (*rows_)[index].param = facts.data;
}

}  // namespace pagedopt

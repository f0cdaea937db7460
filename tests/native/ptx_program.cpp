#include "ptx_program.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

namespace ptx {
namespace {

using Symbols = std::map<std::string, std::uint64_t>;

constexpr std::size_t kGap = 128;  // between arrays of shared memory, so that no access past an end meets another array

std::size_t aligned(std::size_t at, std::size_t to) { return (at + to - 1) / to * to; }

std::vector<std::string> parts_of(const std::string& name) {  // `::` does not part
  std::vector<std::string> parts(1);
  for (const char c : name)
    if (c == '.')
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

std::string inside(const std::string& bracketed) { return bracketed.substr(1, bracketed.size() - 2); }

// A kernel, with the functions that it may call behind it.
class Builder {
 public:
  Builder(const Text& text, const Symbols& globals, const Computes& computes)
      : text_(text), globals_(globals), computes_(computes) {}

  Kernel build(const Function& kernel) {
    kernel_.name = kernel.name;
    for (const Variable& parameter : kernel.parameters) {
      kernel_.parameter_offsets.push_back(aligned(kernel_.parameter_bytes, parameter.align));
      kernel_.parameter_bytes = kernel_.parameter_offsets.back() + parameter.bytes;
    }
    kernel_.parameters = kernel.parameters;
    for (const Function& function : text_.functions)
      if (!function.is_kernel) make_called(function);
    add_function(kernel);
    for (const Function& function : text_.functions)
      if (!function.is_kernel) add_function(function);
    for (const Branch& call : calls_) kernel_.code[call.at].target = called_.at(call.label).begin;
    return std::move(kernel_);
  }

 private:
  struct Called {  // registers of its parameters and of what it returns
    std::uint32_t begin = 0;
    std::map<std::string, std::uint32_t> names;
    std::vector<std::uint32_t> parameters, results;
  };
  struct Branch {
    std::size_t at;
    std::string label;
    const Statement* statement;
  };
  using Operands = std::vector<std::string>;

  [[noreturn]] void refuse(const std::string& why) const {
    throw Fault("line " + std::to_string(statement_->line) + " of the PTX: " + why +
                " is not known: " + statement_->text);
  }

  void make_called(const Function& function) {
    Called& called = called_[function.name];
    for (const Variable& one : function.parameters)
      called.parameters.push_back(called.names[one.name] = new_register());
    for (const Variable& one : function.results) called.results.push_back(called.names[one.name] = new_register());
  }

  void add_function(const Function& function) {
    names_ = {{"%tid.x", Kernel::kThread}, {"%ctaid.x", Kernel::kCta}};
    labels_.clear(), branches_.clear();
    if (!function.is_kernel) {
      Called& called = called_.at(function.name);
      called.begin = static_cast<std::uint32_t>(kernel_.code.size());
      names_.insert(called.names.begin(), called.names.end());
    }
    for (const Statement& statement : function.statements) add(statement);
    for (const Branch& branch : branches_) {
      statement_ = branch.statement;
      if (labels_.count(branch.label) == 0) refuse("label " + branch.label);
      kernel_.code[branch.at].target = labels_.at(branch.label);
    }
  }

  // ---- names

  std::uint32_t new_register() { return kernel_.registers++; }

  // `%r<20>` is twenty of them.
  void declare_registers(const std::string& list) {
    for (const std::string& name : split_list(list)) {
      const std::size_t bracket = name.find('<');
      const int count = bracket == std::string::npos ? 1 : std::atoi(name.c_str() + bracket + 1);
      for (int i = 0; i < count; ++i)
        declare(bracket == std::string::npos ? name : name.substr(0, bracket) + std::to_string(i));
    }
  }
  void declare(const std::string& name) {
    if (names_.count(name) == 0) names_[name] = new_register();
  }

  std::uint32_t register_of(const std::string& name) {
    if (name == "_") return new_register();  // a result that is not wanted
    const auto found = names_.find(name);
    if (found == names_.end()) refuse("operand " + name);
    return found->second;
  }

  std::uint32_t source(const std::string& operand) {
    if (names_.count(operand) != 0) return names_.at(operand);
    const std::uint64_t value = value_of(operand);
    const auto [found, is_new] = constants_.try_emplace(value, kernel_.registers);
    if (is_new) kernel_.constants.push_back({new_register(), value});
    return found->second;
  }

  std::uint64_t value_of(const std::string& operand) {
    const char* const text = operand.c_str();
    char* end = nullptr;
    const bool is_bits = operand.size() > 2 && operand[0] == '0' && std::strchr("fFdD", operand[1]) != nullptr;
    const std::uint64_t value = is_bits          ? std::strtoull(text + 2, &end, 16)
                                : text[0] == '-' ? static_cast<std::uint64_t>(std::strtoll(text, &end, 0))
                                                 : std::strtoull(text, &end, 0);
    if (end != text && (*end == '\0' || std::string(end) == "U")) return value;
    if (globals_.count(operand) != 0) return globals_.at(operand);
    return shared_address(operand);
  }

  // An array has shared memory once something names it.
  std::uint64_t shared_address(const std::string& name) {
    if (shared_.count(name) != 0) return shared_.at(name);
    const auto array =
        std::find_if(arrays_.begin(), arrays_.end(), [&](const Variable& one) { return one.name == name; });
    const auto outer =
        std::find_if(text_.shared.begin(), text_.shared.end(), [&](const Variable& one) { return one.name == name; });
    if (array == arrays_.end() && outer == text_.shared.end()) refuse("operand " + name);
    const Variable& found = array != arrays_.end() ? *array : *outer;
    const std::size_t begin = aligned(kernel_.shared_bytes, std::max(found.align, kGap));
    kernel_.shared.push_back({begin, begin + found.bytes});
    kernel_.shared_bytes = begin + found.bytes + kGap;
    return shared_[name] = begin;
  }

  // ---- statements

  void add(const Statement& statement) {
    statement_ = &statement;
    const std::string& text = statement.text;
    const std::uint32_t at = static_cast<std::uint32_t>(kernel_.code.size());
    if (text.back() == ':')
      labels_[text.substr(0, text.size() - 1)] = at;
    else if (text[0] == '.')
      add_directive(text);
    else
      add_instruction(text);
  }

  void add_directive(const std::string& text) {
    if (text.rfind(".reg ", 0) == 0)
      declare_registers(text.substr(text.find(' ', 5) + 1));
    else if (text.rfind(".param ", 0) == 0)
      declare(read_variable(text).name);
    else if (text.rfind(".shared ", 0) == 0)
      arrays_.push_back(read_variable(text));
    else if (text.rfind(".pragma ", 0) != 0)
      refuse("directive");
  }

  void add_instruction(std::string text) {
    Instruction x;
    x.text = text, x.line = statement_->line;
    if (text[0] == '@') {
      const std::size_t end = text.find(' ');
      x.has_guard = true, x.guard_value = text[1] != '!';
      x.guard = register_of(text.substr(x.guard_value ? 1 : 2, end - (x.guard_value ? 1 : 2)));
      text = text.substr(end + 1);
    }
    const std::size_t end = std::min(text.find(' '), text.size());
    x.name = text.substr(0, end);
    const Operands operands = split_list(text.substr(end));
    if (x.name == "call" || x.name == "call.uni") return add_call(x, operands);
    fill(x, operands);
    if (x.has_guard && x.does >= Does::call) refuse("a guard here");
    kernel_.code.push_back(std::move(x));
  }

  // Control, and what lanes do together.
  void fill(Instruction& x, const Operands& operands) {
    const auto is = [&](const char* name, std::size_t count) { return x.name == name && operands.size() == count; };
    if (is("bra", 1) || is("bra.uni", 1)) {
      x.does = Does::branch;
      branches_.push_back({kernel_.code.size(), operands[0], statement_});
    } else if (is("ret", 0) || is("exit", 0)) {
      x.does = x.name == "ret" ? Does::leave : Does::end;
    } else if (is("bar.sync", 1) && operands[0] == "0") {
      x.does = Does::barrier;
    } else if (is("bar.warp.sync", 1)) {
      x.does = Does::sync_warp;
      x.from = {source(operands[0])};
    } else if (is("shfl.sync.bfly.b32", 5)) {
      x.does = Does::shuffle;
      const std::size_t both = operands[0].find('|');  // the second says whether there was such a lane
      x.to = {register_of(operands[0].substr(0, both))};
      if (both != std::string::npos) x.to.push_back(register_of(operands[0].substr(both + 1)));
      x.from = {source(operands[1]), source(operands[2]), source(operands[3]), source(operands[4])};
    } else if (is("redux.sync.max.u32", 3)) {
      x.does = Does::reduce;
      x.to = {register_of(operands[0])};
      x.from = {source(operands[1]), source(operands[2])};
    } else if (x.name.rfind("ld.", 0) == 0 || x.name.rfind("st.", 0) == 0) {
      fill_access(x, operands);
    } else {
      fill_compute(x, operands);
    }
  }

  void fill_compute(Instruction& x, const Operands& operands) {
    if (operands.size() < 2) refuse("instruction " + x.name);
    const bool packs = operands[1][0] == '{', unpacks = operands[0][0] == '{';
    for (const std::string& one : listed(operands[0])) x.to.push_back(register_of(one));
    for (const std::string& one : listed(operands[1])) x.from.push_back(source(one));
    for (std::size_t i = 2; i < operands.size(); ++i) x.from.push_back(source(operands[i]));
    if (packs || unpacks) {
      if (x.name != "mov.b32" && x.name != "mov.b64") refuse("instruction " + x.name);
      const int bits = x.name == "mov.b32" ? 32 : 64;
      x.compute = packs ? packing(bits, x.from.size()) : unpacking(bits, x.to.size());
    } else {
      const auto found = computes_.find(x.name);
      if (found == computes_.end() || found->second.operands != x.from.size()) refuse("instruction " + x.name);
      x.compute = found->second;
    }
  }

  static Operands listed(const std::string& operand) {
    return operand[0] == '{' ? split_list(inside(operand)) : Operands{operand};
  }

  // ---- memory

  void fill_access(Instruction& x, const Operands& operands) {
    static const std::set<std::string> caching = {"ca", "cg", "cs", "lu", "nc", "wb", "wt"};
    if (operands.size() != 2) refuse("instruction " + x.name);
    const std::vector<std::string> parts = parts_of(x.name);
    const bool loads = parts[0] == "ld";
    x.does = loads ? Does::load : Does::store;  // generic addresses are global ones: nothing makes others of them
    bool is_parameter = false;
    std::size_t width = 1;
    for (std::size_t i = 1; i + 1 < parts.size(); ++i) {
      if (parts[i] == "shared")
        x.space = Space::shared;
      else if (parts[i] == "param")
        is_parameter = true;
      else if (parts[i] == "v2" || parts[i] == "v4")
        width = parts[i] == "v2" ? 2 : 4;
      else if (parts[i] != "global" && caching.count(parts[i]) == 0)
        refuse("instruction " + x.name);
    }
    x.bytes = std::atoi(parts.back().c_str() + 1) / 8;
    x.is_signed = parts.back()[0] == 's';
    const Operands values = listed(operands[loads ? 0 : 1]);
    if (x.bytes == 0 || values.size() != width) refuse("instruction " + x.name);
    if (x.space == Space::shared && x.bytes < 4) refuse("shared memory by less than 4 bytes");
    const std::string address = inside(operands[loads ? 1 : 0]);
    const std::size_t plus = std::min(address.find('+'), address.size());
    const std::string base = address.substr(0, plus);
    x.offset = plus < address.size() ? std::strtoll(address.c_str() + plus + 1, nullptr, 0) : 0;
    if (is_parameter) return fill_parameter(x, base, values);
    x.from = {source(base)};
    for (const std::string& one : values) loads ? x.to.push_back(register_of(one)) : x.from.push_back(source(one));
  }

  // The kernel's are memory; those of functions are registers.
  void fill_parameter(Instruction& x, const std::string& base, const Operands& values) {
    for (std::size_t i = 0; i < kernel_.parameters.size(); ++i) {
      if (kernel_.parameters[i].name != base) continue;
      if (x.does == Does::store || x.offset + x.bytes * values.size() > kernel_.parameters[i].bytes)
        refuse("such an access of a parameter");
      x.does = Does::load_parameter;
      x.offset += static_cast<std::int64_t>(kernel_.parameter_offsets[i]);
      for (const std::string& one : values) x.to.push_back(register_of(one));
      return;
    }
    if (x.offset != 0 || values.size() != 1) refuse("such an access of a parameter");
    const bool loads = x.does == Does::load;
    x.does = Does::compute;
    x.compute = computes_.at("mov.b64");
    x.to = {register_of(loads ? values[0] : base)};
    x.from = {loads ? register_of(base) : source(values[0])};
  }

  // `call (result), function, (parameters)`: moves around a jump.
  void add_call(const Instruction& call, const Operands& operands) {
    if (operands.size() != 3 || called_.count(operands[1]) == 0) refuse("function");
    const Called& called = called_.at(operands[1]);
    const Operands results = split_list(inside(operands[0])), parameters = split_list(inside(operands[2]));
    if (call.has_guard || results.size() != called.results.size() || parameters.size() != called.parameters.size())
      refuse("such a call");
    for (std::size_t i = 0; i < parameters.size(); ++i)
      add_move(call, called.parameters[i], register_of(parameters[i]));
    calls_.push_back({kernel_.code.size(), operands[1], statement_});
    kernel_.code.push_back(call);
    kernel_.code.back().does = Does::call;
    for (std::size_t i = 0; i < results.size(); ++i) add_move(call, register_of(results[i]), called.results[i]);
  }

  void add_move(const Instruction& like, std::uint32_t to, std::uint32_t from) {
    kernel_.code.push_back(like);
    kernel_.code.back().to = {to}, kernel_.code.back().from = {from};
    kernel_.code.back().compute = computes_.at("mov.b64");
  }

  const Text& text_;
  const Symbols& globals_;
  const Computes& computes_;
  Kernel kernel_;
  const Statement* statement_ = nullptr;
  std::map<std::string, Called> called_;
  std::vector<Branch> calls_;
  std::map<std::uint64_t, std::uint32_t> constants_;
  std::map<std::string, std::uint64_t> shared_;
  // Of the function at hand:
  std::map<std::string, std::uint32_t> names_, labels_;
  std::vector<Branch> branches_;
  std::vector<Variable> arrays_;
};

}  // namespace

Program::Program(const std::string& ptx, Approximate approximate) {
  const Text text = read_text(ptx);
  const Computes computes = make_computes(approximate);
  Symbols globals;
  for (const Variable& array : text.globals) {
    const std::size_t align = std::max<std::size_t>(array.align, alignof(std::max_align_t));
    globals_.emplace_back(static_cast<std::byte*>(std::aligned_alloc(align, aligned(array.bytes, align))));
    std::memcpy(globals_.back().get(), array.content.data(), array.bytes);
    globals[array.name] = reinterpret_cast<std::uintptr_t>(globals_.back().get());
  }
  for (const Function& function : text.functions)
    if (function.is_kernel) kernels_.push_back(Builder(text, globals, computes).build(function));
}

const Kernel& Program::kernel(const std::string& name) const {
  for (const Kernel& kernel : kernels_)
    if (kernel.name == name) return kernel;
  throw Fault("the PTX has no kernel " + name);
}

}  // namespace ptx

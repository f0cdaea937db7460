// PTX as text: the arrays and functions of a module, and their statements ("Parallel Thread Execution ISA", chapter 4).
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptx {

// A mistake that a GPU need not notice, and PTX that is not known here.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Statement {
  int line;
  std::string text;  // without the semicolon, single-spaced; a label ends with a colon
};

struct Variable {  // of global or shared memory, or a parameter
  std::string name;
  std::size_t align, bytes;
  std::vector<std::byte> content;  // of global memory
};

struct Function {
  std::string name;
  bool is_kernel;
  std::vector<Variable> parameters, results;
  std::vector<Statement> statements;
};

struct Text {
  std::vector<Variable> globals, shared;
  std::vector<Function> functions;
};

Text read_text(const std::string& ptx);

// From a declaration such as `.shared .align 16 .b8 name[2048]`, `.param .u64 name`.
Variable read_variable(const std::string& declaration);

// The parts between commas that no bracket encloses.
std::vector<std::string> split_list(const std::string& list);

}  // namespace ptx

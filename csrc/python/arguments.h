// Arguments from Python: an address as a pointer, a name as one of an enum.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>

namespace pagedopt {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

template <class Enum>
Enum choose(const char* what, const std::string& name, std::initializer_list<std::pair<const char*, Enum>> choices) {
  std::string allowed;
  for (const auto& [key, value] : choices) {
    if (name == key) return value;
    allowed += std::string(allowed.empty() ? "" : ", ") + key;
  }
  throw std::invalid_argument(std::string(what) + " is one of " + allowed + ", not " + name);
}

}  // namespace pagedopt

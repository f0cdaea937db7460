// What native tests have in common: they print the first thing that is wrong and exit with 1.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <utility>

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

inline void require(bool holds, const std::string& what) {
  if (!holds) fail(what);
}

inline std::string show(double x) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", x);
  return text;
}

// Runs groups of tests by name, each after `before`: all of them, or the one that the program's first argument names.
template <std::size_t count>
int run_groups(
    int argc, char** argv, const std::pair<const char*, void (*)()> (&groups)[count], void (*before)() = [] {}) {
  int found = 0;
  for (const auto& [name, test] : groups) {
    if (argc > 1 && std::strcmp(argv[1], name) != 0) continue;
    ++found;
    try {
      before();
      test();
    } catch (const std::exception& error) {
      fail(name + std::string(": ") + error.what());
    }
    std::printf("%s passed\n", name);
    std::fflush(stdout);
  }
  return found > 0 ? 0 : 2;
}

#include "ptx_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "ptx_warp.h"

namespace {

using ptx::Fault;

std::string setting(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

ptx::Approximate approximate_named(const std::string& name) {
  if (name.empty() || name == "exactly") return ptx::Approximate::exactly;
  if (name == "below") return ptx::Approximate::below;
  if (name == "above") return ptx::Approximate::above;
  if (name == "drawn") return ptx::Approximate::drawn;
  throw Fault("PTX_APPROXIMATE is " + name);
}

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  if (!file) throw Fault("PTX_FILE cannot be read: " + path);
  return content.str();
}

struct Settings {
  std::string file = setting("PTX_FILE"), approximate = setting("PTX_APPROXIMATE"), order = setting("PTX_ORDER");
  bool counts = false;

  bool operator==(const Settings& other) const {
    return file == other.file && approximate == other.approximate && order == other.order && counts == other.counts;
  }
};

// A program with grids for its kernels, made when they are first launched.
class Machine {
 public:
  explicit Machine(const Settings& settings)
      : settings_(settings), program_(content_of(settings.file), approximate_named(settings.approximate)) {}

  const Settings& settings() const { return settings_; }

  void launch(const std::string& name, unsigned ctas, unsigned threads, void* const* arguments) {
    std::unique_ptr<ptx::Grid>& grid = grids_[{name, threads}];
    if (!grid) {
      std::optional<unsigned> order;
      if (!settings_.order.empty()) order = static_cast<unsigned>(std::stoul(settings_.order));
      grid = std::make_unique<ptx::Grid>(program_.kernel(name), threads, order, settings_.counts);
    }
    grid->run(ctas, arguments);
  }

  ptx::Counts take_counts() {
    ptx::Counts all;
    for (auto& [name, grid] : grids_) add(all, grid->take_counts());
    return all;
  }

 private:
  static void add(ptx::Counts& to, const ptx::Counts& more) {
    for (const auto& [name, count] : more.instructions) to.instructions[name] += count;
    to.load_sectors += more.load_sectors, to.store_sectors += more.store_sectors;
    to.load_wavefronts += more.load_wavefronts, to.store_wavefronts += more.store_wavefronts;
  }

  Settings settings_;
  ptx::Program program_;
  std::map<std::pair<std::string, unsigned>, std::unique_ptr<ptx::Grid>> grids_;
};

bool counts_accesses = false;

Machine& machine() {
  static std::unique_ptr<Machine> machine;
  Settings settings;
  settings.counts = counts_accesses;
  if (!machine || !(machine->settings() == settings)) machine = std::make_unique<Machine>(settings);
  return *machine;
}

struct Dim3 {
  unsigned x, y, z;
};
struct Launch {
  Dim3 grid, block;
  std::size_t shared_bytes;
  void* stream;
};
std::optional<Launch> configured;  // by the launch that is under way

std::map<const void*, std::string>& names() {  // of kernels, by the functions that stand for them on the host
  static std::map<const void*, std::string> names;
  return names;
}

}  // namespace

ptx::Counts ptx::take_counts() {
  counts_accesses = true;
  return machine().take_counts();
}

// ---- what nvcc's host code calls (crt/host_runtime.h, crt/device_functions.h) ----

extern "C" {

void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, std::size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, void*, void*, void*, void*, int*) {
  names()[stub] = name;
}

unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, std::size_t shared_bytes, void* stream) {
  configured = {grid, block, shared_bytes, stream};
  return 0;
}
int __cudaPopCallConfiguration(Dim3* grid, Dim3* block, std::size_t* shared_bytes, void* stream) {
  *grid = configured->grid, *block = configured->block, *shared_bytes = configured->shared_bytes;
  *static_cast<void**>(stream) = configured->stream;
  return 0;
}

int cudaLaunchKernel(const void* stub, Dim3 grid, Dim3 block, void** arguments, std::size_t shared_bytes, void*) {
  const std::string& name = names().at(stub);
  if (grid.y * grid.z * block.y * block.z != 1 || shared_bytes != 0) throw Fault("such a launch is not known: " + name);
  machine().launch(name, grid.x, block.x, arguments);
  return 0;
}
int __cudaGetKernel(const void** kernel, const void* stub) {
  *kernel = stub;
  return 0;
}
int __cudaLaunchKernel(const void* kernel, Dim3 grid, Dim3 block, void** arguments, std::size_t shared_bytes,
                       void* stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}
int cudaGetLastError() { return 0; }

}  // extern "C"

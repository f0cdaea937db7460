// What the warps of a step do for a block of 256 elements, by kinds of rows, as JSON on standard output: instructions
// of nvcc's PTX, sectors of global memory, wavefronts of shared memory.
//   PTX_FILE=path ptx_counts [all kinds]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "device_tensors.h"
#include "ptx_runtime.h"

using namespace pagedopt;

namespace {

// A part by which all warps have eight blocks, and one by which they have one: what is done once a CTA is in both.
constexpr int kBlocks = 64, kFewerBlocks = 8;
static_assert(kBlocks * kBlockElements == kPartElements);

constexpr unsigned kSteps = 3;  // of which the last is counted: before, moments are zero

// Nearly normal, and the same on every machine: sums and powers of two are exact.
double drawn(std::mt19937& random) {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += random() * 0x1p-32;
  return sum;
}

// Numbers as in training: parameters of 0.02, gradients that differ from each other by up to a hundred.
void fill(Tensor& tensor, unsigned step) {
  std::mt19937 random(step);
  for (std::int64_t i = 0; i < tensor.c.numel; ++i) {
    const double x = drawn(random), y = std::ldexp(drawn(random), -static_cast<int>(random() % 7));
    if (step == 0) tensor.put(tensor.param, i, static_cast<float>(0.02 * x));
    tensor.put(tensor.grad, i, static_cast<float>(1e-3 * y));
  }
}

ptx::Counts count(Case c, int blocks) {
  c.numel = blocks * kBlockElements;
  Tensor tensor(c);
  for (unsigned t = 0; t < kSteps; ++t) {
    fill(tensor, t);
    (void)ptx::take_counts();
    device_step({tensor.row()}, {c.hyper}, {});
  }
  return ptx::take_counts();
}

double per_block(std::uint64_t of_all, std::uint64_t of_fewer) {
  const double exact = static_cast<double>(static_cast<std::int64_t>(of_all - of_fewer)) / (kBlocks - kFewerBlocks);
  return std::round(exact * 1000) / 1000;
}

void print(const Case& c, bool first) {
  const ptx::Counts all = count(c, kBlocks);
  ptx::Counts fewer = count(c, kFewerBlocks);
  const auto figure = [&](std::uint64_t ptx::Counts::* of) { return per_block(all.*of, fewer.*of); };
  std::uint64_t executed_by_all = 0, executed_by_fewer = 0;
  std::string by_name;
  for (const auto& [name, executed] : all.instructions) {
    executed_by_all += executed, executed_by_fewer += fewer.instructions[name];
    const double some = per_block(executed, fewer.instructions[name]);
    if (some == 0.0) continue;
    by_name += (by_name.empty() ? "\"" : ", \"") + name + "\": " + show(some);
  }
  std::printf("%s\n \"%s\": {\"instructions\": %s, \"load_sectors\": %s, \"store_sectors\": %s, ", first ? "{" : ",",
              c.name.c_str(), show(per_block(executed_by_all, executed_by_fewer)).c_str(),
              show(figure(&ptx::Counts::load_sectors)).c_str(), show(figure(&ptx::Counts::store_sectors)).c_str());
  std::printf("\"load_wavefronts\": %s, \"store_wavefronts\": %s,\n  \"by_name\": {%s}}",
              show(figure(&ptx::Counts::load_wavefronts)).c_str(), show(figure(&ptx::Counts::store_wavefronts)).c_str(),
              by_name.c_str());
}

struct Option {
  const char* name;
  std::function<void(Hyper&)> set;
  std::vector<Codec> codecs;
  std::vector<Dtype> dtypes;
};

template <class T>
bool is_among(const std::vector<T>& all, T one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

}  // namespace

int main(int argc, char**) {
  const std::vector<Dtype> every = {Dtype::f32, Dtype::bf16, Dtype::f16}, bf16 = {Dtype::bf16};
  const std::vector<Codec> state = {Codec::f32, Codec::blockwise8};
  const Option options[] = {
      {"adamw", [](Hyper&) {}, {Codec::f32, Codec::blockwise8, Codec::tensorwise8}, every},
      {"amsgrad", [](Hyper& h) { set_rule(h, RuleId::adam_amsgrad); }, state, bf16},
      {"lion", [](Hyper& h) { set_rule(h, RuleId::lion); }, state, bf16},
      {"skip_zeros", [](Hyper& h) { h.skip_zeros = true; }, state, bf16},
      {"max_unorm", [](Hyper& h) { h.max_unorm = 0.1; }, state, bf16},
      {"clipping", [](Hyper& h) { h.percentile_clipping = 50; }, {Codec::f32}, every},
  };
  bool first = true;
  for (const Option& option : options)
    for (Case c : kinds(option.name, [](Case&) {})) {
      if (argc < 2 && !(is_among(option.codecs, c.codec) && is_among(option.dtypes, c.dtype))) continue;
      c.hyper.decoupled = true;
      option.set(c.hyper);
      print(c, first);
      first = false;
    }
  std::printf("\n}\n");
  return 0;
}

// What a lane of a GPU does with its elements, on the CPU, against exact oracles: the 8-bit encoder around every edge
// between two codes, and parameters of 16 bits moved by approximate roots and quotients. Prints the first bad element,
// exits 1.
//   lane_test [name of one group]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "gpu/kernels/encode.h"
#include "gpu/kernels/quick.h"
#include "hypers.h"

using namespace pagedopt;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

Lookups make_tables() {
  Lookups tables{{kSignedMap, kUnsignedMap}, {}};
  for (int entry = 0; entry < BendTable::kEntries; ++entry) tables.bends.fill(entry, make_bends());
  return tables;
}

const Lookups tables = make_tables();

// ---- the encoder ----

// The edges between ranks, exact in double: a float's 24 bits times the 25 of a sum.
template <bool is_signed>
std::vector<double> edges_of(double absmax) {
  std::vector<double> edges;
  for (int code = kZeroCode<is_signed>; code < 255; ++code) {
    const CodeMap& map = code_map_of<is_signed>();
    edges.push_back(0.5 * (static_cast<double>(map.value[code]) + static_cast<double>(map.value[code + 1])) * absmax);
  }
  return edges;
}

// The nearest code; a tie goes away from zero. v > 0 never takes code 0, and there is no -1.
template <bool is_signed>
int nearest(const std::vector<double>& edges, float x) {
  const double size = std::abs(static_cast<double>(x));
  auto rank = static_cast<int>(std::upper_bound(edges.begin(), edges.end(), size) - edges.begin());
  if (!is_signed) return x > 0.0F ? std::max(rank, 1) : 0;
  return x < 0.0F ? 127 - std::min(rank, 127) : 127 + rank;
}

// Every edge, every value and a few numbers beside each; both signs; the ends; numbers of every size.
template <bool is_signed>
std::vector<float> numbers(const std::vector<double>& edges, float absmax, std::mt19937& random) {
  std::vector<float> x = {0.0F, -0.0F, absmax, std::nextafter(absmax, 0.0F), std::numeric_limits<float>::denorm_min()};
  const auto around = [&](double centre) {
    auto near = static_cast<float>(centre);
    for (int i = 0; i < 6; ++i) near = std::nextafter(near, 0.0F);
    for (int i = 0; i < 13; ++i, near = std::nextafter(near, kInf)) x.push_back(std::min(near, absmax));
  };
  for (const double edge : edges) around(edge);
  for (int code = kZeroCode<is_signed>; code < 256; ++code)
    around(static_cast<double>(code_map_of<is_signed>().value[code]) * static_cast<double>(absmax));
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int i = 0; i < 4000; ++i) {
    const double share = i % 2 ? uniform(random) : std::pow(10.0, (i % 32 ? -10.0 : -70.0) * uniform(random));
    x.push_back(static_cast<float>(share * static_cast<double>(absmax)));
  }
  const std::size_t count = x.size();
  for (std::size_t i = 0; is_signed && i < count; ++i) x.push_back(-x[i]);
  for (float& one : x) one = is_signed ? one : std::abs(one);
  while (x.size() % kLaneElements != 0) x.push_back(0.0F);
  return x;
}

template <bool is_signed>
void check_absmax(float absmax, std::mt19937& random) {
  const std::vector<double> edges = edges_of<is_signed>(absmax);
  const std::vector<float> all = numbers<is_signed>(edges, absmax, random);
  for (std::size_t first = 0; first < all.size(); first += kLaneElements) {
    float x[kLaneElements];
    std::copy_n(all.data() + first, kLaneElements, x);
    const Stored<1> codes = encode_lane<is_signed>(tables, static_cast<int>(first / kLaneElements) % 32, absmax, x);
    for (int i = 0; i < kLaneElements; ++i) {
      const int got = static_cast<int>(codes.get(i)), want = nearest<is_signed>(edges, all[first + i]);
      if (got != want)
        fail((is_signed ? "signed, " : "unsigned, ") + show(all[first + i]) + " of " + show(absmax) + " is code " +
             std::to_string(got) + ", not " + std::to_string(want));
    }
  }
}

// A row of the table that is not there must not be looked up.
template <bool is_signed>
void check_broken(float absmax) {
  float x[kLaneElements] = {0.0F, 1.0F, absmax, kLargest, 0.5F, 1e-30F, absmax, kInf};
  const Stored<1> codes = encode_lane<is_signed>(tables, 5, absmax, x);
  for (int i = 0; i < kLaneElements; ++i)
    if (codes.get(i) != kZeroCode<is_signed>) fail("a code of a block that is not finite is not zero");
}

std::vector<float> scales(std::mt19937& random) {
  std::vector<float> all = {std::numeric_limits<float>::denorm_min(),
                            7e-45F,
                            1e-40F,
                            0x1p-126F,
                            0x1p-96F,
                            0x1p96F,
                            1e-10F,
                            0.3F,
                            1.0F,
                            3.7F,
                            1e10F,
                            0x1p127F,
                            kLargest};
  for (const float border : {0x1p-96F, 0x1p96F, 1.0F})
    all.push_back(std::nextafter(border, 0.0F)), all.push_back(std::nextafter(border, kInf));
  for (int i = 0; i < 100; ++i) all.push_back(float_of(random() % 0x7f7fffffU + 1U));
  return all;
}

void test_codes() {
  std::mt19937 random(1);
  for (const float absmax : scales(random)) check_absmax<true>(absmax, random), check_absmax<false>(absmax, random);
  for (const float absmax : {kInf, std::nanf("")}) check_broken<true>(absmax), check_broken<false>(absmax);
}

// Levels are on the wrong side of an edge by less than the doubt that is allowed for; the codec is right by the above
// only because of it. Part of it is left for what these numbers do not find.
template <bool is_signed>
double worst_level(float absmax) {
  const std::vector<double> edges = edges_of<is_signed>(absmax);
  const Scale scale = scale_of<is_signed>(absmax);
  constexpr int zero = kZeroCode<is_signed>, doubt = kLevelDoubt<is_signed>;
  int worst = 0;
  const auto above = [&](float x, int code, int lane) {  // how far the level is above a code's lower edge
    const std::uint32_t level = level_of<is_signed>(tables.bends, bend_place<is_signed>(lane), scale, x);
    return static_cast<int>(level) - doubt - code * 65536;
  };
  for (std::size_t n = is_signed ? 0 : 1; n < edges.size(); ++n) {
    const int rank = static_cast<int>(n) + 1;
    auto x = static_cast<float>(edges[n]);
    for (int i = 0; i < 6; ++i) x = std::nextafter(x, 0.0F);
    for (int i = 0; i < 13; ++i, x = std::nextafter(x, kInf))
      for (int lane = 0; lane < 2; ++lane) {
        const bool is_past = static_cast<double>(x) >= edges[n];
        const int off = above(x, zero + rank, lane);
        worst = std::max(worst, is_past ? -off : off);
        if (!is_signed || rank > 127) continue;
        const int other = above(-x, zero - rank + 1, lane);
        worst = std::max(worst, is_past ? other : -other);
      }
  }
  return worst;
}

template <bool is_signed>
void check_levels(const char* name) {
  std::mt19937 random(2);
  double worst = 0.0;
  for (int i = 0; i < 2000; ++i)
    worst = std::max(worst, worst_level<is_signed>(float_of((random() & 0x7fffffU) | (31U + random() % 116U) << 23)));
  std::printf("%s levels are off by %g of %u units\n", name, worst, kLevelDoubt<is_signed>);
  if (worst > kLevelDoubt<is_signed> - 2) fail("levels are off by too much");
}

void test_levels() {
  check_levels<true>("signed");
  check_levels<false>("unsigned");
}

// ---- parameters of 16 bits ----

template <Dtype dtype>
struct Counts {
  long agree = 0, all = 0;

  void check(const AdamScalars& s, Registers<Adam> r) {
    Registers<Adam> exact = r;
    Stored<2> quick_one;
    const QuickScalars quick = quick_scalars(s);
    const bool is_right = quick_params<dtype>(s, quick, r, quick_one);
    params_lane(s, exact);
    const Stored<2> want = narrow<dtype>(exact.p);
    ++all;
    if (!(is_moderate(r) && is_right && quick.is_quick)) return;
    ++agree;
    for (int i = 0; i < kLaneElements; ++i)
      if (quick_one.get(i) != want.get(i))
        fail("parameter " + show(r.p[i]) + " with m " + show(r.slot[0][i]) + ", v " + show(r.slot[1][i]) + ": " +
             std::to_string(quick_one.get(i)) + ", not " + std::to_string(want.get(i)));
  }
};

// Parameters near the moves' size, where a doubt is likely, and far above them; zeros and subnormal numbers.
template <Dtype dtype>
Registers<Adam> random_lane(std::mt19937& random, double wide) {
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  Registers<Adam> r;
  for (int i = 0; i < kLaneElements; ++i) {
    const double size = std::pow(10.0, wide * uniform(random));
    const auto p = static_cast<float>(normal(random) * std::pow(10.0, wide * uniform(random)) * 0.02);
    r.p[i] = random() % 16 ? widened<dtype>(narrowed<dtype>(p)) : 0.0F;
    r.slot[0][i] = random() % 16 ? static_cast<float>(normal(random) * size * 0.1) : 0.0F;
    r.slot[1][i] = random() % 16 ? static_cast<float>(std::abs(normal(random)) * size * size) : 0.0F;
  }
  return r;
}

template <Dtype dtype>
void check_params(const char* name) {
  std::mt19937 random(3);
  const double wides[] = {0.3, 3.0, 12.0, 30.0};
  for (const double wide : wides) {
    Counts<dtype> counts;
    for (int i = 0; i < 60000; ++i) {
      Hyper hyper = hyper_of();
      hyper.lr = std::pow(10.0, -static_cast<double>(random() % 6)), hyper.decoupled = true, hyper.weight_decay = 0.1;
      number_of(hyper, "eps") = random() % 8 ? 1e-8 : random() % 2 ? 0.0 : 1e-15;
      const auto s = make_scalars<Adam, float>(hyper, 1.0 + random() % 1000, 1.0);
      counts.check({s.common, s.of<Adam>()}, random_lane<dtype>(random, wide));
    }
    if (wide < 1.0 && counts.agree < counts.all * 4 / 5)
      fail(std::string(name) + ": only " + std::to_string(counts.agree) + " lanes of " + std::to_string(counts.all) +
           " are quick");
  }
}

void test_params() {
  check_params<Dtype::bf16>("bfloat16");
  check_params<Dtype::f16>("float16");
}

}  // namespace

int main(int argc, char** argv) {
  const std::pair<const char*, void (*)()> groups[] = {
      {"codes", test_codes}, {"levels", test_levels}, {"params", test_params}};
  return run_groups(argc, argv, groups);
}

// The step against oracles in double, without a framework: prints the first bad element and exits 1.
//   step_test [name of one group of rows]
#include "step.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "workers.h"

using namespace pagedopt;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
Workers workers;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "step_test: %s\n", what.c_str());
  std::exit(1);
}

void require(bool holds, const std::string& what) {
  if (!holds) fail(what);
}

std::string show(double x) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", x);
  return text;
}

// ---- 16-bit numbers, from their definition ----

struct Format {
  int mantissa_bits, least_exponent;
  double largest;
};
constexpr Format kBf16{7, -126, 3.3895313892515355e38}, kF16{10, -14, 65504.0};

// x rounded to nearest even in the format.
double rounded(double x, const Format& format) {
  if (!std::isfinite(x) || x == 0.0) return x;
  const int exponent = std::max(std::ilogb(x), format.least_exponent);
  const double unit = std::ldexp(1.0, exponent - format.mantissa_bits);
  const double y = std::nearbyint(x / unit) * unit;
  return std::abs(y) > format.largest ? std::copysign(kInf, y) : y;
}

double round_to(double x, Dtype dtype) {
  return dtype == Dtype::f32 ? static_cast<double>(static_cast<float>(x))
                             : rounded(x, dtype == Dtype::bf16 ? kBf16 : kF16);
}

void test_numbers() {
  std::mt19937 random(1);
  for (int i = 0; i < 400000; ++i) {
    std::uint32_t bits = random();
    if (i % 2) bits = (bits & 0x8fffffffU) + 0x30000000U;  // around one, where float16 lives
    if (i % 5 == 0) bits &= 0xffffe000U;                   // ties and short mantissas
    const float x = float_of(bits);
    const float b = from_bf16(to_bf16(x)), h = from_f16(to_f16(x));
    if (std::isnan(x)) {
      require(std::isnan(b) && std::isnan(h), "a NaN was lost by 16-bit rounding");
      continue;
    }
    require(b == rounded(x, kBf16) && std::signbit(b) == std::signbit(x), "to_bf16(" + show(x) + ") is " + show(b));
    require(h == rounded(x, kF16) && std::signbit(h) == std::signbit(x), "to_f16(" + show(x) + ") is " + show(h));
  }
  for (int i = 0; i < 65536; ++i) {
    const auto half = static_cast<std::uint16_t>(i);
    const float x = from_f16(half);
    require(std::isnan(x) || to_f16(x) == half, "float16 " + std::to_string(i) + " does not come back");
  }
}

// ---- the 8-bit codec ----

// The nearest code to x / absmax among the neighbours of x in the sorted map; ties away from zero. v > 0 never takes
// code 0.
int nearest_code(double x, double absmax, bool is_signed) {
  const float* value = code_map(is_signed).value;
  const auto above =
      std::lower_bound(value, value + 256, x, [&](float entry, double wanted) { return entry * absmax < wanted; }) -
      value;
  const int least = !is_signed && x > 0.0 ? 1 : 0;
  int best = -1;
  for (int code = std::max<int>(least, static_cast<int>(above) - 1);
       code <= std::min<int>(255, std::max<int>(least, static_cast<int>(above))); ++code) {
    const double distance = std::abs(value[code] * absmax - x),
                 least_distance = best < 0 ? kInf : std::abs(value[best] * absmax - x);
    if (distance < least_distance || (distance == least_distance && std::abs(value[code]) > std::abs(value[best])))
      best = code;
  }
  return best;
}

std::vector<float> sample(int kind, std::size_t n, bool is_signed) {
  std::mt19937 random(static_cast<unsigned>(kind) + 7);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    double value = normal(random);
    if (kind == 1) value = std::pow(10.0, -9.0 * uniform(random)) * (random() % 2 ? 1 : -1);
    if (kind == 2) value = uniform(random) - 0.5;
    if (kind == 3) value = normal(random) * 1e-40;
    if (kind == 4) value = normal(random) * 3e37;
    if (kind == 5) value = i % 512 < 256 ? 0.0 : code_map(true).value[random() % 256];
    if (kind == 6)
      value = 0.5 * (code_map(true).value[i % 255] + code_map(true).value[i % 255 + 1]) * (i % 256 ? 1 : 0) +
              (i % 256 == 0);
    x[i] = static_cast<float>(is_signed ? value : std::abs(value));
  }
  return x;
}

void check_codes(const std::vector<float>& x, std::int64_t block, bool is_signed, int kind, const std::string& what) {
  const CodeMap& map = code_map(is_signed);
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<std::uint8_t> codes(x.size(), 77);
  std::vector<float> absmax((n + block - 1) / block, -1.0F), back(x.size(), -1.0F);
  encode(x.data(), n, codes.data(), absmax.data(), is_signed, block);
  decode(codes.data(), absmax.data(), n, back.data(), is_signed, block);
  int wrong = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::string at = what + ", element " + std::to_string(i) + " = " + show(x[i]);
    float most = 0.0F;
    for (std::int64_t j = i / block * block; i % block == 0 && j < std::min(n, i + block); ++j)
      most = std::max(most, std::abs(x[j]));
    require(i % block != 0 || absmax[i / block] == most,
            at + ": absmax " + show(absmax[i / block]) + ", not " + show(most));
    const int code = codes[i], nearest = absmax[i / block] == 0.0F ? (is_signed ? 127 : 0)
                                                                   : nearest_code(x[i], absmax[i / block], is_signed);
    require(std::abs(code - nearest) <= 1, at + ": code " + std::to_string(code) + ", not " + std::to_string(nearest));
    // Midpoints themselves may go either way at the joints of decades, which are not settled.
    const double half = kind == 6 ? 1e-6 * absmax[i / block] * std::abs(map.value[nearest]) : 0.0;
    wrong += code != nearest &&
             std::abs(std::abs(back[i] - x[i]) - std::abs(map.value[nearest] * absmax[i / block] - x[i])) > half;
    require(back[i] == map.value[code] * absmax[i / block], at + ": decoded to " + show(back[i]));
    require(x[i] * back[i] >= 0.0F && (is_signed || x[i] == 0.0F || code > 0),
            at + ": sign or floor lost by code " + std::to_string(code));
  }
  require(wrong == 0, what + ": " + std::to_string(wrong) + " codes of " + std::to_string(n) + " are not the nearest");
}

void test_codec() {
  for (const std::string& name : isas()) {
    set_isa(name);
    for (const bool is_signed : {true, false})
      for (int kind = 0; kind < 7; ++kind)
        for (const std::size_t n : {1, 255, 257, 20011})
          for (const std::int64_t block : {std::int64_t{256}, static_cast<std::int64_t>(n)})
            check_codes(sample(kind, n, is_signed), block, is_signed, kind,
                        name + (is_signed ? " signed" : " unsigned") + " kind " + std::to_string(kind));
  }
  std::vector<float> odd = {1.0F, NAN, INFINITY, -INFINITY, -0.5F, 0.25F};
  std::uint8_t codes[6];
  float absmax = 0.0F;
  encode(odd.data(), 6, codes, &absmax, false, 256);
  require(absmax == 1.0F && codes[0] == 255 && !codes[1] && !codes[2] && !codes[3] && !codes[4] && codes[5],
          "what cannot be stored is not zero");
}

// ---- rows of the step ----

struct Case {
  std::string name;
  Dtype dtype = Dtype::f32;
  Codec codec = Codec::f32;
  Hyper hyper;
  std::int64_t numel = 1003;
  double grad_scale = 1.0, spread = 1.0;
  unsigned steps = 4;
};

// A parameter with its state in ordinary memory.
struct Tensor {
  explicit Tensor(const Case& c)
      : codec(c.codec), dtype(c.dtype), numel(c.numel), param(c.numel * 4), grad(c.numel * 4) {
    std::mt19937 random(5);
    std::normal_distribution<double> normal;
    for (std::int64_t i = 0; i < numel; ++i) put(param, i, normal(random));
    for (auto& bytes : slot) bytes.assign(codec == Codec::f32 ? numel * 4 : numel, std::byte{0});
    for (std::byte& code : slot[0]) code = codec == Codec::f32 ? std::byte{0} : std::byte{127};
    for (auto& values : absmax) values.assign(codec == Codec::blockwise8 ? (numel + 255) / 256 : 1, 0.0F);
    gnorms.assign(kGnormHistory, 0.0F);
  }

  void put(std::vector<std::byte>& bytes, std::int64_t i, double x) {
    const auto value = static_cast<float>(x);
    const std::uint16_t half = dtype == Dtype::bf16 ? to_bf16(value) : to_f16(value);
    if (dtype == Dtype::f32)
      std::memcpy(&bytes[i * 4], &value, 4);
    else
      std::memcpy(&bytes[i * 2], &half, 2);
  }

  double get(const std::vector<std::byte>& bytes, std::int64_t i) const {
    float value;
    std::uint16_t half;
    std::memcpy(&value, &bytes[dtype == Dtype::f32 ? i * 4 : 0], 4);
    std::memcpy(&half, &bytes[i * 2], 2);
    return dtype == Dtype::f32 ? value : dtype == Dtype::bf16 ? from_bf16(half) : from_f16(half);
  }

  std::vector<double> moment(int which) const {
    std::vector<float> x(numel);
    if (codec == Codec::f32)
      std::memcpy(x.data(), slot[which].data(), numel * 4);
    else
      decode(codes(which), absmax[which].data(), numel, x.data(), which == 0,
             codec == Codec::blockwise8 ? 256 : std::max<std::int64_t>(numel, 1));
    return {x.begin(), x.end()};
  }

  const std::uint8_t* codes(int which) const { return reinterpret_cast<const std::uint8_t*>(slot[which].data()); }

  Row row(std::uint32_t group = 0) {
    Row r;
    r.param = param.data();
    r.grad = grad.data();
    for (int i = 0; i < kSlots; ++i) {
      r.slot[i] = slot[i].data();
      r.absmax[i] = codec == Codec::f32 ? nullptr : absmax[i].data();
    }
    r.step = &step;
    r.gnorm_history = gnorms.data();
    r.numel = numel;
    r.group = group;
    r.dtype = dtype;
    r.codec = codec;
    return r;
  }

  Codec codec;
  Dtype dtype;
  std::int64_t numel;
  std::vector<std::byte> param, grad, slot[kSlots];
  std::vector<float> absmax[kSlots], gnorms;
  float step = 0.0F;
};

void new_gradient(Tensor& tensor, const Case& c, unsigned t) {
  std::mt19937 random(100 + t);
  std::normal_distribution<double> normal;
  for (std::int64_t i = 0; i < tensor.numel; ++i) {
    const double scale = 0.1 * std::pow(10.0, -c.spread * static_cast<double>(random() % 1000) / 1000);
    tensor.put(tensor.grad, i, random() % 7 == 0 ? 0.0 : normal(random) * scale * (1 + t % 3) / c.grad_scale);
  }
}

// Adam as in the papers, in double, from what the tensor holds before the step.
struct Oracle {
  std::vector<double> p, m, v, vmax;
  std::vector<double> p_size, m_size, v_size;  // of the terms they are made of: what rounding errors are relative to
};

std::vector<double> gradients(const Tensor& tensor, const Case& c, std::vector<double>& norms) {
  std::vector<double> g(tensor.numel);
  double square = 0.0;
  for (std::int64_t i = 0; i < tensor.numel; ++i) {
    g[i] = tensor.get(tensor.grad, i) * c.grad_scale;
    square += g[i] * g[i];
  }
  norms.push_back(std::sqrt(square));
  double scale = c.hyper.maximize ? -1.0 : 1.0;
  if (c.hyper.percentile_clipping < 100) {
    std::vector<double> last(norms.end() - std::min<std::ptrdiff_t>(100, norms.size()), norms.end());
    std::sort(last.begin(), last.end());
    const double clip = last[last.size() * c.hyper.percentile_clipping / 100];
    scale *= std::min(1.0, clip / norms.back());
  }
  for (double& x : g) x *= scale;
  return g;
}

Oracle oracle_step(const Tensor& tensor, const Case& c, std::vector<double>& norms) {
  const Hyper& h = c.hyper;
  const double t = tensor.step + 1.0, c1 = 1 - std::pow(h.beta1, t), c2 = 1 - std::pow(h.beta2, t);
  const std::vector<double> g = gradients(tensor, c, norms);
  const std::vector<double> none(tensor.numel);
  Oracle o{none, tensor.moment(0), tensor.moment(1), tensor.moment(2), none, none, none};
  std::vector<double> u(tensor.numel), before(tensor.numel);
  double unorm = 0.0, pnorm = 0.0;
  for (std::int64_t i = 0; i < tensor.numel; ++i) {
    before[i] = tensor.get(tensor.param, i);
    pnorm += before[i] * before[i];
    if (h.skip_zeros && g[i] == 0.0) continue;
    const double gi = h.decoupled ? g[i] : g[i] + h.weight_decay * before[i];
    const double g_size = std::abs(g[i]) + (h.decoupled ? 0.0 : h.weight_decay * std::abs(before[i]));
    o.m_size[i] = h.beta1 * std::abs(o.m[i]) + (1 - h.beta1) * g_size;
    o.v_size[i] = h.beta2 * o.v[i] + (1 - h.beta2) * g_size * g_size;
    o.m[i] = h.beta1 * o.m[i] + (1 - h.beta1) * gi;
    o.v[i] = h.beta2 * o.v[i] + (1 - h.beta2) * gi * gi;
    o.vmax[i] = std::max(o.vmax[i], o.v[i]);
    u[i] = o.m[i] / c1 / (std::sqrt((h.amsgrad ? o.vmax[i] : o.v[i]) / c2) + h.eps);
    unorm += u[i] * u[i];
  }
  const double most = h.max_unorm * std::sqrt(pnorm),
               limit = h.max_unorm > 0 && std::sqrt(unorm) > most ? most / std::sqrt(unorm) : 1.0;
  for (std::int64_t i = 0; i < tensor.numel; ++i) {
    const bool keep = h.skip_zeros && g[i] == 0.0;
    o.p[i] = keep ? before[i] : before[i] * (h.decoupled ? 1 - h.lr * h.weight_decay : 1.0) - h.lr * limit * u[i];
    o.p_size[i] =
        std::abs(before[i]) + h.lr * std::abs(u[i]) * (keep || o.m[i] == 0.0 ? 1.0 : o.m_size[i] / std::abs(o.m[i]));
  }
  return o;
}

// Whether a parameter is what the oracle has, up to float32 arithmetic and one rounding to its type.
bool close_param(double got, double want, double size, Dtype dtype) {
  const double unit = dtype == Dtype::f32 ? 0.0 : dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11;
  const double arithmetic = 1e-6 * size;
  return std::abs(got - want) <= arithmetic + unit * (std::abs(want) + arithmetic) || got == round_to(want, dtype);
}

void check_moment(const Tensor& tensor, int which, const std::vector<double>& want, const std::vector<double>& size,
                  const std::string& what) {
  const std::vector<double> got = tensor.moment(which);
  for (std::int64_t i = 0; i < tensor.numel; ++i) {
    double allowed = 1e-6 * size[i] + 1e-30;
    if (tensor.codec != Codec::f32) {
      const double absmax = tensor.absmax[which][tensor.codec == Codec::blockwise8 ? i / 256 : 0];
      const double nearest = code_map(which == 0).value[nearest_code(want[i], absmax, which == 0)] * absmax;
      allowed += std::abs(nearest - want[i]) +
                 1e-6 * absmax * std::abs(code_map(which == 0).value[nearest_code(want[i], absmax, which == 0)]);
      require(which == 0 || want[i] < 1e-30 || got[i] > 0.0,
              what + ": v of element " + std::to_string(i) + " vanished");
    }
    if (!(std::abs(got[i] - want[i]) <= allowed))
      fail(what + ": slot " + std::to_string(which) + " of element " + std::to_string(i) + " is " + show(got[i]) +
           ", not " + show(want[i]));
  }
}

void check_case(const Case& c, unsigned threads) {
  Tensor tensor(c);
  std::vector<Row> rows = {tensor.row()};
  const std::vector<Hyper> hypers = {c.hyper};
  const std::vector<Task> tasks = make_tasks(rows, hypers);
  std::vector<double> norms;
  for (unsigned t = 1; t <= c.steps; ++t) {
    const std::string what = isa() + " " + c.name + " step " + std::to_string(t);
    new_gradient(tensor, c, t);
    const Oracle want = oracle_step(tensor, c, norms);
    step_host(rows, hypers, tasks, c.grad_scale, threads, workers, nullptr);
    require(tensor.step == static_cast<float>(t), what + ": step is " + show(tensor.step));
    if (c.hyper.percentile_clipping < 100)
      require(std::abs(tensor.gnorms[t - 1] / norms.back() - 1) < 1e-6,
              what + ": recorded norm " + show(tensor.gnorms[t - 1]) + ", not " + show(norms.back()));
    for (std::int64_t i = 0; i < tensor.numel; ++i) {
      const double got = tensor.get(tensor.param, i);
      if (!close_param(got, want.p[i], want.p_size[i], c.dtype))
        fail(what + ": parameter " + std::to_string(i) + " is " + show(got) + ", not " + show(want.p[i]));
    }
    check_moment(tensor, 0, want.m, want.m_size, what);
    check_moment(tensor, 1, want.v, want.v_size, what);
    std::vector<double> vmax_size = want.vmax;
    for (std::int64_t i = 0; i < tensor.numel; ++i) vmax_size[i] = std::max(vmax_size[i], want.v_size[i]);
    if (c.hyper.amsgrad) check_moment(tensor, 2, want.vmax, vmax_size, what);
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](const char* name, const std::function<void(Case&)>& change) {
    for (const Codec codec : {Codec::f32, Codec::blockwise8, Codec::tensorwise8})
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
        Case c;
        c.hyper.lr = 0.01;
        c.hyper.weight_decay = 0.1;
        c.codec = codec;
        c.dtype = dtype;
        c.name = std::string(name) + " codec " + std::to_string(static_cast<int>(codec)) + " dtype " +
                 std::to_string(static_cast<int>(dtype));
        change(c);
        all.push_back(c);
      }
  };
  add("coupled", [](Case&) {});
  add("decoupled", [](Case& c) { c.hyper.decoupled = true; });
  add("no decay", [](Case& c) { c.hyper.weight_decay = 0.0; });
  add("amsgrad", [](Case& c) { c.hyper.amsgrad = true; });
  add("maximize decoupled amsgrad", [](Case& c) { c.hyper.maximize = c.hyper.decoupled = c.hyper.amsgrad = true; });
  add("skip_zeros", [](Case& c) { c.hyper.skip_zeros = c.hyper.decoupled = true; });
  add("skip_zeros coupled amsgrad", [](Case& c) { c.hyper.skip_zeros = c.hyper.amsgrad = true; });
  add("max_unorm", [](Case& c) { c.hyper.max_unorm = 0.3; });
  add("percentile", [](Case& c) { c.hyper.percentile_clipping = 40; });
  add("percentile and max_unorm",
      [](Case& c) { c.hyper.percentile_clipping = 5, c.hyper.max_unorm = 0.5, c.hyper.decoupled = true; });
  add("grad_scale", [](Case& c) { c.grad_scale = 0.125, c.hyper.percentile_clipping = 30; });
  add("long", [](Case& c) {
    c.numel = 2 * kTaskElements + 1077, c.steps = 2, c.hyper.max_unorm = 0.2, c.hyper.percentile_clipping = 50;
  });
  add("one element", [](Case& c) { c.numel = 1; });
  add("wide", [](Case& c) { c.spread = 6.0, c.numel = 4099; });
  return all;
}

void test_rule() {
  for (const std::string& name : isas()) {
    set_isa(name);
    for (const Case& c : cases()) check_case(c, 3);
  }
}

// ---- the same bits whatever the instruction set and the number of threads ----

std::vector<std::byte> bytes_after(const Case& c, unsigned threads) {
  Tensor tensor(c);
  std::vector<Row> rows = {tensor.row()};
  const std::vector<Hyper> hypers = {c.hyper};
  const std::vector<Task> tasks = make_tasks(rows, hypers);
  for (unsigned t = 1; t <= std::min(c.steps, 3U); ++t) {
    new_gradient(tensor, c, t);
    step_host(rows, hypers, tasks, c.grad_scale, threads, workers, nullptr);
  }
  std::vector<std::byte> all = tensor.param;
  for (int i = 0; i < kSlots; ++i) {
    all.insert(all.end(), tensor.slot[i].begin(), tensor.slot[i].end());
    const auto* absmax = reinterpret_cast<const std::byte*>(tensor.absmax[i].data());
    all.insert(all.end(), absmax, absmax + tensor.absmax[i].size() * 4);
  }
  return all;
}

void test_same_bits() {
  for (const Case& c : cases()) {
    set_isa("portable");
    const std::vector<std::byte> want = bytes_after(c, 1);
    for (const std::string& name : isas()) {
      set_isa(name);
      for (const unsigned threads : {1U, 2U, 5U}) {
        const std::vector<std::byte> got = bytes_after(c, threads);
        const auto at = std::mismatch(want.begin(), want.end(), got.begin()).first - want.begin();
        if (got != want)
          fail(name + " with " + std::to_string(threads) + " threads differs: " + c.name + ", byte " +
               std::to_string(at) + " of " + std::to_string(want.size()));
      }
    }
  }
}

// ---- numbers that are not finite ----

void test_not_finite() {
  for (const std::string& name : isas()) {
    set_isa(name);
    for (const Codec codec : {Codec::f32, Codec::blockwise8, Codec::tensorwise8}) {
      Case c;
      c.codec = codec;
      c.hyper.weight_decay = 0.1;
      c.hyper.decoupled = c.hyper.amsgrad = true;
      Tensor tensor(c);
      std::vector<Row> rows = {tensor.row()};
      const std::vector<Hyper> hypers = {c.hyper};
      const std::vector<Task> tasks = make_tasks(rows, hypers);
      new_gradient(tensor, c, 1);
      step_host(rows, hypers, tasks, 1.0, 1, workers, nullptr);
      new_gradient(tensor, c, 2);
      const double bad[] = {NAN, INFINITY, -INFINITY};
      std::vector<double> before(c.numel);
      for (std::int64_t i = 0; i < c.numel; ++i) {
        before[i] = tensor.get(tensor.param, i);
        if (i % 100 < 3) tensor.put(tensor.grad, i, bad[i % 100]);
      }
      step_host(rows, hypers, tasks, 1.0, 1, workers, nullptr);
      for (std::int64_t i = 0; i < c.numel; ++i) {
        const double p = tensor.get(tensor.param, i), m = tensor.moment(0)[i], v = tensor.moment(1)[i],
                     vmax = tensor.moment(2)[i];
        const std::string what =
            name + " codec " + std::to_string(static_cast<int>(codec)) + ", element " + std::to_string(i) + ": ";
        if (i % 100 >= 3)
          require(std::isfinite(p + m + v + vmax) && p != before[i],
                  what + "should move: p " + show(p) + " v " + show(v));
        else if (codec == Codec::f32)
          require(!std::isfinite(m) && !std::isfinite(v), what + "should propagate: p " + show(p) + " v " + show(v));
        else
          require(p == before[i] && m == 0.0 && v == 0.0 && vmax == 0.0,
                  what + "should be left alone: p " + show(p) + " v " + show(v));
      }
    }
  }
}

void test_skip_zeros() {
  Case c;
  c.codec = Codec::blockwise8;
  c.hyper.skip_zeros = c.hyper.amsgrad = true;
  c.hyper.weight_decay = 0.1;
  Tensor tensor(c);
  std::vector<Row> rows = {tensor.row()};
  const std::vector<Hyper> hypers = {c.hyper};
  const std::vector<Task> tasks = make_tasks(rows, hypers);
  new_gradient(tensor, c, 1);
  step_host(rows, hypers, tasks, 1.0, 1, workers, nullptr);
  const Tensor before = tensor;
  std::fill(tensor.grad.begin(), tensor.grad.end(), std::byte{0});
  step_host(rows, hypers, tasks, 1.0, 1, workers, nullptr);
  for (int i = 0; i < kSlots; ++i)
    require(before.slot[i] == tensor.slot[i] && before.absmax[i] == tensor.absmax[i],
            "skip_zeros changed a slot of zero gradients");
  require(before.param == tensor.param && tensor.step == 2.0F, "skip_zeros changed a parameter of zero gradients");
}

// FORMATS.md: gradient scales spread over three decades inside a block; the total update of 100 steps against float32
// state.
void test_floor() {
  Case c;
  c.hyper.lr = 1e-3;
  c.numel = 4096;
  const auto total = [&](Codec codec) {
    c.codec = codec;
    Tensor tensor(c);
    std::vector<double> moved(c.numel);
    for (std::int64_t i = 0; i < c.numel; ++i) moved[i] = -tensor.get(tensor.param, i);
    std::vector<Row> rows = {tensor.row()};
    const std::vector<Hyper> hypers = {c.hyper};
    const std::vector<Task> tasks = make_tasks(rows, hypers);
    std::mt19937 random(3), scales(4);
    std::normal_distribution<double> normal;
    std::vector<double> scale(c.numel);
    for (double& x : scale) x = std::pow(10.0, -3.0 * static_cast<double>(scales() % 10000) / 10000);
    for (int t = 0; t < 100; ++t) {
      for (std::int64_t i = 0; i < c.numel; ++i) tensor.put(tensor.grad, i, normal(random) * scale[i]);
      step_host(rows, hypers, tasks, 1.0, 1, workers, nullptr);
    }
    for (std::int64_t i = 0; i < c.numel; ++i) moved[i] += tensor.get(tensor.param, i);
    return moved;
  };
  const std::vector<double> want = total(Codec::f32), got = total(Codec::blockwise8);
  double error = 0.0, size = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i)
    error += (got[i] - want[i]) * (got[i] - want[i]), size += want[i] * want[i];
  require(std::sqrt(error / size) < 0.2,
          "three decades: relative error of the update " + show(std::sqrt(error / size)));
}

void test_clip_scale() {
  float history[kGnormHistory] = {};
  require(clip_scale(history, 2.0, 1, 5) == 1.0, "the first norm is clipped");
  require(clip_scale(history, 1.0, 2, 5) == 1.0, "the smallest norm is clipped");
  require(clip_scale(history, 4.0, 3, 50) == 0.5, "rank 1 of three is not the clip");
  require(clip_scale(history, 0.0, 4, 5) == 1.0 && history[3] == 0.0F, "a zero norm is clipped");
  require(clip_scale(history, NAN, 5, 5) == 0.0 && std::isinf(history[4]), "a norm that is not finite is not infinite");
  for (int t = 6; t <= 250; ++t) clip_scale(history, t, t, 50);
  require(clip_scale(history, 1000.0, 251, 50) == 202.0 / 1000.0, "not the 50th percentile of the last 100");
}

// ---- gate, tasks, workers ----

class Recorder final : public Gate {
 public:
  explicit Recorder(std::size_t tasks, std::size_t failing) : entered(tasks, 0), failing_(failing) {}
  void enter(std::size_t task, unsigned) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (task == failing_) throw std::runtime_error("gate closed");
    ++entered[task];
    ++inside;
  }
  void leave(std::size_t, unsigned) noexcept override {
    const std::lock_guard<std::mutex> lock(mutex_);
    --inside;
  }
  void idle(unsigned worker) noexcept override {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_workers |= 1U << worker;
  }
  std::vector<int> entered;
  int inside = 0;
  unsigned idle_workers = 0;

 private:
  const std::size_t failing_;
  std::mutex mutex_;
};

void test_gate() {
  Case c;
  c.codec = Codec::tensorwise8;
  c.hyper.max_unorm = 1.0;
  c.hyper.percentile_clipping = 10;
  c.numel = 3 * kTaskElements + 5;
  Tensor first(c), skipped(c), last(c);
  std::vector<Row> rows = {first.row(), skipped.row(), last.row()};
  rows[1].grad = nullptr;
  const std::vector<Hyper> hypers = {c.hyper};
  const std::vector<Task> tasks = make_tasks(rows, hypers);
  require(tasks.size() == 36, "tasks: " + std::to_string(tasks.size()));
  Recorder gate(tasks.size(), tasks.size());
  step_host(rows, hypers, tasks, 1.0, 4, workers, &gate);
  for (std::size_t i = 0; i < tasks.size(); ++i)
    require(gate.entered[i] == (tasks[i].row == 1 ? 0 : 1),
            "task " + std::to_string(i) + " entered " + std::to_string(gate.entered[i]) + " times");
  require(gate.inside == 0 && gate.idle_workers == 15, "gate not left, or a worker not idle");
  require(first.step == 1.0F && skipped.step == 0.0F && last.step == 1.0F, "steps not counted");
  for (const std::size_t failing : {std::size_t{0}, std::size_t{6}, std::size_t{11}, std::size_t{35}}) {
    Recorder closed(tasks.size(), failing);
    bool thrown = false;
    try {
      step_host(rows, hypers, tasks, 1.0, 4, workers, &closed);
    } catch (const std::runtime_error& error) {
      thrown = std::string(error.what()) == "gate closed";
    }
    require(thrown && closed.inside == 0 && closed.idle_workers == 15,
            "closed at task " + std::to_string(failing) + ": not rethrown, left or idle");
  }
  Case small;
  Tensor tensor(small);
  std::vector<Row> one = {tensor.row()};
  Recorder wide(1, 1);
  step_host(one, {small.hyper}, make_tasks(one, {small.hyper}), 1.0, 4, workers, &wide);
  require(wide.idle_workers == 15, "a worker that was not hired is not idle");
  Hyper other = c.hyper;
  other.percentile_clipping = 100;
  bool refused = false;
  try {
    step_host(rows, {other}, tasks, 1.0, 1, workers, nullptr);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  require(refused, "tasks of other hyper-parameters are run");
}

void test_spans() {
  Case c;
  c.codec = Codec::blockwise8;
  c.numel = kTaskElements + 1000;
  Tensor tensor(c);
  std::vector<Row> rows = {tensor.row()};
  rows[0].slot[2] = nullptr;
  const std::vector<Task> tasks = make_tasks(rows, {c.hyper});
  std::size_t bytes = 0;
  for (const Task& task : tasks) {
    Span spans[2 * kSlots];
    const std::size_t count = spans_of(rows[0], task, spans);
    require(count == 4, "spans: " + std::to_string(count));
    for (std::size_t i = 0; i < count; ++i) bytes += static_cast<std::size_t>(spans[i].end - spans[i].begin);
  }
  require(bytes == 2 * static_cast<std::size_t>(c.numel) + 8 * static_cast<std::size_t>((c.numel + 255) / 256),
          "spans cover " + std::to_string(bytes) + " bytes");
}

void test_empty_row() {
  Case c;
  c.numel = 0;
  Tensor tensor(c);
  tensor.param.resize(4), tensor.grad.resize(4), tensor.slot[0].resize(4), tensor.slot[1].resize(4);
  std::vector<Row> rows = {tensor.row()};
  step_host(rows, {c.hyper}, make_tasks(rows, {c.hyper}), 1.0, 2, workers, nullptr);
  require(tensor.step == 1.0F, "an empty parameter does not count its steps");
}

void test_workers() {
  std::vector<int> calls(8, 0);
  for (int round = 0; round < 2000; ++round) {
    const unsigned threads = 1 + static_cast<unsigned>(round % 8);
    workers.run(threads, [&](unsigned worker) { ++calls[worker]; });
  }
  for (int worker = 0; worker < 8; ++worker)
    require(calls[worker] == 250 * (8 - worker),
            "worker " + std::to_string(worker) + " was called " + std::to_string(calls[worker]) + " times");
  bool thrown = false;
  try {
    workers.run(4, [](unsigned worker) {
      if (worker > 1) throw std::runtime_error(std::to_string(worker));
    });
  } catch (const std::runtime_error& error) {
    thrown = std::string(error.what()) == "2";
  }
  require(thrown, "the exception of the lowest worker is not rethrown");
  std::vector<std::thread> callers;
  std::vector<int> sums(3, 0);
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&, caller] {
      for (int i = 0; i < 200; ++i) {
        int parts[3] = {};
        workers.run(3, [&](unsigned worker) { parts[worker] = 1; });
        sums[caller] += parts[0] + parts[1] + parts[2];
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (const int sum : sums) require(sum == 600, "callers in parallel lost work");
}

void test_fork() {
  workers.run(4, [](unsigned) {});
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::vector<int> calls(4, 0);
    workers.run(4, [&](unsigned worker) { calls[worker] = 1; });
    _exit(std::count(calls.begin(), calls.end(), 1) == 4 ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child cannot run its own workers");
}

}  // namespace

int main(int argc, char** argv) {
  const std::pair<const char*, void (*)()> groups[] = {
      {"numbers", test_numbers},     {"codec", test_codec},           {"rule", test_rule},
      {"same_bits", test_same_bits}, {"not_finite", test_not_finite}, {"skip_zeros", test_skip_zeros},
      {"floor", test_floor},         {"clip_scale", test_clip_scale}, {"gate", test_gate},
      {"spans", test_spans},         {"empty_row", test_empty_row},   {"workers", test_workers},
      {"fork", test_fork},
  };
  for (const auto& [name, test] : groups) {
    if (argc > 1 && std::strcmp(argv[1], name) != 0) continue;
    set_isa(isas().front());
    test();
    std::printf("step_test: %s passed\n", name);
    std::fflush(stdout);
  }
  return 0;
}

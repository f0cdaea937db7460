// The step against oracles in double.
//   program [name of one group]
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "host_rows.h"

using namespace pagedopt;

namespace {

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
  const double t = tensor.step + 1.0, beta1 = number_of(h, "beta1"), beta2 = number_of(h, "beta2");
  const double c1 = 1 - std::pow(beta1, t), c2 = 1 - std::pow(beta2, t);
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
    if (h.rule == RuleId::lion) {
      const double direction = beta1 * o.m[i] + (1 - beta1) * gi;
      const double size = beta1 * std::abs(o.m[i]) + (1 - beta1) * g_size;
      u[i] = direction > 0 ? 1 : direction < 0 ? -1 : 0;
      if (std::abs(direction) <= 1e-6 * size) o.p_size[i] = 2e6 * h.lr;  // of either sign, for all that float32 says
      o.m_size[i] = beta2 * std::abs(o.m[i]) + (1 - beta2) * g_size;
      o.m[i] = beta2 * o.m[i] + (1 - beta2) * gi;
    } else {
      o.m_size[i] = beta1 * std::abs(o.m[i]) + (1 - beta1) * g_size;
      o.v_size[i] = beta2 * o.v[i] + (1 - beta2) * g_size * g_size;
      o.m[i] = beta1 * o.m[i] + (1 - beta1) * gi;
      o.v[i] = beta2 * o.v[i] + (1 - beta2) * gi * gi;
      o.vmax[i] = std::max(o.vmax[i], o.v[i]);
      const double v = h.rule == RuleId::adam_amsgrad ? o.vmax[i] : o.v[i];
      u[i] = o.m[i] / c1 / (std::sqrt(v / c2) + number_of(h, "eps"));
      o.p_size[i] = h.lr * std::abs(u[i]) * (o.m[i] == 0.0 ? 1.0 : o.m_size[i] / std::abs(o.m[i]));
    }
    unorm += u[i] * u[i];
  }
  const double most = h.max_unorm * std::sqrt(pnorm),
               limit = h.max_unorm > 0 && std::sqrt(unorm) > most ? most / std::sqrt(unorm) : 1.0;
  for (std::int64_t i = 0; i < tensor.numel; ++i) {
    const bool keep = h.skip_zeros && g[i] == 0.0;
    o.p[i] = keep ? before[i] : before[i] * (h.decoupled ? 1 - h.lr * h.weight_decay : 1.0) - h.lr * limit * u[i];
    o.p_size[i] += std::abs(before[i]);
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
    if (slots_of(c.hyper.rule) < 2) continue;
    check_moment(tensor, 1, want.v, want.v_size, what);
    std::vector<double> vmax_size = want.vmax;
    for (std::int64_t i = 0; i < tensor.numel; ++i) vmax_size[i] = std::max(vmax_size[i], want.v_size[i]);
    if (slots_of(c.hyper.rule) > 2) check_moment(tensor, 2, want.vmax, vmax_size, what);
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
  add("amsgrad", [](Case& c) { set_rule(c.hyper, RuleId::adam_amsgrad); });
  add("maximize decoupled amsgrad",
      [](Case& c) { c.hyper.maximize = c.hyper.decoupled = true, set_rule(c.hyper, RuleId::adam_amsgrad); });
  add("skip_zeros", [](Case& c) { c.hyper.skip_zeros = c.hyper.decoupled = true; });
  add("skip_zeros coupled amsgrad",
      [](Case& c) { c.hyper.skip_zeros = true, set_rule(c.hyper, RuleId::adam_amsgrad); });
  add("lion", [](Case& c) { set_rule(c.hyper, RuleId::lion), c.hyper.decoupled = true; });
  add("lion coupled skip_zeros", [](Case& c) { set_rule(c.hyper, RuleId::lion), c.hyper.skip_zeros = true; });
  add("lion maximize", [](Case& c) { set_rule(c.hyper, RuleId::lion), c.hyper.maximize = true; });
  add("lion max_unorm percentile",
      [](Case& c) { set_rule(c.hyper, RuleId::lion), c.hyper.max_unorm = 0.01, c.hyper.percentile_clipping = 40; });
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
  for (int i = 0; i < kMostSlots; ++i) {
    all.insert(all.end(), tensor.slot[i].begin(), tensor.slot[i].end());
    const auto* absmax = reinterpret_cast<const std::byte*>(tensor.absmax[i].data());
    all.insert(all.end(), absmax, absmax + tensor.absmax[i].size() * 4);
  }
  return all;
}

// Every rule with what changes how its loop is compiled, and with both norms.
std::vector<Case> cases_of_every_rule() {
  std::vector<Case> all;
  for (const RuleId rule : all_rules())
    for (const Codec codec : {Codec::f32, Codec::blockwise8, Codec::tensorwise8})
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const int option : {0, 1, 2}) {
          Case c;
          c.hyper.lr = 0.01, c.hyper.weight_decay = option == 0 ? 0.0 : 0.1;
          c.hyper.skip_zeros = option == 1;
          if (option == 2) c.hyper.max_unorm = 0.05, c.hyper.percentile_clipping = 40;
          c.codec = codec, c.dtype = dtype;
          set_rule(c.hyper, rule);
          c.name = std::string(name_of(rule)) + " option " + std::to_string(option) + " codec " +
                   std::to_string(static_cast<int>(codec)) + " dtype " + std::to_string(static_cast<int>(dtype));
          if (codec == Codec::f32 || has_8bit(rule)) all.push_back(c);
        }
  return all;
}

void check_same_bits(const Case& c, const std::vector<unsigned>& thread_counts) {
  set_isa("portable");
  const std::vector<std::byte> want = bytes_after(c, 1);
  for (const std::string& name : isas()) {
    set_isa(name);
    for (const unsigned threads : thread_counts) {
      const std::vector<std::byte> got = bytes_after(c, threads);
      const auto at = std::mismatch(want.begin(), want.end(), got.begin()).first - want.begin();
      if (got != want)
        fail(name + " with " + std::to_string(threads) + " threads differs: " + c.name + ", byte " +
             std::to_string(at) + " of " + std::to_string(want.size()));
    }
  }
}

void test_same_bits() {
  for (const Case& c : cases()) check_same_bits(c, {1U, 2U, 5U});
  for (const Case& c : cases_of_every_rule()) check_same_bits(c, {1U});
}

// ---- numbers that are not finite ----

void test_not_finite() {
  for (const std::string& name : isas()) {
    set_isa(name);
    for (const Codec codec : {Codec::f32, Codec::blockwise8, Codec::tensorwise8}) {
      Case c;
      c.codec = codec;
      c.hyper.weight_decay = 0.1;
      c.hyper.decoupled = true, set_rule(c.hyper, RuleId::adam_amsgrad);
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
  c.hyper.skip_zeros = true, set_rule(c.hyper, RuleId::adam_amsgrad);
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
  for (int i = 0; i < kMostSlots; ++i)
    require(before.slot[i] == tensor.slot[i] && before.absmax[i] == tensor.absmax[i],
            "skip_zeros changed a slot of zero gradients");
  require(before.param == tensor.param && tensor.step == 2.0F, "skip_zeros changed a parameter of zero gradients");
}

// docs/formats.md: gradient scales spread over three decades inside a block; the total update of 100 steps against
// float32 state.
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

}  // namespace

int main(int argc, char** argv) {
  return run_groups(argc, argv,
                    {{"rule", test_rule},
                     {"same_bits", test_same_bits},
                     {"not_finite", test_not_finite},
                     {"skip_zeros", test_skip_zeros},
                     {"floor", test_floor},
                     {"clip_scale", test_clip_scale}},
                    best_isa);
}

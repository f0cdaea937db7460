// The kernels of a GPU, emulated on the CPU, against step_host: equal to the bit. Prints the first bad element,
// exits 1.
//   step_device_test [name of one group of rows]
// Norms are summed in another order there, in double; rounded to float32 they are the same in all rows here.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/workers.h"
#include "check.h"
#include "device_tensors.h"
#include "gpu/kernels/tables.h"

using namespace pagedopt;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
Workers workers;

// ---- comparing ----

// An element of `size` bytes as a number, for messages.
double number_at(const Memory& memory, std::int64_t i, std::size_t size, Dtype dtype) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, static_cast<const std::uint8_t*>(memory.data()) + i * size, size);
  if (size == 4) return float_of(bits);
  if (size == 1) return bits;
  return dtype == Dtype::bf16 ? from_bf16(static_cast<std::uint16_t>(bits))
                              : from_f16(static_cast<std::uint16_t>(bits));
}

// Which NaN a NaN is does not matter.
void compare(const Memory& want, const Memory& got, std::size_t size, Dtype dtype, const std::string& what) {
  require(got.fenced(), what + ": written past its ends");
  for (std::int64_t i = 0; i * size < want.size(); ++i) {
    const auto at = [&](const Memory& memory) { return static_cast<const std::uint8_t*>(memory.data()) + i * size; };
    if (std::memcmp(at(want), at(got), size) == 0) continue;
    const double x = number_at(want, i, size, dtype), y = number_at(got, i, size, dtype);
    if (std::isnan(x) && std::isnan(y)) continue;
    fail(what + ": element " + std::to_string(i) + " is " + show(y) + ", not " + show(x));
  }
}

void compare(const Tensor& want, const Tensor& got, const std::string& what) {
  const Dtype dtype = want.c.dtype;
  const std::string names[] = {"slot 0", "slot 1", "slot 2"};
  compare(want.step, got.step, 4, Dtype::f32, what + ", step");
  compare(want.gnorms, got.gnorms, 4, Dtype::f32, what + ", gnorm_history");
  compare(want.grad, got.grad, bytes_of(dtype), dtype, what + ", gradient");
  for (int i = 0; i < kMostSlots; ++i) {
    compare(want.absmax[i], got.absmax[i], 4, Dtype::f32, what + ", absmax of " + names[i]);
    compare(want.slot[i], got.slot[i], want.c.codec == Codec::f32 ? 4 : 1, dtype, what + ", " + names[i]);
  }
  compare(want.param, got.param, bytes_of(dtype), dtype, what + ", parameter");
}

// ---- one tensor ----

void host_step(std::vector<Row>& rows, const std::vector<Hyper>& hypers, double grad_scale = 1.0) {
  step_host(rows, hypers, make_tasks(rows, hypers), grad_scale, 1, workers, nullptr);
}

using Gradient = std::function<void(Tensor&, unsigned)>;

void check_case(const Case& c, const Gradient& gradient = new_gradient) {
  Tensor want(c), got(c);
  for (unsigned t = 1; t <= c.steps; ++t) {
    gradient(want, t), gradient(got, t);
    std::vector<Row> want_rows = {want.row()};
    host_step(want_rows, {c.hyper});
    device_step({got.row()}, {c.hyper}, {});
    compare(want, got, c.name + ", " + std::to_string(c.numel) + " elements, step " + std::to_string(t));
  }
}

struct Option {
  const char* name;
  std::function<void(Hyper&)> set;
};

const std::vector<Option>& options() {
  static const std::vector<Option> all = [] {
    std::vector<Option> options = {
        {"coupled", [](Hyper&) {}},
        {"decoupled", [](Hyper& h) { h.decoupled = true; }},
        {"no decay", [](Hyper& h) { h.weight_decay = 0.0; }},
        {"amsgrad", [](Hyper& h) { set_rule(h, RuleId::adam_amsgrad); }},
        {"maximize", [](Hyper& h) { h.maximize = h.decoupled = true, set_rule(h, RuleId::adam_amsgrad); }},
        {"skip_zeros", [](Hyper& h) { h.skip_zeros = h.decoupled = true; }},
        {"skip_zeros, coupled", [](Hyper& h) { h.skip_zeros = true, set_rule(h, RuleId::adam_amsgrad); }},
        {"max_unorm", [](Hyper& h) { h.max_unorm = 0.3; }},
        {"max_unorm, skip_zeros",
         [](Hyper& h) { h.max_unorm = 0.3, h.skip_zeros = true, set_rule(h, RuleId::adam_amsgrad); }},
        {"percentile", [](Hyper& h) { h.percentile_clipping = 40; }},
        {"both norms", [](Hyper& h) { h.percentile_clipping = 5, h.max_unorm = 0.5, h.decoupled = true; }},
    };
    for (const RuleId rule : all_rules()) {
      options.push_back({name_of(rule), [rule](Hyper& h) { set_rule(h, rule), h.decoupled = true; }});
      options.push_back({name_of(rule), [rule](Hyper& h) { set_rule(h, rule), h.skip_zeros = true; }});
      options.push_back({name_of(rule), [rule](Hyper& h) { set_rule(h, rule), h.max_unorm = 0.05; }});
    }
    return options;
  }();
  return all;
}

void test_rule() {
  for (const Option& option : options())
    for (const std::int64_t numel : {1, 255, 256, 257, 1003})
      for (const Case& c : kinds(option.name, [&](Case& c) { option.set(c.hyper), c.numel = numel; })) check_case(c);
}

void test_long() {
  for (const std::int64_t numel : {kPartElements + 1, kTaskElements + 1, 2 * kTaskElements + 1077})
    for (const Case& c : kinds("long", [&](Case& c) {
           c.numel = numel, c.steps = 2, set_rule(c.hyper, RuleId::adam_amsgrad), c.hyper.max_unorm = 0.2;
           c.hyper.percentile_clipping = 50;
         }))
      check_case(c);
}

void test_unaligned() {
  for (const int offset : {1, 2, 3, 4, 5, 8})
    for (const Case& c : kinds("offset " + std::to_string(offset),
                               [&](Case& c) { c.param_offset = offset, c.grad_offset = 8 - offset, c.numel = 777; }))
      check_case(c);
}

void test_ranges() {
  const std::pair<double, double> sizes[] = {{0.1, 6.0}, {1e-30, 0.5}, {1e-38, 3.0}, {1e4, 4.0}, {1e17, 2.0}};
  for (const auto& [size, spread] : sizes)
    for (const Case& c : kinds("gradients of " + show(size), [&, size = size, spread = spread](Case& c) {
           c.grad_size = size, c.spread = spread, c.numel = 4099, set_rule(c.hyper, RuleId::adam_amsgrad),
           c.hyper.weight_decay = 0.0;
         }))
      check_case(c);
}

// Without memory (beta 0) m' is the gradient and v' its square: numbers on, and beside, the midpoints of both maps.
void midpoints(Tensor& tensor, unsigned t) {
  std::mt19937 random(t);
  for (std::int64_t i = 0; i < tensor.c.numel; ++i) {
    const int code = static_cast<int>(random() % 255);
    const CodeMap& map = code_map(i / 256 % 2 == 0);
    double x = 0.5 * (static_cast<double>(map.value[code]) + static_cast<double>(map.value[code + 1]));
    if (i / 256 % 2) x = std::sqrt(x);
    auto near = static_cast<float>(i % 256 ? x : 1.0);
    for (int ulps = static_cast<int>(random() % 9) - 4; ulps != 0 && i % 256; ulps += ulps < 0 ? 1 : -1)
      near = std::nextafter(near, ulps < 0 ? -kInf : kInf);
    tensor.put(tensor.grad, i, near * static_cast<float>(t == 1 ? 1.0 : t == 2 ? 0.3 : 1e-16));
  }
}

void test_midpoints() {
  for (Case c : kinds("midpoints", [](Case& c) { c.hyper.weight_decay = 0.0; })) {
    number_of(c.hyper, "beta1") = number_of(c.hyper, "beta2") = 0.0;
    c.numel = 100001;
    check_case(c, midpoints);
  }
}

void test_not_finite() {
  const auto bad_gradient = [](Tensor& tensor, unsigned t) {
    new_gradient(tensor, t);
    const float bad[] = {NAN, kInf, -kInf};
    for (std::int64_t i = 0; t > 1 && i < tensor.c.numel; ++i)
      if (i % 100 < 3) tensor.put(tensor.grad, i, bad[i % 100]);
  };
  for (const Case& c :
       kinds("not finite", [](Case& c) { c.hyper.decoupled = true, set_rule(c.hyper, RuleId::adam_amsgrad); }))
    check_case(c, bad_gradient);
  for (const Case& c : kinds("not finite, clipped", [](Case& c) { c.hyper.percentile_clipping = 30; }))
    check_case(c, bad_gradient);
}

// ---- many rows ----

struct Many {
  Many() {
    unsigned seed = 1;
    for (const Option& option : options()) {
      for (Case c : kinds(option.name, [&](Case& c) { option.set(c.hyper); })) {
        std::mt19937 random(seed++);
        c.numel = random() % 4 == 0 ? 0 : random() % 3000;
        c.param_offset = static_cast<int>(random() % 3), c.grad_offset = static_cast<int>(random() % 3);
        want.emplace_back(c), got.emplace_back(c);
        groups.push_back(static_cast<std::uint32_t>(hypers.size()));
      }
      Hyper hyper = want.back().c.hyper;
      hypers.push_back(hyper);
    }
  }

  // Rows take turns in having no gradient.
  static std::vector<Row> rows(std::vector<Tensor>& tensors, const std::vector<std::uint32_t>& groups, unsigned t) {
    std::vector<Row> all;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      new_gradient(tensors[i], t);
      all.push_back(tensors[i].row(groups[i]));
      if ((i + t) % 5 == 0) all.back().grad = nullptr;
    }
    return all;
  }

  void compare_all(const std::string& what) const {
    for (std::size_t i = 0; i < want.size(); ++i)
      compare(want[i], got[i], what + ", row " + std::to_string(i) + " (" + want[i].c.name + ")");
  }

  std::vector<Tensor> want, got;
  std::vector<Hyper> hypers;
  std::vector<std::uint32_t> groups;
};

void test_many() {
  Many many;
  for (unsigned t = 1; t <= 4; ++t) {
    std::vector<Row> want = Many::rows(many.want, many.groups, t);
    host_step(want, many.hypers, 0.5);
    Options options;
    options.host_grad_scale = 0.5;
    options.tasks_a_run = t;
    device_step(Many::rows(many.got, many.groups, t), many.hypers, options);
    many.compare_all("mixed rows, step " + std::to_string(t));
  }
}

void test_history() {  // longer than the norms that are kept
  Case c;
  c.name = "history";
  c.hyper.percentile_clipping = 20;
  c.numel = 33;
  c.steps = 230;
  check_case(c);
}

void test_device_scalars() {
  Many many;
  const float found = 0.0F, scale = 3.0F;
  std::vector<float> lr;
  for (std::size_t i = 0; i < many.hypers.size(); ++i) lr.push_back(0.001F * static_cast<float>(i + 1));
  for (unsigned t = 1; t <= 2; ++t) {
    std::vector<Hyper> hypers = many.hypers;
    for (std::size_t i = 0; i < hypers.size(); ++i) hypers[i].lr = lr[i];
    std::vector<Row> want = Many::rows(many.want, many.groups, t);
    host_step(want, hypers, 2.0 / 3.0);
    Options options;
    options.found_inf = &found, options.grad_scale = &scale, options.host_grad_scale = 2.0;
    for (float& x : lr) options.lr.push_back(&x);
    device_step(Many::rows(many.got, many.groups, t), many.hypers, options);
    many.compare_all("lr and grad_scale on the device, step " + std::to_string(t));
  }
}

void test_found_inf() {
  Many many;
  const float found = 1.0F;
  std::vector<Row> want = Many::rows(many.want, many.groups, 1);
  host_step(want, many.hypers);
  device_step(Many::rows(many.got, many.groups, 1), many.hypers, {});
  Options options;
  options.found_inf = &found;
  device_step(Many::rows(many.got, many.groups, 2), many.hypers, options);
  for (Tensor& tensor : many.want) new_gradient(tensor, 2);
  many.compare_all("found_inf");
}

// ---- the order of tasks ----

std::vector<Row> fake_rows(const std::vector<std::pair<std::int64_t, Codec>>& shapes, std::uint32_t group = 0) {
  std::vector<Row> rows;
  for (const auto& [numel, codec] : shapes) {
    rows.emplace_back();
    rows.back().numel = numel, rows.back().codec = codec, rows.back().group = group;
  }
  return rows;
}

// Every pass of every element once; stages follow each other without gaps, and a row's measure is complete before its
// update; partial results of one stage do not overlap.
void check_tasks(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const std::string& what) {
  const DeviceTasks made = make_device_tasks(rows, hypers);
  require(made.tasks.size() == make_tasks(rows, hypers).size(), what + ": not the tasks of make_tasks");
  std::uint64_t next = 0;
  std::vector<std::vector<std::int64_t>> done(3, std::vector<std::int64_t>(rows.size(), -1));
  for (const Stage& stage : made.stages) {
    require(stage.first_task == next && stage.last_task > next, what + ": stages do not follow each other");
    next = stage.last_task;
    std::vector<std::uint64_t> used;
    for (std::uint64_t i = stage.first_task; i < stage.last_task; ++i) {
      const Task& task = made.tasks[i];
      std::int64_t& at = done[static_cast<int>(task.pass)][task.row];
      require(task.pass == stage.launch.pass && task.row >= stage.first_row && task.row < stage.last_row,
              what + ": task " + std::to_string(i) + " is not of its stage");
      at = std::max<std::int64_t>(at, 0);
      require(task.first == at, what + ": task " + std::to_string(i) + " leaves a gap");
      for (std::uint64_t p = made.first_part[i]; p < made.first_part[i + 1]; ++p) {
        const Part& part = made.parts[p];
        require(part.row == task.row && part.first() == at, what + ": part " + std::to_string(p) + " leaves a gap");
        at = part.last(rows[task.row].numel);
      }
      require(at == task.last, what + ": task " + std::to_string(i) + " has other parts");
      const Hyper& hyper = hypers[rows[task.row].group];
      require(task.pass != Pass::update || !measures(rows[task.row], hyper) ||
                  done[static_cast<int>(Pass::measure)][task.row] == rows[task.row].numel,
              what + ": row " + std::to_string(task.row) + " is updated before it is measured");
      const RowPartials& base = made.row_partials[task.row];
      for (std::int64_t part = task.first; stage.launch.pass != Pass::update && part < task.last; part += kPartElements)
        used.push_back((stage.launch.pass == Pass::measure ? base.measure : base.gradient_norm) + part / kPartElements);
    }
    std::sort(used.begin(), used.end());
    require(std::adjacent_find(used.begin(), used.end()) == used.end(), what + ": partial results overlap");
    require(used.empty() || used.back() < made.partial_count, what + ": no room for partial results");
  }
  require(next == made.tasks.size(), what + ": stages miss tasks");
}

void test_tasks() {
  constexpr std::int64_t kMi = 1 << 20;
  constexpr Codec f = Codec::f32, t = Codec::tensorwise8;
  const struct {
    const char* name;
    std::vector<std::pair<std::int64_t, Codec>> shapes;
    std::size_t stages;  // without clipping
  } rows[] = {
      {"nothing measured", {{40 * kMi, f}, {1, f}, {0, f}, {40 * kMi + 3, f}}, 1},
      {"small", {{5, t}, {300, f}, {kMi, t}}, 2},
      {"measured batches", {{10 * kMi, t}, {10 * kMi, t}, {40 * kMi, t}, {1, t}, {2, t}}, 8},
      {"measured among others", {{40 * kMi, f}, {3, t}, {40 * kMi, f}, {40 * kMi, f}, {5, t}}, 5},
      {"empty rows", {{0, t}, {0, f}, {0, t}}, 2},
      {"none", {}, 0},
  };
  for (const auto& row : rows) {
    Hyper hyper;
    const std::size_t stages = make_device_tasks(fake_rows(row.shapes), {hyper}).stages.size();
    require(stages == row.stages, row.name + std::string(": stages: ") + std::to_string(stages));
    check_tasks(fake_rows(row.shapes), {hyper}, row.name);
    hyper.percentile_clipping = 10;
    check_tasks(fake_rows(row.shapes), {hyper}, row.name + std::string(", clipped"));
    hyper.max_unorm = 1.0;
    check_tasks(fake_rows(row.shapes), {hyper}, row.name + std::string(", clipped, max_unorm"));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::pair<const char*, void (*)()> groups[] = {
      {"tasks", test_tasks},
      {"rule", test_rule},
      {"long", test_long},
      {"unaligned", test_unaligned},
      {"ranges", test_ranges},
      {"midpoints", test_midpoints},
      {"not_finite", test_not_finite},
      {"many", test_many},
      {"history", test_history},
      {"device_scalars", test_device_scalars},
      {"found_inf", test_found_inf},
  };
  return run_groups(argc, argv, groups);
}

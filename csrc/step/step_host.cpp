#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "base/error.h"
#include "base/workers.h"
#include "step/piece.h"
#include "step/step.h"

namespace pagedopt {
namespace {

// ---- instruction sets ----

std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> all;
#if defined(PAGEDOPT_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    all.push_back(&avx512::kernels);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) all.push_back(&avx2::kernels);
#endif
  all.push_back(&portable::kernels);
  return all;
}

std::atomic<const Kernels*>& chosen() {
  static std::atomic<const Kernels*> kernels{supported_kernels().front()};
  return kernels;
}

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

// ---- rows and passes ----

constexpr Pass kPasses[] = {Pass::gradient_norm, Pass::measure, Pass::update};
constexpr std::size_t kPassCount = 3;

std::size_t index_of(Pass pass) { return static_cast<std::size_t>(pass); }

// ---- one step ----

// The scalars of the last (group, t) a worker met: most rows of a group are at the same t.
struct ScalarCache {
  std::uint32_t group = std::numeric_limits<std::uint32_t>::max();
  double t = 0.0;
  Scalars<float> scalars = {};
  Scalars<double> scalars64 = {};
};

// The tasks of a row that are left in each pass, and what its finished passes found out.
struct RowProgress {
  std::atomic<std::uint32_t> left[kPassCount] = {};
  std::atomic<bool> pending[kPassCount] = {};
  std::size_t first_task = 0;
  std::uint32_t task_count = 0;
  double clip = 1.0, limit = 1.0;  // factors on the gradient and on the move
  float absmax[kMostSlots] = {};
};

class HostStep {
 public:
  HostStep(std::vector<Row>& rows, const std::vector<Hyper>& hypers, const std::vector<Task>& tasks, double grad_scale,
           Gate* gate)
      : rows_(rows), hypers_(hypers), tasks_(tasks), grad_scale_(grad_scale), gate_(gate), progress_(rows.size()) {
    count_tasks();
    check_rows();
  }

  void work(unsigned worker);
  std::string outcome() const;  // what a step that was stopped has done. pre: nobody works

 private:
  void count_tasks();
  void check_rows() const;
  void take(std::size_t index, unsigned worker, ScalarCache& cache);
  bool await(std::size_t index, unsigned worker);
  void run(std::size_t index, ScalarCache& cache);
  void finish(const Task& task);
  void combine(const Row& row, RowProgress& progress, Pass pass);
  void stop();
  void set_scalars(Piece& piece, const Row& row, const RowProgress& progress, ScalarCache& cache) const;

  std::vector<Row>& rows_;
  const std::vector<Hyper>& hypers_;
  const std::vector<Task>& tasks_;
  const double grad_scale_;
  Gate* const gate_;
  std::vector<RowProgress> progress_;
  std::vector<Partial> partials_;  // by task, when any row has a pass before its update
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::condition_variable pass_done_;
};

void HostStep::count_tasks() {
  bool any_pass = false;
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    const Task& task = tasks_[i];
    if (task.row >= rows_.size())
      throw std::invalid_argument("a task is for row " + std::to_string(task.row) + ", which is not there");
    RowProgress& progress = progress_[task.row];
    if (progress.task_count++ == 0) progress.first_task = i;
    progress.left[index_of(task.pass)].fetch_add(1, std::memory_order_relaxed);
    progress.pending[index_of(task.pass)].store(true, std::memory_order_relaxed);
    any_pass |= task.pass != Pass::update;
  }
  if (any_pass) partials_.resize(tasks_.size());
}

void HostStep::check_rows() const {
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    if (!rows_[i].grad) continue;
    check_row(rows_[i], i, hypers_);
    for (const Pass pass : kPasses)
      if (has_pass(rows_[i], pass, hypers_[rows_[i].group]) != (progress_[i].left[index_of(pass)].load() > 0))
        throw std::invalid_argument("the tasks of row " + std::to_string(i) + " were made for other hyper-parameters");
  }
}

void HostStep::work(unsigned worker) {
  ScalarCache cache;
  try {
    for (;;) {
      const std::size_t index = next_.fetch_add(1, std::memory_order_relaxed);
      if (index >= tasks_.size() || stopped_.load(std::memory_order_relaxed)) break;
      if (rows_[tasks_[index].row].grad) take(index, worker, cache);
    }
  } catch (...) {
    stop();
    if (gate_) gate_->idle(worker);
    throw;
  }
  if (gate_) gate_->idle(worker);
}

void HostStep::take(std::size_t index, unsigned worker, ScalarCache& cache) {
  if (!await(index, worker)) return;
  if (gate_) gate_->enter(index, worker);
  run(index, cache);
  if (gate_) gate_->leave(index, worker);
  finish(tasks_[index]);
}

// Returns whether the passes that this task builds on are complete; not so when the step was stopped. All their tasks
// have been handed out, so somebody works on them.
bool HostStep::await(std::size_t index, unsigned worker) {
  const Task& task = tasks_[index];
  const RowProgress& progress = progress_[task.row];
  const auto ready = [&] {
    for (std::size_t pass = 0; pass < index_of(task.pass); ++pass)
      if (progress.pending[pass].load(std::memory_order_acquire)) return false;
    return true;
  };
  if (ready()) return true;
  if (gate_) gate_->reach(index, worker);
  std::unique_lock<std::mutex> lock(mutex_);
  pass_done_.wait(lock, [&] { return stopped_.load() || ready(); });
  return ready();
}

void HostStep::set_scalars(Piece& piece, const Row& row, const RowProgress& progress, ScalarCache& cache) const {
  const double t = static_cast<double>(*row.step) + 1.0;
  if (cache.group != row.group || cache.t != t) {
    const Hyper& hyper = hypers_[row.group];
    cache = {row.group, t, make_scalars<float>(hyper, t, grad_scale_), make_scalars<double>(hyper, t, grad_scale_)};
  }
  const auto with_factors = [&](auto scalars) {
    auto& common = scalars.common;
    using Real = decltype(common.rate);
    common.grad_scale = static_cast<Real>(common.grad_scale * progress.clip);
    common.rate = static_cast<Real>(common.rate * progress.limit);
    return scalars;
  };
  piece.scalars = with_factors(cache.scalars);
  piece.scalars64 = with_factors(cache.scalars64);
}

void HostStep::run(std::size_t index, ScalarCache& cache) {
  const Task& task = tasks_[index];
  const Row& row = rows_[task.row];
  const RowProgress& progress = progress_[task.row];
  const Hyper& hyper = hypers_[row.group];
  Piece piece = piece_of(row, task.first, task.last, slots_of(hyper.rule), hyper.skip_zeros);
  set_scalars(piece, row, progress, cache);
  std::copy(std::begin(progress.absmax), std::end(progress.absmax), piece.new_absmax);
  const Kernels::OfRule& of_rule = kernels().of_rule[static_cast<int>(hyper.rule)];
  if (task.pass == Pass::update)
    of_rule.update(piece);
  else
    partials_[index] = task.pass == Pass::measure ? of_rule.measure(piece) : kernels().gradient_norm(piece);
}

// Counts a task as done; the last one of a pass settles what the pass was for.
void HostStep::finish(const Task& task) {
  Row& row = rows_[task.row];
  RowProgress& progress = progress_[task.row];
  if (progress.left[index_of(task.pass)].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  if (task.pass != Pass::update) {
    combine(row, progress, task.pass);
    const std::lock_guard<std::mutex> lock(mutex_);
    progress.pending[index_of(task.pass)].store(false, std::memory_order_release);
    pass_done_.notify_all();
    return;
  }
  if (row.codec == Codec::tensorwise8)
    for (int slot = 0; slot < slots_of(hypers_[row.group].rule); ++slot) *row.absmax[slot] = progress.absmax[slot];
  *row.step += 1.0f;
}

void HostStep::combine(const Row& row, RowProgress& progress, Pass pass) {
  Partial sum;
  for (std::size_t i = progress.first_task; i < progress.first_task + progress.task_count; ++i) {
    if (tasks_[i].pass != pass) continue;
    add(sum, partials_[i]);
  }
  const Hyper& hyper = hypers_[row.group];
  if (pass == Pass::gradient_norm) {
    const double norm = std::sqrt(sum.grad_square) * std::abs(grad_scale_);
    progress.clip =
        clip_scale(row.gnorm_history, norm, static_cast<double>(*row.step) + 1.0, hyper.percentile_clipping);
  } else {
    std::copy(std::begin(sum.absmax), std::end(sum.absmax), progress.absmax);
    if (hyper.max_unorm > 0.0)
      progress.limit = unorm_limit(hyper.max_unorm, hyper.lr, sum.move_square, sum.param_square);
  }
}

void HostStep::stop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stopped_.store(true);
  pass_done_.notify_all();
}

std::string HostStep::outcome() const {
  std::vector<std::uint32_t> updates(rows_.size());
  for (const Task& task : tasks_)
    if (task.pass == Pass::update) ++updates[task.row];
  std::size_t with_gradient = 0, whole = 0, begun = 0;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    if (!rows_[row].grad) continue;
    ++with_gradient;
    const std::uint32_t left = progress_[row].left[index_of(Pass::update)].load();
    whole += left == 0 ? 1 : 0;
    begun += left > 0 && left < updates[row] ? 1 : 0;
  }
  return std::to_string(whole) + " of " + std::to_string(with_gradient) + " parameters were updated, " +
         std::to_string(begun) + " in part";
}

// Threads worth waking: about 30 us of work for each.
unsigned useful_threads(const std::vector<Row>& rows, unsigned threads) {
  constexpr std::int64_t kElementsPerThread = 1 << 15;
  std::int64_t elements = 0;
  for (const Row& row : rows)
    if (row.grad) elements += row.numel;
  return static_cast<unsigned>(std::clamp<std::int64_t>(elements / kElementsPerThread, 1, std::max(threads, 1u)));
}

}  // namespace

void add_tasks(std::vector<Task>& tasks, std::size_t row, std::int64_t numel, Pass pass) {
  std::int64_t first = 0;
  do {  // an empty row has one empty task, which counts its steps
    const std::int64_t last = std::min(first + kTaskElements, numel);
    tasks.push_back({static_cast<std::uint32_t>(row), pass, first, last});
    first = last;
  } while (first < numel);
}

std::vector<Task> make_tasks(const std::vector<Row>& rows, const std::vector<Hyper>& hypers) {
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (const Pass pass : kPasses)
      if (has_pass(rows[i], pass, hypers.at(rows[i].group))) add_tasks(tasks, i, rows[i].numel, pass);
  return tasks;
}

void check_row(const Row& row, std::size_t index, const std::vector<Hyper>& hypers) {
  const auto require = [&](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument("row " + std::to_string(index) + ": " + what);
  };
  require(row.group < hypers.size(), "no such group");
  const Hyper& hyper = hypers[row.group];
  require(row.numel >= 0 && row.step && row.param, "parameter and step are needed");
  require((row.dtype == Dtype::f64) == (row.codec == Codec::f64), "float64 parameters and float64 state go together");
  require(!is_8bit(row) || has_8bit(hyper.rule), "the state of this rule has no 8-bit form");
  for (int slot = 0; slot < slots_of(hyper.rule); ++slot)
    require(row.slot[slot] && (!is_8bit(row) || row.absmax[slot]), "a slot, or its absmax, is missing");
  require(!clips(hyper) || row.gnorm_history, "percentile clipping needs gnorm_history");
}

std::size_t spans_of(const Row& row, const Task& task, Span out[2 * kMostSlots]) {
  if (task.pass == Pass::gradient_norm || task.first == task.last) return 0;
  const std::int64_t slot_bytes = bytes_per_element(row.codec);
  std::size_t count = 0;
  for (int slot = 0; slot < kMostSlots; ++slot) {
    if (!row.slot[slot]) continue;
    auto* const bytes = static_cast<std::byte*>(row.slot[slot]);
    out[count++] = {bytes + task.first * slot_bytes, bytes + task.last * slot_bytes, slot, false};
    if (!is_8bit(row)) continue;
    float* const absmax = row.absmax[slot];
    const std::int64_t last = row.codec == Codec::blockwise8 ? blocks(task.last) : 1;
    out[count++] = {reinterpret_cast<std::byte*>(absmax + first_absmax(row, task.first)),
                    reinterpret_cast<std::byte*>(absmax + last), slot, true};
  }
  return count;
}

void step_host(std::vector<Row>& rows, const std::vector<Hyper>& hypers, const std::vector<Task>& tasks,
               double grad_scale, unsigned threads, Workers& workers, Gate* gate) {
  HostStep step(rows, hypers, tasks, grad_scale, gate);
  const unsigned hired = workers.hire(useful_threads(rows, threads));
  for (unsigned worker = hired; gate && worker < threads; ++worker) gate->idle(worker);
  try {
    workers.run(hired, [&step](unsigned worker) { step.work(worker); });
  } catch (const VmError& error) {
    throw VmError(std::string(error.what()) + "; " + step.outcome(), error.code());
  }
}

double clip_scale(float* history, double norm, double t, int percentile) {
  norm = counted_norm(norm);
  history[history_place(t)] = static_cast<float>(norm);
  return clip_factor(norm, percentile_entry(history, percentile, 0, 1));
}

void encode(const float* from, std::int64_t numel, std::uint8_t* codes, float* absmax, bool is_signed,
            std::int64_t block) {
  kernels().encode(from, numel, codes, absmax, is_signed, block);
}

void decode(const std::uint8_t* codes, const float* absmax, std::int64_t numel, float* to, bool is_signed,
            std::int64_t block) {
  kernels().decode(codes, absmax, numel, to, is_signed, block);
}

const CodeMap& code_map(bool is_signed) { return is_signed ? kSignedMap : kUnsignedMap; }

std::string isa() { return kernels().name; }

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Kernels* supported : supported_kernels()) names.push_back(supported->name);
  return names;
}

void set_isa(const std::string& name) {
  for (const Kernels* supported : supported_kernels()) {
    if (name != supported->name) continue;
    chosen().store(supported);
    return;
  }
  std::string allowed;
  for (const std::string& supported : isas()) allowed += (allowed.empty() ? "" : ", ") + supported;
  throw std::invalid_argument("no instruction set '" + name + "' here; this machine has: " + allowed);
}

}  // namespace pagedopt

// Who a step asks and hires: its gate, its tasks, its workers.
//   program [name of one group]
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "host_rows.h"

using namespace pagedopt;

namespace {

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
    Span spans[2 * kMostSlots];
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
  return run_groups(argc, argv,
                    {{"gate", test_gate},
                     {"spans", test_spans},
                     {"empty_row", test_empty_row},
                     {"workers", test_workers},
                     {"fork", test_fork}},
                    best_isa);
}

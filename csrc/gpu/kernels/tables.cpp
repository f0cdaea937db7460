#include "gpu/kernels/tables.h"

#include <algorithm>

namespace pagedopt {
namespace {

// Elements of rows that are measured and then updated together. A launch of that many keeps a large GPU busy for 50 us,
// ten times what it costs; and their state, up to 200 MB, is still in the upper tier when its update comes.
constexpr std::int64_t kBatchElements = std::int64_t{1} << 24;

std::uint64_t parts(std::int64_t numel) {
  return static_cast<std::uint64_t>((numel + kPartElements - 1) / kPartElements);
}

class Builder {
 public:
  Builder(const std::vector<Row>& rows, const std::vector<Hyper>& hypers) : rows_(rows), hypers_(hypers) {
    made_.row_partials.resize(rows.size());
  }

  DeviceTasks build() {
    gradient_norms();
    std::uint32_t first = 0;
    while (first < rows_.size()) first = batch(first);
    cut_tasks();
    return std::move(made_);
  }

 private:
  const Hyper& hyper(std::uint32_t row) const { return hypers_.at(rows_[row].group); }
  bool has(std::uint32_t row, Pass pass) const { return has_pass(rows_[row], pass, hyper(row)); }

  void gradient_norms() {
    stage({Pass::gradient_norm}, 0, static_cast<std::uint32_t>(rows_.size()));
    std::uint64_t next = 0;
    for (std::uint32_t row = 0; row < rows_.size(); ++row) {
      if (!has(row, Pass::gradient_norm)) continue;
      made_.row_partials[row].gradient_norm = next;
      next += parts(rows_[row].numel);
    }
    made_.partial_count = next;
  }

  void cut_tasks() {
    for (const Task& task : made_.tasks) {
      made_.first_part.push_back(made_.parts.size());
      for (std::int64_t first = task.first; first < task.last; first += kPartElements)
        made_.parts.push_back({task.row, static_cast<std::uint32_t>(first / kPartElements)});
    }
    made_.first_part.push_back(made_.parts.size());
  }

  // One batch from row `first`; returns the row after it. Another rule ends it; rows without a measure pass, by their
  // number, only a batch that has one.
  std::uint32_t batch(std::uint32_t first) {
    std::int64_t elements = 0;
    std::uint64_t next = 0;  // the gradient norms have been used by now, and so have the batches before
    bool measured = false;
    std::uint32_t row = first;
    for (; row < rows_.size(); ++row) {
      if (hyper(row).rule != hyper(first).rule) break;
      const bool measures_row = has(row, Pass::measure);
      elements += rows_[row].numel;
      if (row > first && elements > kBatchElements && (measured || measures_row)) break;
      measured |= measures_row;
      made_.row_partials[row].measure = next;
      if (measures_row) next += parts(rows_[row].numel);
    }
    made_.partial_count = std::max(made_.partial_count, next);
    stage({Pass::measure, hyper(first).rule}, first, row);
    stage({Pass::update, hyper(first).rule}, first, row);
    return row;
  }

  // Appends the tasks of rows [first, last), to the stage before if that runs the same.
  void stage(Launch launch, std::uint32_t first, std::uint32_t last) {
    const std::uint64_t first_task = made_.tasks.size();
    for (std::uint32_t row = first; row < last; ++row)
      if (has(row, launch.pass)) add_tasks(made_.tasks, row, rows_[row].numel, launch.pass);
    const std::uint64_t last_task = made_.tasks.size();
    if (first_task == last_task) return;
    Stage* const before = made_.stages.empty() ? nullptr : &made_.stages.back();
    if (before && before->launch.pass == launch.pass && before->launch.rule == launch.rule) {
      before->last_task = last_task;
      before->last_row = last;
    } else {
      made_.stages.push_back({launch, first_task, last_task, first, last});
    }
  }

  const std::vector<Row>& rows_;
  const std::vector<Hyper>& hypers_;
  DeviceTasks made_;
};

}  // namespace

DeviceTasks make_device_tasks(const std::vector<Row>& rows, const std::vector<Hyper>& hypers) {
  return Builder(rows, hypers).build();
}

}  // namespace pagedopt

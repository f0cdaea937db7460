#include "gpu/launch/launcher.h"

#include <cstring>

#include "memory/page_gate.h"

namespace pagedopt {
namespace {

// Tasks of a launch at most: the device begins with these while the pages of the next are looked at (0.2 ms).
constexpr std::uint64_t kMostTasks = 2048;

// Tasks of a stage that are launched together. Their pages are pinned until they are.
class Batch {
 public:
  // Without pages to enter, or without a ring, all tasks run where their state is, or all on copies of it.
  Batch(const std::vector<Row>& rows, const DeviceTasks& tasks, PageGate* pages, Ring* ring, Gpu& gpu,
        const StepTables& tables, const Stage& stage, StreamHandle stream, Ring::Copied& copied)
      : rows_(rows),
        tasks_(tasks),
        pages_(pages),
        ring_(ring),
        gpu_(gpu),
        tables_(tables),
        what_(stage.launch),
        stream_(stream),
        copied_(copied),
        first_(stage.first_task),
        last_(stage.first_task) {}
  ~Batch() {  // with tasks in it only after an exception
    for (; pages_ != nullptr && first_ < last_; ++first_) pages_->leave(first_);
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void add(std::uint64_t task) {
    if (pages_ != nullptr && !pages_->try_enter(task)) {
      launch();  // nothing is held while pages are waited for
      pages_->enter(task, 0);
    }
    const PageGate::Where where = ring_ == nullptr    ? PageGate::Where::upper
                                  : pages_ == nullptr ? PageGate::Where::lower
                                                      : pages_->where(task);
    make_room(task, where);
    ++last_;
    if (is_lower_) ring_->add(rows_[tasks_.tasks[task].row], tasks_.tasks[task], where == PageGate::Where::lower);
    if (!is_lower_ && pages_ != nullptr) arriving_pages_ += pages_->arriving_pages(task);
    if (arriving_pages_ >= DeviceStep::kBatchPages || last_ - first_ >= kMostTasks) launch();
  }

  void launch() {
    if (first_ == last_) return;
    if (pages_ != nullptr) pages_->enter_on(first_, last_, is_lower_ ? ring_->in() : stream_);
    const std::uint64_t first = tasks_.first_part[first_], last = tasks_.first_part[last_];
    if (is_lower_)
      ring_->run(tables_, what_, first, last, stream_, copied_);
    else
      gpu_.run(tables_, what_, first, last, stream_);
    if (pages_ != nullptr) pages_->leave_on(first_, last_, is_lower_ ? ring_->out() : stream_);
    first_ = last_;
    arriving_pages_ = 0;
  }

 private:
  // A batch is all in the upper tier or all in the lower one; tasks without paged state go with either. pre: the task
  // is entered
  void make_room(std::uint64_t task, PageGate::Where where) {
    const bool suits = where == PageGate::Where::nowhere || is_lower_ == (where == PageGate::Where::lower);
    if (first_ < last_ &&
        (!suits || (is_lower_ && !ring_->has_room(rows_[tasks_.tasks[task].row], tasks_.tasks[task])))) {
      try {
        launch();
      } catch (...) {
        if (pages_ != nullptr) pages_->leave(task);
        throw;
      }
    }
    if (first_ == last_) is_lower_ = where == PageGate::Where::lower;
  }

  const std::vector<Row>& rows_;
  const DeviceTasks& tasks_;
  PageGate* pages_;
  Ring* ring_;
  Gpu& gpu_;
  const StepTables& tables_;
  Launch what_;
  StreamHandle stream_;
  Ring::Copied& copied_;
  std::uint64_t first_, last_;      // in the batch
  std::size_t arriving_pages_ = 0;  // a page of several tasks counts with each
  bool is_lower_ = false;
};

}  // namespace

DeviceStep::DeviceStep(std::shared_ptr<Gpu> gpu, DeviceTasks tasks, std::size_t rows, std::size_t groups,
                       const StateRange& paged)
    : gpu_(std::move(gpu)), tasks_(std::move(tasks)), rows_(rows), groups_(groups), paged_(paged) {
  row_table_ = add_table(rows * sizeof(Row));
  hyper_table_ = add_table(groups * sizeof(DeviceHyper));
  part_table_ = add_table(tasks_.parts.size() * sizeof(Part));
  row_partials_table_ = add_table(tasks_.row_partials.size() * sizeof(RowPartials));
  const std::size_t sent_bytes = bytes_;
  work_table_ = add_table(rows * sizeof(RowWork));
  partial_table_ = add_table(tasks_.partial_count * sizeof(Partial));
  if (rows == 0) return;
  sent_.resize(part_table_.begin);
  device_.emplace(*gpu_, Memory::device, bytes_);
  for (std::size_t i = 0; i < kStagings; ++i) stagings_.emplace_back(*gpu_, sent_bytes);
  tables_.rows = in_tables<const Row>(row_table_);
  tables_.hypers = in_tables<const DeviceHyper>(hyper_table_);
  tables_.parts = in_tables<const Part>(part_table_);
  tables_.row_partials = in_tables<const RowPartials>(row_partials_table_);
  tables_.work = in_tables<RowWork>(work_table_);
  tables_.partials = in_tables<Partial>(partial_table_);
}

DeviceStep::~DeviceStep() {
  try {
    for (const Staging& staging : stagings_) gpu_->synchronize(staging.sent);
  } catch (const GpuError&) {  // the context is gone, and what was on it
  }
}

DeviceStep::TableRange DeviceStep::add_table(std::size_t bytes) {
  const TableRange table{bytes_, bytes};
  bytes_ += round_up(bytes, kSlotAlignmentBytes);
  return table;
}

void DeviceStep::upload(const std::vector<Row>& rows, const std::vector<Hyper>& hypers,
                        const DeviceArguments& arguments, StreamHandle stream) {
  if (gpu_->is_capturing(stream))
    throw GpuError("a step cannot be captured into a CUDA graph: pages move and tables change from step to step", 900);
  if (rows.size() != rows_ || hypers.size() != groups_ || arguments.lr.size() > groups_)
    throw std::invalid_argument("rows and groups are not those the step was made for");
  for (std::size_t i = 0; i < rows_; ++i) {
    if (rows[i].grad == nullptr) continue;
    check_row(rows[i], i, hypers);
    if (rows[i].dtype == Dtype::f64) throw std::invalid_argument("float64 parameters are updated on the CPU alone");
  }
  Staging& staging = stagings_[next_staging_];
  gpu_->synchronize(staging.sent);
  std::memcpy(staging.memory.get() + row_table_.begin, rows.data(), row_table_.bytes);
  for (std::size_t i = 0; i < groups_; ++i) {
    const DeviceHyper hyper{hypers[i], i < arguments.lr.size() ? arguments.lr[i] : nullptr};
    std::memset(staging.memory.get() + hyper_table_.begin + i * sizeof hyper, 0,
                sizeof hyper);  // so that padding compares
    new (staging.memory.get() + hyper_table_.begin + i * sizeof hyper) DeviceHyper(hyper);
  }
  if (!has_parts_) {
    std::memcpy(staging.memory.get() + part_table_.begin, tasks_.parts.data(), part_table_.bytes);
    std::memcpy(staging.memory.get() + row_partials_table_.begin, tasks_.row_partials.data(),
                row_partials_table_.bytes);
    send(stream, row_partials_table_.begin + row_partials_table_.bytes);
    has_parts_ = true;
  } else if (std::memcmp(sent_.data() + row_table_.begin, staging.memory.get() + row_table_.begin, row_table_.bytes) !=
             0) {
    send(stream, hyper_table_.begin + hyper_table_.bytes);
  } else if (std::memcmp(sent_.data() + hyper_table_.begin, staging.memory.get() + hyper_table_.begin,
                         hyper_table_.bytes) != 0) {
    gpu_->copy(device_->get() + hyper_table_.begin, staging.memory.get() + hyper_table_.begin, hyper_table_.bytes,
               stream);
  } else {
    return;
  }
  gpu_->record(staging.sent, stream);
  std::memcpy(sent_.data(), staging.memory.get(), hyper_table_.begin + hyper_table_.bytes);
  next_staging_ = (next_staging_ + 1) % kStagings;
}

void DeviceStep::send(StreamHandle stream, std::size_t bytes) {
  gpu_->copy(device_->get(), stagings_[next_staging_].memory.get(), bytes, stream);
}

void DeviceStep::begin(const DeviceArguments& arguments) {
  tables_.found_inf = arguments.found_inf;
  tables_.grad_scale = arguments.scale;
  tables_.host_grad_scale = arguments.grad_scale;
}

// The stages in order. The gradient norms come before the rows' scalars, which everything else needs.
template <class Launch>
void DeviceStep::walk(StreamHandle stream, Launch&& launch) {
  bool begun = false;
  for (const Stage& stage : tasks_.stages) {
    if (stage.launch.pass != Pass::gradient_norm && !begun) {
      gpu_->begin_rows(tables_, 0, static_cast<std::uint32_t>(rows_), stream);
      begun = true;
    }
    launch(stage);
    if (stage.launch.pass == Pass::measure) gpu_->finish_measure(tables_, stage.first_row, stage.last_row, stream);
  }
}

Ring::Copied DeviceStep::run_in_batches(const std::vector<Row>& rows, PageGate* pages, Ring* ring,
                                        const RingMemory& memory, StreamHandle stream) {
  Ring::Copied copied;
  walk(stream, [&](const Stage& stage) {
    if (ring != nullptr) ring->begin(memory, stream);
    Batch batch(rows, tasks_, pages, ring, *gpu_, tables_, stage, stream, copied);
    for (std::uint64_t task = stage.first_task; task < stage.last_task; ++task) batch.add(task);
    batch.launch();
    if (ring != nullptr) ring->finish(stream);
  });
  return copied;
}

Ring::Copied DeviceStep::run(const std::vector<Row>& rows, const std::vector<Hyper>& hypers,
                             const DeviceArguments& arguments, PageGate* pages, const RingMemory& memory,
                             StreamHandle stream) {
  if (rows_ == 0) return {};
  upload(rows, hypers, arguments, stream);
  begin(arguments);
  if (pages == nullptr && memory.begin == nullptr) {
    walk(stream, [&](const Stage& stage) {
      gpu_->run(tables_, stage.launch, tasks_.first_part[stage.first_task], tasks_.first_part[stage.last_task], stream);
    });
    return {};
  }
  if (memory.begin == nullptr) return run_in_batches(rows, pages, nullptr, memory, stream);
  if (!ring_) ring_.emplace(gpu_, paged_);
  try {
    return run_in_batches(rows, pages, &*ring_, memory, stream);
  } catch (...) {
    ring_->abandon(stream);
    throw;
  }
}

}  // namespace pagedopt

#include "device_step.h"

#include <cstring>

#include "sweep.h"

namespace pagedopt {
namespace {

// Tasks of a launch at most: the device begins with these while the pages of the next are looked at (0.2 ms).
constexpr std::uint64_t kMostTasks = 2048;

// Tasks of a stage that are launched together. Their pages are pinned until they are.
class Window {
 public:
  Window(Sweep& sweep, Gpu& gpu, const StepTables& tables, const Stage& stage, StreamHandle stream)
      : sweep_(sweep),
        gpu_(gpu),
        tables_(tables),
        pass_(stage.pass),
        stream_(stream),
        first_(stage.first_task),
        last_(stage.first_task) {}
  ~Window() {  // with tasks in it only after an exception
    for (; first_ < last_; ++first_) sweep_.leave(first_, 0);
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  void add(std::uint64_t task) {
    if (!sweep_.try_enter(task)) {
      launch();  // nothing is held while pages are waited for
      sweep_.enter(task, 0);
    }
    ++last_;
    arriving_pages_ += sweep_.arriving_pages(task);
    if (arriving_pages_ >= DeviceStep::kWindowPages || last_ - first_ >= kMostTasks) launch();
  }

  void launch() {
    if (first_ == last_) return;
    sweep_.enter_on(first_, last_, stream_);
    gpu_.run(tables_, pass_, first_, last_, stream_);
    sweep_.leave_on(first_, last_, stream_);
    first_ = last_;
    arriving_pages_ = 0;
  }

 private:
  Sweep& sweep_;
  Gpu& gpu_;
  const StepTables& tables_;
  Pass pass_;
  StreamHandle stream_;
  std::uint64_t first_, last_;      // in the window
  std::size_t arriving_pages_ = 0;  // a page of several tasks counts with each
};

}  // namespace

DeviceStep::DeviceStep(std::shared_ptr<Gpu> gpu, DeviceTasks tasks, std::size_t rows, std::size_t groups)
    : gpu_(std::move(gpu)), tasks_(std::move(tasks)), rows_(rows), groups_(groups) {
  row_part_ = add_part(rows * sizeof(Row));
  hyper_part_ = add_part(groups * sizeof(DeviceHyper));
  task_part_ = add_part(tasks_.tasks.size() * sizeof(Task));
  place_part_ = add_part(tasks_.row_partials.size() * sizeof(RowPartials));
  const std::size_t sent_bytes = bytes_;
  work_part_ = add_part(rows * sizeof(RowWork));
  partial_part_ = add_part(tasks_.partial_count * sizeof(Partial));
  if (rows == 0) return;
  sent_.resize(task_part_.begin);
  device_ = gpu_->allocate(Memory::device, bytes_);
  for (Staging& staging : stagings_) {
    staging.memory = gpu_->allocate(Memory::pinned, sent_bytes);
    staging.sent = gpu_->make_event(false);
  }
  tables_.rows = reinterpret_cast<const Row*>(device_ + row_part_.begin);
  tables_.hypers = reinterpret_cast<const DeviceHyper*>(device_ + hyper_part_.begin);
  tables_.tasks = reinterpret_cast<const Task*>(device_ + task_part_.begin);
  tables_.row_partials = reinterpret_cast<const RowPartials*>(device_ + place_part_.begin);
  tables_.work = reinterpret_cast<RowWork*>(device_ + work_part_.begin);
  tables_.partials = reinterpret_cast<Partial*>(device_ + partial_part_.begin);
}

DeviceStep::~DeviceStep() {
  for (Staging& staging : stagings_) {
    if (staging.sent != nullptr) gpu_->free_event(staging.sent);
    gpu_->free(Memory::pinned, staging.memory);
  }
  gpu_->free(Memory::device, device_);  // waits for the kernels that read it
}

DeviceStep::Part DeviceStep::add_part(std::size_t bytes) {
  const Part part{bytes_, bytes};
  bytes_ += round_up(bytes, kSlotAlignmentBytes);
  return part;
}

void DeviceStep::upload(const std::vector<Row>& rows, const std::vector<Hyper>& hypers,
                        const DeviceArguments& arguments, StreamHandle stream) {
  if (gpu_->is_capturing(stream))
    throw GpuError("a step cannot be captured into a CUDA graph: pages move and tables change from step to step", 900);
  if (rows.size() != rows_ || hypers.size() != groups_ || arguments.lr.size() > groups_)
    throw std::invalid_argument("rows and groups are not those the step was made for");
  Staging& staging = stagings_[next_staging_];
  gpu_->synchronize(staging.sent);
  std::memcpy(staging.memory + row_part_.begin, rows.data(), row_part_.bytes);
  for (std::size_t i = 0; i < groups_; ++i) {
    const DeviceHyper hyper{hypers[i], i < arguments.lr.size() ? arguments.lr[i] : nullptr};
    std::memset(staging.memory + hyper_part_.begin + i * sizeof hyper, 0, sizeof hyper);  // so that padding compares
    new (staging.memory + hyper_part_.begin + i * sizeof hyper) DeviceHyper(hyper);
  }
  if (!has_tasks_) {
    std::memcpy(staging.memory + task_part_.begin, tasks_.tasks.data(), task_part_.bytes);
    std::memcpy(staging.memory + place_part_.begin, tasks_.row_partials.data(), place_part_.bytes);
    send(stream, place_part_.begin + place_part_.bytes);
    has_tasks_ = true;
  } else if (std::memcmp(sent_.data() + row_part_.begin, staging.memory + row_part_.begin, row_part_.bytes) != 0) {
    send(stream, hyper_part_.begin + hyper_part_.bytes);
  } else if (std::memcmp(sent_.data() + hyper_part_.begin, staging.memory + hyper_part_.begin, hyper_part_.bytes) !=
             0) {
    gpu_->copy(device_ + hyper_part_.begin, staging.memory + hyper_part_.begin, hyper_part_.bytes, stream);
  } else {
    return;
  }
  gpu_->record(staging.sent, stream);
  std::memcpy(sent_.data(), staging.memory, hyper_part_.begin + hyper_part_.bytes);
  next_staging_ = (next_staging_ + 1) % kStagings;
}

void DeviceStep::send(StreamHandle stream, std::size_t bytes) {
  gpu_->copy(device_, stagings_[next_staging_].memory, bytes, stream);
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
    if (stage.pass != Pass::gradient_norm && !begun) {
      gpu_->begin_rows(tables_, 0, static_cast<std::uint32_t>(rows_), stream);
      begun = true;
    }
    launch(stage);
    if (stage.pass == Pass::measure) gpu_->finish_measure(tables_, stage.first_row, stage.last_row, stream);
  }
}

void DeviceStep::run(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const DeviceArguments& arguments,
                     StreamHandle stream) {
  if (rows_ == 0) return;
  upload(rows, hypers, arguments, stream);
  begin(arguments);
  walk(stream, [&](const Stage& stage) { gpu_->run(tables_, stage.pass, stage.first_task, stage.last_task, stream); });
}

void DeviceStep::run(const std::vector<Row>& rows, const std::vector<Hyper>& hypers, const DeviceArguments& arguments,
                     Sweep& sweep, StreamHandle stream) {
  if (rows_ == 0) return;
  upload(rows, hypers, arguments, stream);
  begin(arguments);
  walk(stream, [&](const Stage& stage) {
    Window window(sweep, *gpu_, tables_, stage, stream);
    for (std::uint64_t task = stage.first_task; task < stage.last_task; ++task) window.add(task);
    window.launch();
  });
}

}  // namespace pagedopt

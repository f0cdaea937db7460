#include "sweep/tensor_sweep.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace pagedopt {

// The state of a task is in one extent, or in extents one after another: it is one run of the range.
TensorSweep::TensorSweep(std::shared_ptr<Arena> arena, const std::vector<std::vector<ByteSpan>>& tasks)
    : count_(tasks.size()),
      gate_(std::move(arena), tasks.size(), 1,
            [&](std::size_t task, std::vector<ByteSpan>& spans) { spans = tasks[task]; }) {}

void TensorSweep::step(const std::vector<std::size_t>& tasks, const Update& update, StreamHandle stream) {
  for (std::size_t i = 0; i < tasks.size(); ++i)
    if (tasks[i] >= count_ || (i > 0 && tasks[i] <= tasks[i - 1]))
      throw std::invalid_argument("tasks ascend and are below " + std::to_string(count_));
  gate_.step(1, 0, [&] {
    for (const std::size_t task : tasks) visit(task, update, stream);
    gate_.idle(0);
  });
}

// What update() has put on the stream before it failed may still use the pages, so they are left by the stream.
void TensorSweep::visit(std::size_t task, const Update& update, StreamHandle stream) {
  gate_.enter(task, 0);
  try {
    gate_.enter_on(task, task + 1, stream);
    update(task);
  } catch (...) {
    try {
      gate_.leave_on(task, task + 1, stream);
    } catch (...) {
      gate_.leave(task);
    }
    throw;
  }
  gate_.leave_on(task, task + 1, stream);
}

}  // namespace pagedopt

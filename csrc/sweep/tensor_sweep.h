// A sweep whose update is code of the caller, such as torch's: it runs for one task at a time, while the pages of that
// task are pinned.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "memory/page_gate.h"

namespace pagedopt {

class TensorSweep {
 public:
  using Update = std::function<void(std::size_t task)>;

  // The memory that each task uses, in the order of the step. What is not in the arena is passed over.
  TensorSweep(std::shared_ptr<Arena> arena, const std::vector<std::vector<ByteSpan>>& tasks);

  // Calls update(task) for these tasks, which ascend; the others need not be done. On a GPU, what update() uses pages
  // for is on `stream`; on the host that is null. An exception of update() ends the step, with nothing pinned.
  void step(const std::vector<std::size_t>& tasks, const Update& update, StreamHandle stream);

 private:
  void visit(std::size_t task, const Update& update, StreamHandle stream);

  std::size_t count_;
  PageGate gate_;
};

}  // namespace pagedopt

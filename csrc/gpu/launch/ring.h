// State that stays on the host passes through a ring of windows on the device: what some tasks touch is copied into a
// window, their kernel runs on the copy, and the copy goes back. Copies in, kernels and copies back run beside each
// other, each on a window of its own.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "base/units.h"
#include "gpu/owned.h"

namespace pagedopt {

// The device's memory for it; none: state is used where it is.
struct RingMemory {
  std::byte* begin = nullptr;  // aligned to kSlotAlignmentBytes
  std::size_t bytes = 0;
};

// The range whose state is copied. No copy crosses a multiple of `unit_bytes` from its beginning.
struct StateRange {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
  std::size_t unit_bytes = 0;
};

class Ring {
 public:
  struct Copied {
    std::size_t in_bytes = 0, out_bytes = 0;
  };

  // Paged state is copied in pieces of kSlotAlignmentBytes that belong to one row.
  Ring(std::shared_ptr<Gpu> gpu, const StateRange& paged);
  ~Ring();  // waits for what was put on its streams
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Of a ring whose windows hold so much state, and at least the largest of the tasks.
  static std::size_t bytes_for(const std::vector<Row>& rows, const std::vector<Task>& tasks, std::size_t state_bytes);

  StreamHandle in() const noexcept { return in_; }
  StreamHandle out() const noexcept { return out_; }

  // What is on `compute` so far comes before what is copied from now on.
  void begin(const RingMemory& memory, StreamHandle compute);
  // Of the next window, in order. `is_lower`: its state is to be copied; else none of it is in the range.
  bool has_room(const Row& row, const Task& task) const;
  void add(const Row& row, const Task& task, bool is_lower);
  // Runs the parts of the tasks added, [first, last), and begins the next window. Waits for the copy that the same
  // memory was last used for. Adds to `copied`.
  void run(const StepTables& tables, Launch what, std::uint64_t first, std::uint64_t last, StreamHandle compute,
           Copied& copied);
  // What comes on `compute` from here on finds the state in its place, and the ring's memory unused.
  void finish(StreamHandle compute);
  // The same after an exception; forgets the window that was being filled.
  void abandon(StreamHandle compute) noexcept;

 private:
  static constexpr std::size_t kWindows = 4;  // one is filled, one used, one emptied; the host is one ahead
  // A window begins with its rows: those of 64 KiB of state each, the least that is paged by default, fill 16 MiB.
  static constexpr std::size_t kMostRows = 256;
  static constexpr std::size_t kRowsBytes = round_up(kMostRows * sizeof(Row), kSlotAlignmentBytes);

  struct Window {
    explicit Window(Gpu& gpu)
        : rows(gpu, Memory::pinned, kRowsBytes), filled(gpu, false), used(gpu, false), emptied(gpu, false) {}
    GpuMemory rows;  // from which they are sent
    Event filled, used, emptied;
  };
  bool is_home(const std::byte* begin, const std::byte* end) const noexcept {
    return begin >= paged_.begin && end <= paged_.end;
  }
  bool is_border(const std::byte* at) const noexcept {
    return static_cast<std::size_t>(at - paged_.begin) % paged_.unit_bytes == 0;
  }
  void order(StreamHandle first, StreamHandle then);  // what comes on `then` waits for what is on `first`
  std::vector<Copy> place(std::byte* to);             // the copies in
  void forget() noexcept;

  std::shared_ptr<Gpu> gpu_;
  StateRange paged_;
  Stream in_, out_;
  Event between_;  // streams
  std::array<Window, kWindows> windows_;
  std::byte* memory_ = nullptr;
  std::size_t window_bytes_ = 0;
  std::size_t next_ = 0;  // of the windows

  std::vector<Row> rows_;  // of the window being filled: the first task's row and those after it
  std::vector<Task> far_;  // what of them is copied, as one task a row
  std::uint32_t first_row_ = 0;
  std::size_t bytes_ = 0;  // of what is copied
};

}  // namespace pagedopt

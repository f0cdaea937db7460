#include "gpu/launch/ring.h"

#include <algorithm>
#include <cstring>

namespace pagedopt {
namespace {

// A row's state in a task, each array to the end of its alignment, which is the row's as well. Not the absmax of a
// whole tensor: all tasks of the row share it, and the update does not write it.
template <class Visit>
void for_state(const Row& row, const Task& task, Visit visit) {
  Span spans[2 * kMostSlots];
  const std::size_t count = spans_of(row, task, spans);
  for (std::size_t i = 0; i < count; ++i) {
    Span& span = spans[i];
    if (span.is_absmax && row.codec == Codec::tensorwise8) continue;
    span.end = span.begin + round_up(static_cast<std::size_t>(span.end - span.begin), kSlotAlignmentBytes);
    visit(span);
  }
}

std::size_t state_bytes(const Row& row, const Task& task) {
  std::size_t bytes = 0;
  for_state(row, task, [&](const Span& span) { bytes += static_cast<std::size_t>(span.end - span.begin); });
  return bytes;
}

std::vector<Copy> back(std::vector<Copy> copies) {
  for (Copy& copy : copies) copy = {const_cast<void*>(copy.from), copy.to, copy.bytes};
  return copies;
}

// Moves the row's address of the span's array.
void shift(Row& row, const Span& span, std::ptrdiff_t bytes) {
  if (span.is_absmax)
    row.absmax[span.slot] += bytes / static_cast<std::ptrdiff_t>(sizeof(float));
  else
    row.slot[span.slot] = static_cast<std::byte*>(row.slot[span.slot]) + bytes;
}

}  // namespace

Ring::Ring(std::shared_ptr<Gpu> gpu, const StateRange& paged)
    : gpu_(std::move(gpu)),
      paged_(paged),
      in_(*gpu_),
      out_(*gpu_),
      between_(*gpu_, false),
      windows_{Window(*gpu_), Window(*gpu_), Window(*gpu_), Window(*gpu_)} {}

Ring::~Ring() {
  try {
    order(in_, out_);
    gpu_->record(between_, out_);
    gpu_->synchronize(between_);
  } catch (const GpuError&) {  // the context is gone, and what was on it
  }
}

void Ring::order(StreamHandle first, StreamHandle then) {
  gpu_->record(between_, first);
  gpu_->wait(between_, then);
}

std::size_t Ring::bytes_for(const std::vector<Row>& rows, const std::vector<Task>& tasks, std::size_t bytes) {
  for (const Task& task : tasks) bytes = std::max(bytes, state_bytes(rows[task.row], task));
  return kWindows * (kRowsBytes + round_up(bytes, kSlotAlignmentBytes));
}

void Ring::begin(const RingMemory& memory, StreamHandle compute) {
  memory_ = memory.begin;
  window_bytes_ = memory.bytes / kWindows / kSlotAlignmentBytes * kSlotAlignmentBytes;
  order(compute, in_);
}

bool Ring::has_room(const Row& row, const Task& task) const {
  return rows_.empty() ||
         (task.row - first_row_ < kMostRows && kRowsBytes + bytes_ + state_bytes(row, task) <= window_bytes_);
}

void Ring::add(const Row& row, const Task& task, bool is_lower) {
  if (rows_.empty()) first_row_ = task.row;
  rows_.resize(task.row - first_row_ + 1);
  rows_.back() = row;
  if (!is_lower) return;
  bytes_ += state_bytes(row, task);
  if (!far_.empty() && far_.back().row == task.row)
    far_.back().last = task.last;
  else
    far_.push_back(task);
}

// Lays the window's state out from `to`, neighbours side by side, and lets its rows point there.
std::vector<Copy> Ring::place(std::byte* to) {
  struct Piece {
    Span span;
    Row* row;
  };
  std::vector<Piece> pieces;
  for (const Task& task : far_) {
    Row* const row = &rows_[task.row - first_row_];
    for_state(*row, task, [&](const Span& span) {
      if (is_home(span.begin, span.end)) pieces.push_back({span, row});
    });
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.span.begin < b.span.begin; });
  std::vector<Copy> copies;
  const std::byte* end = nullptr;  // of the last copy
  const auto add = [&](const std::byte* source, std::size_t bytes) {
    if (source == end && !is_border(source))
      copies.back().bytes += bytes;
    else
      copies.push_back({to, source, bytes});
    end = source + bytes;
    to += bytes;
  };
  for (const auto& [span, row] : pieces) {
    shift(*row, span, to - span.begin);
    for (std::byte* from = span.begin; from < span.end;) {
      const std::size_t inside = static_cast<std::size_t>(from - paged_.begin) % paged_.unit_bytes;
      const std::size_t bytes = std::min<std::size_t>(span.end - from, paged_.unit_bytes - inside);
      add(from, bytes);
      from += bytes;
    }
  }
  return copies;
}

void Ring::run(const StepTables& tables, Launch what, std::uint64_t first, std::uint64_t last, StreamHandle compute,
               Copied& copied) {
  if (kRowsBytes + bytes_ > window_bytes_) throw std::invalid_argument("a task does not fit a window of the ring");
  Window& window = windows_[next_];
  std::byte* const memory = memory_ + next_ * window_bytes_;
  next_ = (next_ + 1) % kWindows;
  const std::vector<Copy> copies = place(memory + kRowsBytes);
  gpu_->synchronize(window.filled);
  std::memcpy(window.rows.get(), rows_.data(), rows_.size() * sizeof(Row));

  gpu_->wait(window.emptied, in_);
  gpu_->copy(memory, window.rows.get(), rows_.size() * sizeof(Row), in_);
  gpu_->copy_state(copies, Place::device, in_);
  gpu_->record(window.filled, in_);

  StepTables moved = tables;
  moved.rows = reinterpret_cast<const Row*>(memory) - first_row_;
  gpu_->wait(window.filled, compute);
  gpu_->run(moved, what, first, last, compute);
  gpu_->record(window.used, compute);

  gpu_->wait(window.used, out_);
  if (what.pass == Pass::update) gpu_->copy_state(back(copies), Place::host, out_);
  gpu_->record(window.emptied, out_);

  copied.in_bytes += bytes_;
  copied.out_bytes += what.pass == Pass::update ? bytes_ : 0;
  forget();
}

// What is on `in` has been waited for by kernels, and they by what is on `out`.
void Ring::finish(StreamHandle compute) { order(out_, compute); }

void Ring::abandon(StreamHandle compute) noexcept {
  forget();
  try {
    order(in_, compute);
    order(out_, compute);
  } catch (const GpuError&) {  // the context is gone, and what was on it
  }
}

void Ring::forget() noexcept {
  rows_.clear();
  far_.clear();
  bytes_ = 0;
}

}  // namespace pagedopt

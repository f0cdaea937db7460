#include "ptx_warp.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ptx {
namespace {

constexpr std::uint64_t kMostSteps = std::uint64_t{1} << 22;  // from barrier to barrier: a loop that does not end
// In an order that is drawn, on average:
constexpr unsigned kRun = 64;            // instructions until others may go first
constexpr unsigned kChoicesToPart = 16;  // choices of who goes first until lanes part
constexpr std::uint64_t kNull = 4096;    // no memory is below

template <class F>
void for_lanes(std::uint32_t lanes, F f) {
  for (; lanes != 0; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}

// Copies of a number of 1, 2, 4 or 8 bytes; in registers it comes first.
template <class T>
void copy_as(const void* from, void* to) {
  std::memcpy(to, from, sizeof(T));
}
void copy_number(const void* from, void* to, int bytes) {
  switch (bytes) {
    case 1: return copy_as<std::uint8_t>(from, to);
    case 2: return copy_as<std::uint16_t>(from, to);
    case 4: return copy_as<std::uint32_t>(from, to);
    default: return copy_as<std::uint64_t>(from, to);
  }
}

std::uint64_t sign_extended(std::uint64_t value, int bytes) {
  const int unused = 64 - 8 * bytes;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
}

}  // namespace

Warp::Warp(const Kernel& kernel, int index) : kernel_(kernel), index_(index), registers_(kernel.registers) {
  for (const Constant& constant : kernel.constants) registers_[constant.reg].fill(constant.value);
  for (int lane = 0; lane < kLanes; ++lane) registers_[Kernel::kThread][lane] = index * kLanes + lane;
}

void Warp::begin(std::uint32_t cta) {
  registers_[Kernel::kCta].fill(cta);
  live_ = kAllLanes, called_ = 0;
  groups_ = {{0, kAllLanes}};
}

void Warp::fail(const Instruction& x, std::uint32_t lanes, const std::string& why) const {
  throw Fault(kernel_.name + ", warp " + std::to_string(index_) + ", lane " + std::to_string(__builtin_ctz(lanes)) +
              ", line " + std::to_string(x.line) + " of the PTX: " + why + ": " + x.text);
}

// ---- who runs next ----

void Warp::run(Cta& cta) {
  Group group;
  for (std::uint64_t steps = 0; choose(cta, group); ++steps) {
    if (steps == kMostSteps) fail(kernel_.code[group.at], group.lanes, "a loop does not end");
    step(group, cta);
  }
}

// Takes a group that can go on; false at the end, and at a barrier.
bool Warp::choose(Cta& cta, Group& chosen) {
  const std::size_t count = groups_.size();
  const std::size_t first = cta.order && count > 1 ? (*cta.order)() % count : 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = (first + i) % count;
    if (!is_ready(groups_[at])) continue;
    chosen = groups_[at];
    if (cta.order) part(chosen, *cta.order);
    groups_[at].lanes &= ~chosen.lanes;
    if (groups_[at].lanes == 0) groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(at));
    return true;
  }
  if (count == 0) return false;
  const Instruction& x = kernel_.code[groups_[0].at];
  if (count > 1) fail(x, groups_[0].lanes, "lanes wait for each other in different places");
  if (live_ != kAllLanes) fail(x, live_, "a barrier that other lanes have ended without");
  return false;
}

// Now and then some lanes go ahead of the others: a GPU may part them anywhere but where they do something together.
void Warp::part(Group& group, std::mt19937& order) const {
  if (kernel_.code[group.at].does >= Does::call || order() % kChoicesToPart != 0) return;
  const std::uint32_t ahead = group.lanes & static_cast<std::uint32_t>(order());
  if (ahead != 0) group.lanes = ahead;
}

bool Warp::is_ready(const Group& group) const {
  const Instruction& x = kernel_.code[group.at];
  if (x.does < Does::barrier) return true;
  if (x.does == Does::barrier) return false;
  const Register& masks = registers_[x.from.back()];
  const auto mask = static_cast<std::uint32_t>(masks[__builtin_ctz(group.lanes)]);
  for_lanes(group.lanes, [&](int lane) {
    if (static_cast<std::uint32_t>(masks[lane]) != mask) fail(x, 1u << lane, "its mask is not that of other lanes");
  });
  if ((mask & ~live_) != 0) fail(x, mask & ~live_, "the mask names a lane that has ended");
  if ((group.lanes & ~mask) != 0) fail(x, group.lanes & ~mask, "the mask lacks a lane that is here");
  return group.lanes == mask;
}

void Warp::put(const Group& group) {
  if (group.lanes == 0) return;
  const auto place = std::lower_bound(groups_.begin(), groups_.end(), group,
                                      [](const Group& one, const Group& other) { return one.at < other.at; });
  if (place != groups_.end() && place->at == group.at)
    place->lanes |= group.lanes;
  else
    groups_.insert(place, group);
}

// ---- instructions ----

// One instruction, and those that follow it without a choice.
void Warp::step(Group group, Cta& cta) {
  for (;;) {
    const Instruction& x = kernel_.code[group.at];
    const std::uint32_t active = active_of(x, group.lanes), others = group.lanes & ~active;
    ++cta.executed[group.at];
    if (x.does == Does::branch || x.does == Does::call) {
      if (x.does == Does::call) {
        if ((called_ & active) != 0) fail(x, active, "a call in a function is not known");
        called_ |= active;
        for_lanes(active, [&](int lane) { back_[lane] = group.at + 1; });
      }
      put({x.target, active});
      return put({group.at + 1, others});
    }
    if (x.does == Does::leave || x.does == Does::end) {
      x.does == Does::leave ? leave(active) : void(live_ &= ~active);
      return put({group.at + 1, others});
    }
    perform(x, active, cta);
    ++group.at;
    const bool others_first =
        cta.order ? (*cta.order)() % kRun == 0 : !groups_.empty() && groups_.front().at <= group.at;
    if (kernel_.code[group.at].does >= Does::branch || others_first) return put(group);
  }
}

std::uint32_t Warp::active_of(const Instruction& x, std::uint32_t lanes) const {
  if (!x.has_guard) return lanes;
  std::uint32_t active = 0;
  const Register& guard = registers_[x.guard];
  for (int lane = 0; lane < kLanes; ++lane) active |= static_cast<std::uint32_t>(guard[lane] & 1) << lane;
  return lanes & (x.guard_value ? active : ~active);
}

void Warp::leave(std::uint32_t lanes) {
  live_ &= ~(lanes & ~called_);
  const std::uint32_t back = lanes & called_;
  called_ &= ~lanes;
  for_lanes(back, [&](int lane) { put({back_[lane], 1u << lane}); });
}

void Warp::perform(const Instruction& x, std::uint32_t active, Cta& cta) {
  if (active == 0) return;
  switch (x.does) {
    case Does::compute: return compute(x, active);
    case Does::load:
    case Does::store: return access(x, active, cta);
    case Does::load_parameter: return load_parameter(x, active, cta);
    case Does::shuffle: return shuffle(x, active);
    case Does::reduce: return reduce(x, active);
    default: return;  // sync_warp: they are here
  }
}

void Warp::compute(const Instruction& x, std::uint32_t active) {
  constexpr std::size_t kMost = 8;
  std::uint64_t* to[kMost];
  const std::uint64_t* from[kMost];
  for (std::size_t i = 0; i < x.to.size(); ++i) to[i] = registers_[x.to[i]].data();
  for (std::size_t i = 0; i < x.from.size(); ++i) from[i] = registers_[x.from[i]].data();
  x.compute.run(to, from, active);
}

void Warp::access(const Instruction& x, std::uint32_t active, Cta& cta) {
  const bool loads = x.does == Does::load;
  const std::size_t width = loads ? x.to.size() : x.from.size() - 1, bytes = x.bytes * width;
  std::uint64_t addresses[kLanes];
  for_lanes(active, [&](int lane) {
    const std::uint64_t at = addresses[lane] = registers_[x.from[0]][lane] + static_cast<std::uint64_t>(x.offset);
    std::byte* memory = memory_at(x, at, bytes, lane, cta);
    for (std::size_t i = 0; i < width; ++i, memory += x.bytes) {
      if (loads) {
        std::uint64_t value = 0;
        copy_number(memory, &value, x.bytes);
        registers_[x.to[i]][lane] = x.is_signed ? sign_extended(value, x.bytes) : value;
      } else {
        copy_number(&registers_[x.from[i + 1]][lane], memory, x.bytes);
      }
    }
  });
  if (cta.counts == nullptr) return;
  if (x.space == Space::global)
    (loads ? cta.counts->load_sectors : cta.counts->store_sectors) += sectors_of(addresses, active);
  else
    (loads ? cta.counts->load_wavefronts : cta.counts->store_wavefronts) += wavefronts_of(addresses, bytes, active);
}

std::byte* Warp::memory_at(const Instruction& x, std::uint64_t at, std::size_t bytes, int lane, Cta& cta) {
  if (at % bytes != 0) fail(x, 1u << lane, "not aligned to " + std::to_string(bytes) + " bytes");
  if (x.space == Space::global) {
    if (at < kNull) fail(x, 1u << lane, "a null address");
    return reinterpret_cast<std::byte*>(at);
  }
  const char* const wrong =
      x.does == Does::load ? cta.shared.mark_load(at, bytes, index_) : cta.shared.mark_store(at, bytes, index_);
  if (wrong != nullptr) fail(x, 1u << lane, wrong);
  return cta.shared.at(at);
}

void Warp::load_parameter(const Instruction& x, std::uint32_t active, const Cta& cta) {
  for (std::size_t i = 0; i < x.to.size(); ++i) {
    std::uint64_t value = 0;
    copy_number(cta.parameters.data() + x.offset + i * x.bytes, &value, x.bytes);
    if (x.is_signed) value = sign_extended(value, x.bytes);
    for_lanes(active, [&](int lane) { registers_[x.to[i]][lane] = value; });
  }
}

void Warp::shuffle(const Instruction& x, std::uint32_t active) {
  const Register values = registers_[x.from[0]], distances = registers_[x.from[1]];
  for_lanes(active, [&](int lane) {
    if (static_cast<std::uint32_t>(registers_[x.from[2]][lane]) != kLanes - 1)
      fail(x, 1u << lane, "a shuffle among some lanes is not known");
    const int other = lane ^ static_cast<int>(distances[lane] & (kLanes - 1));
    if ((active >> other & 1) == 0) fail(x, 1u << lane, "a value of a lane that is not here");
    registers_[x.to[0]][lane] = values[other];
    if (x.to.size() > 1) registers_[x.to[1]][lane] = 1;
  });
}

void Warp::reduce(const Instruction& x, std::uint32_t active) {
  std::uint32_t most = 0;
  for_lanes(active, [&](int lane) { most = std::max(most, static_cast<std::uint32_t>(registers_[x.from[0]][lane])); });
  for_lanes(active, [&](int lane) { registers_[x.to[0]][lane] = most; });
}

// ---- CTAs ----

Grid::Grid(const Kernel& kernel, unsigned threads, std::optional<unsigned> order, bool counts_accesses)
    : kernel_(kernel), cta_(kernel) {
  if (threads % kLanes != 0) throw Fault(kernel.name + ": a CTA of " + std::to_string(threads) + " threads");
  for (unsigned i = 0; i < threads / kLanes; ++i) warps_.emplace_back(kernel, static_cast<int>(i));
  cta_.parameters.resize(kernel.parameter_bytes);
  if (order) cta_.order.emplace(*order);
  if (counts_accesses) cta_.counts = &counts_;
}

void Grid::run(unsigned ctas, void* const* arguments) {
  for (std::size_t i = 0; i < kernel_.parameters.size(); ++i)
    std::memcpy(cta_.parameters.data() + kernel_.parameter_offsets[i], arguments[i], kernel_.parameters[i].bytes);
  for (unsigned i = 0; i < ctas; ++i) run_cta(i);
}

void Grid::run_cta(std::uint32_t index) {
  cta_.shared.begin_cta();
  for (Warp& warp : warps_) warp.begin(index);
  for (;;) {
    const std::size_t first = cta_.order ? (*cta_.order)() % warps_.size() : 0;
    for (std::size_t i = 0; i < warps_.size(); ++i) warps_[(first + i) % warps_.size()].run(cta_);
    if (std::all_of(warps_.begin(), warps_.end(), [](const Warp& warp) { return warp.has_ended(); })) return;
    pass_barrier();
  }
}

void Grid::pass_barrier() {
  const auto waiting = std::find_if(warps_.begin(), warps_.end(), [](const Warp& warp) { return !warp.has_ended(); });
  for (const Warp& warp : warps_) {
    if (warp.has_ended()) waiting->fail(waiting->barrier(), kAllLanes, "a barrier that other warps have ended without");
    if (&warp.barrier() != &waiting->barrier())
      warp.fail(warp.barrier(), kAllLanes, "another warp is at another barrier");
  }
  for (Warp& warp : warps_) warp.pass_barrier();
  cta_.shared.pass_barrier();
}

Counts Grid::take_counts() {
  for (std::size_t i = 0; i < cta_.executed.size(); ++i)
    if (cta_.executed[i] > 0) counts_.instructions[kernel_.code[i].name] += std::exchange(cta_.executed[i], 0);
  return std::exchange(counts_, {});
}

}  // namespace ptx

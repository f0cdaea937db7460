// Registration of arenas and extents.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "gpu/vm_device.h"
#include "memory/arena.h"
#include "python/arguments.h"
#include "python/tensors.h"
#include "python/unlocked.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pagedopt {
namespace {

DirectIo direct_io_of(const std::string& name) {
  return choose<DirectIo>("direct_io", name,
                          {{"auto", DirectIo::automatic}, {"on", DirectIo::on}, {"off", DirectIo::off}});
}

WatchWrites watch_writes_of(const std::string& name) {
  return choose<WatchWrites>("watch_writes", name,
                             {{"auto", WatchWrites::automatic}, {"on", WatchWrites::on}, {"off", WatchWrites::off}});
}

// A part of an extent with the buffer protocol; it keeps the extent alive.
struct View {
  std::shared_ptr<Extent> extent;
  std::byte* begin;
  std::size_t bytes;
};

View view_of(const std::shared_ptr<Extent>& extent, std::size_t offset, std::size_t bytes) {
  if (offset + bytes > extent->bytes() || offset + bytes < offset)
    throw std::out_of_range("the view leaves its extent");
  return {extent, extent->data() + offset, bytes};
}

struct DeviceView : View {};

template <class T>
std::vector<T> copy_of(const py::buffer& buffer) {
  const py::buffer_info info = buffer.request();
  if (info.itemsize != sizeof(T) || info.ndim != 1 || info.strides[0] != static_cast<py::ssize_t>(sizeof(T)))
    throw std::invalid_argument("a plan's columns are contiguous one-dimensional arrays: uint8, int64, int64, uint8");
  const T* data = static_cast<const T*>(info.ptr);
  return std::vector<T>(data, data + info.size);
}

std::vector<Move> moves_of(const py::buffer& kind, const py::buffer& page, const py::buffer& after,
                           const py::buffer& reason) {
  const auto kinds = copy_of<std::uint8_t>(kind), reasons = copy_of<std::uint8_t>(reason);
  const auto pages = copy_of<std::int64_t>(page), afters = copy_of<std::int64_t>(after);
  if (pages.size() != kinds.size() || afters.size() != kinds.size() || reasons.size() != kinds.size())
    throw std::invalid_argument("a plan's columns differ in length");
  std::vector<Move> moves(kinds.size());
  for (std::size_t i = 0; i < moves.size(); ++i) {
    if (kinds[i] > 1 || reasons[i] > 3 || pages[i] < 0)
      throw std::invalid_argument("move " + std::to_string(i) + " of the plan is none");
    moves[i] = {static_cast<MoveKind>(kinds[i]), static_cast<Reason>(reasons[i]), static_cast<PageIndex>(pages[i]),
                afters[i]};
  }
  return moves;
}

std::tuple<std::byte*, const std::byte*, std::size_t> copy_between(const py::object& target, const py::object& source) {
  TensorFacts to, from;
  if (!read_tensor(target, to) || !read_tensor(source, from))
    throw std::invalid_argument("target and source are tensors with memory");
  if (!to.is_contiguous() || !from.is_contiguous() || from.device.type != kCpu || !(to.element == from.element) ||
      to.numel() != from.numel())
    throw std::invalid_argument("the target is " + to.text() + ", the source " + from.text() +
                                "; both are contiguous, alike, and the source on the CPU");
  return {to.data, from.data, static_cast<std::size_t>(to.bytes())};
}

py::dict ledger_dict(Arena& arena) {
  Ledger sums;
  {
    const Unlocked release;
    sums = arena.ledger();
  }
  return py::dict("page_bytes"_a = sums.page_bytes, "reserved_pages"_a = sums.reserved_pages,
                  "allocated_pages"_a = sums.allocated_pages, "upper_pages"_a = sums.upper_pages,
                  "lower_pages"_a = sums.lower_pages, "fresh_pages"_a = sums.fresh_pages,
                  "kept_pages"_a = sums.kept_pages, "lower_file_bytes"_a = sums.lower_file_bytes,
                  "extents"_a = sums.extents, "extent_bytes"_a = sums.extent_bytes,
                  "queued_moves"_a = sums.queued_moves, "cycles"_a = sums.cycles, "moments"_a = sums.moments,
                  "visited_pages"_a = sums.visits.visited_pages, "arrived_pages"_a = sums.visits.arrived_pages);
}

void bind_extent(py::module_& m) {
  py::class_<View, std::shared_ptr<View>>(m, "View", py::buffer_protocol()).def_buffer([](View& view) {
    return py::buffer_info(view.begin, 1, py::format_descriptor<std::uint8_t>::format(), 1, {view.bytes}, {1});
  });
  py::class_<DeviceView, std::shared_ptr<DeviceView>>(m, "DeviceView")
      .def_property_readonly("__cuda_array_interface__", [](const DeviceView& view) {
        return py::dict("shape"_a = py::make_tuple(view.bytes), "typestr"_a = "|u1", "version"_a = 3,
                        "strides"_a = py::none(),
                        "data"_a = py::make_tuple(reinterpret_cast<std::uintptr_t>(view.begin), false));
      });
  py::class_<Extent, std::shared_ptr<Extent>>(m, "Extent")
      .def_property_readonly("address",
                             [](const Extent& extent) { return reinterpret_cast<std::uintptr_t>(extent.data()); })
      .def_property_readonly("nbytes", &Extent::bytes)
      .def(
          "view",
          [](const std::shared_ptr<Extent>& extent, std::size_t offset, std::size_t nbytes) {
            return std::make_shared<View>(view_of(extent, offset, nbytes));
          },
          "offset"_a, "nbytes"_a, "A writable buffer over part of the extent; it keeps the extent alive.")
      .def(
          "device_view",
          [](const std::shared_ptr<Extent>& extent, std::size_t offset, std::size_t nbytes) {
            return std::make_shared<DeviceView>(DeviceView{view_of(extent, offset, nbytes)});
          },
          "offset"_a, "nbytes"_a, "The same as bytes of a GPU, by `__cuda_array_interface__`.");
}

py::bytes numbers(const std::vector<PageIndex>& pages) {
  const std::vector<std::int64_t> wide(pages.begin(), pages.end());
  return py::bytes(reinterpret_cast<const char*>(wide.data()), wide.size() * sizeof(std::int64_t));
}

py::bytes bytes_of(const std::vector<Tier>& tiers) {
  return py::bytes(reinterpret_cast<const char*>(tiers.data()), tiers.size());
}

void bind_plan_input(py::module_& m) {
  py::class_<PlanInput>(m, "PlanInput")
      .def_property_readonly("generation", [](const PlanInput& seen) { return seen.order.generation; })
      .def_property_readonly("cycle", [](const PlanInput& seen) { return seen.order.cycle; })
      .def_property_readonly("cursor", [](const PlanInput& seen) { return seen.order.cursor; })
      .def_property_readonly("held_pages", [](const PlanInput& seen) { return seen.order.held_pages; })
      .def_property_readonly(
          "pages", [](const PlanInput& seen) { return numbers(seen.order.pages); },
          "Page numbers in order of first use, int64, as bytes.")
      .def_property_readonly(
          "idle", [](const PlanInput& seen) { return numbers(seen.idle); },
          "Pages in the upper tier that are free to leave and that no step is expected to use, likewise.")
      .def_property_readonly(
          "tiers", [](const PlanInput& seen) { return bytes_of(seen.tiers); }, "As `Arena.residency`.")
      .def_readonly("kept_pages", &PlanInput::kept_pages, "In the upper tier, neither in the order nor idle.")
      .def_readonly("budget_pages", &PlanInput::budget_pages);
}

void bind_arena_class(py::module_& m) {
  using unlocked = py::call_guard<Unlocked>;
  py::class_<Arena, std::shared_ptr<Arena>>(m, "Arena")
      .def(py::init([](std::size_t page_bytes, std::size_t reserve_bytes, std::string spill_dir,
                       const std::string& direct_io, const std::string& watch_writes) {
             return std::make_shared<Arena>(make_host_vm(page_bytes, reserve_bytes, std::move(spill_dir),
                                                         direct_io_of(direct_io), watch_writes_of(watch_writes)));
           }),
           py::kw_only(), "page_bytes"_a, "reserve_bytes"_a, "spill_dir"_a, "direct_io"_a = "auto",
           "watch_writes"_a = "auto")
      .def_static(
          "on_gpu",
          [](std::shared_ptr<Gpu> gpu, std::size_t page_bytes, std::size_t reserve_bytes, bool direct) {
            return std::make_shared<Arena>(make_device_vm(std::move(gpu), page_bytes, reserve_bytes, direct));
          },
          "gpu"_a, py::kw_only(), "page_bytes"_a, "reserve_bytes"_a, "direct"_a = true, unlocked(),
          "An arena of a GPU's managed memory. `direct`: the device maps what is on the host, instead of faulting it "
          "in.")
      .def_property_readonly("can_move", [](Arena& arena) { return arena.vm().can_move(); })
      .def_property_readonly("base", [](const Arena& arena) { return reinterpret_cast<std::uintptr_t>(arena.base()); })
      .def_property_readonly("page_bytes", &Arena::page_bytes)
      .def_property_readonly("reserved_bytes", &Arena::reserved_bytes)
      .def("refuse_in_fork", &Arena::refuse_in_fork)
      .def_property("budget_pages", &Arena::budget_pages,
                    [](Arena& arena, std::optional<std::uint64_t> pages) { arena.set_budget_pages(pages); })
      .def("set_budget_pages", &Arena::set_budget_pages, "pages"_a, py::kw_only(), "announce"_a, unlocked(),
           "Whether that changed the budget. `announce`: then the pager wakes; one that plans next anyway need not.")
      .def_property(
          "evict_way",
          [](Arena& arena) {
            const EvictWay way = arena.evict_way();
            return py::make_tuple(way.pages_at_once, way.threads);
          },
          [](Arena& arena, const std::pair<std::size_t, unsigned>& way) {
            if (way.first < 1 || way.second < 1)
              throw std::invalid_argument("a way to evict is (pages >= 1, threads >= 1)");
            arena.set_evict_way({way.first, way.second});
          },
          "On a GPU: pages that one call moves to the host, and threads that make such calls from the next plan on.")
      .def("allocate", &Arena::allocate, "nbytes"_a, "keep"_a = false, unlocked())
      .def(
          "owns",
          [](const Arena& arena, std::uintptr_t address, std::size_t nbytes) {
            return arena.owns(pointer<std::byte>(address), pointer<std::byte>(address) + nbytes);
          },
          "address"_a, "nbytes"_a)
      .def(
          "check_readable",
          [](Arena& arena, std::uintptr_t address, std::size_t nbytes) {
            if (!arena.owns(pointer<std::byte>(address), pointer<std::byte>(address) + nbytes))
              throw std::out_of_range("not in the arena");
            arena.check_readable(pointer<const std::byte>(address), nbytes);
          },
          "address"_a, "nbytes"_a, unlocked(),
          "Raises VmError, which says how much is lost, where not all of the range can be read: a use would raise "
          "SIGBUS.")
      .def(
          "write",
          [](Arena& arena, const py::object& target, const py::object& source) {
            const auto [to, from, nbytes] = copy_between(target, source);
            if (!arena.owns(to, to + nbytes)) throw std::out_of_range("not in the arena");
            const Unlocked release;
            arena.write(to, from, nbytes);
          },
          "target"_a, "source"_a, "Copies a contiguous tensor of the CPU over one in the arena, of as many bytes.")
      .def(
          "prefetch",
          [](Arena& arena, std::uintptr_t address, std::size_t nbytes) {
            if (!arena.owns(pointer<std::byte>(address), pointer<std::byte>(address) + nbytes))
              throw std::out_of_range("not in the arena");
            return arena.prefetch(pointer<std::byte>(address), nbytes);
          },
          "address"_a, "nbytes"_a, unlocked())
      .def(
          "evict",
          [](Arena& arena, std::uintptr_t address, std::size_t nbytes) {
            if (!arena.owns(pointer<std::byte>(address), pointer<std::byte>(address) + nbytes))
              throw std::out_of_range("not in the arena");
            return arena.evict(pointer<std::byte>(address), nbytes);
          },
          "address"_a, "nbytes"_a, unlocked())
      .def("counters",
           [](Arena& arena) {
             py::dict dict;
             arena.counters().each(
                 [&](const char* name, const char*, const char*, std::uint64_t value) { dict[name] = value; });
             return dict;
           })
      .def("ledger", &ledger_dict)
      .def(
          "residency",
          [](Arena& arena) {
            std::vector<Tier> tiers;
            {
              const Unlocked release;
              tiers = arena.tiers();
            }
            return bytes_of(tiers);
          },
          "The tier of every page, one byte each: 0 fresh, 1 upper, 2 lower.")
      .def("measure",
           [](Arena& arena) {
             Measured measured;
             {
               const Unlocked release;
               measured = arena.measure();
             }
             return py::dict("upper_bytes"_a = measured.upper_bytes, "cache_bytes"_a = measured.cache_bytes);
           })
      .def(
          "set_tracing", [](Arena& arena, bool on) { arena.trace().set(on); }, "on"_a, unlocked())
      .def(
          "take_trace",
          [](Arena& arena) {
            Trace::Taken taken;
            {
              const Unlocked release;
              taken = arena.trace().take();
            }
            const char* bytes = reinterpret_cast<const char*>(taken.events.data());
            return py::make_tuple(py::bytes(bytes, taken.events.size() * sizeof(TraceEvent)), taken.lost);
          },
          "Recorded events, packed as TraceEvent of trace.h, and how many found no room since the trace began.")
      .def("is_valid", &Arena::is_valid, unlocked())
      .def("fault", &Arena::fault, unlocked(), "Which invariant does not hold; empty if all do.")
      .def(
          "wait",
          [](Arena& arena, std::uint64_t seen, double timeout_s) {
            return arena.wait(seen, std::chrono::nanoseconds(static_cast<std::int64_t>(timeout_s * 1e9)));
          },
          "seen"_a, "timeout_s"_a, unlocked())
      .def("look", &Arena::look, unlocked(), "What a plan is made from, all of one moment.")
      .def(
          "submit",
          [](Arena& arena, std::uint64_t generation, std::uint64_t cycle, const py::buffer& kind,
             const py::buffer& page, const py::buffer& after, const py::buffer& reason) {
            const std::vector<Move> moves = moves_of(kind, page, after, reason);
            const Unlocked release;
            return arena.submit(generation, cycle, moves);
          },
          "generation"_a, "cycle"_a, "kind"_a, "page"_a, "after"_a, "reason"_a)
      .def("notify", &Arena::notify, unlocked())
      .def("pass_moment", &Arena::pass_moment, unlocked(),
           "A moment of the iteration is past: the pager looks at the memory.")
      .def("attach", &Arena::attach, unlocked())
      .def("detach", &Arena::detach, unlocked())
      .def("release_all", &Arena::release_all, unlocked(), "Evicts all pages; returns how many left.")
      .def("restore_all", &Arena::restore_all, unlocked(), "They come back, ahead of the steps that are expected.")
      .def("hold", &Arena::hold, unlocked(), "Waits for the moves under way; no page moves until `let_go`.")
      .def("let_go", &Arena::let_go, unlocked())
      .def_property_readonly("watches_writes", &Arena::watches_writes,
                             "Whether a write to state counts whoever makes it, and when; else only within `hold`.")
      .def_property_readonly("failure", &Arena::failure);
}

// (name, unit, meaning) of every counter.
py::list counter_table() {
  py::list table;
  Counters{}.each([&](const char* name, const char* unit, const char* meaning, std::uint64_t) {
    table.append(py::make_tuple(name, unit, meaning));
  });
  return table;
}

}  // namespace

void bind_arena(py::module_& m) {
  bind_extent(m);
  bind_plan_input(m);
  bind_arena_class(m);
  m.attr("COUNTERS") = counter_table();
}

}  // namespace pagedopt

// Locked host memory in the place of managed memory, on a simulated CUDA runtime: what is locked and when, who can
// reach it, and that nothing in it is asked to move. Prints the first thing that is wrong and exits with 1.
//   locked_vm_test [name of one group]
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "cuda_actions.h"
#include "gpu/vm_device.h"

using namespace pagedopt;
using simulated_cuda::Call;

namespace {

constexpr std::size_t kPages = 8;

std::unique_ptr<Vm> make_vm() {
  simulated_cuda::install({{}, {/*migrates=*/false, /*shares_host_address=*/true}});
  return make_device_vm(make_cuda_gpu(1), kBytes, kPages * kBytes, true);
}

bool is_zero(const std::byte* begin, std::size_t bytes) {
  return std::all_of(begin, begin + bytes, [](std::byte b) { return b == std::byte{0}; });
}

void test_what_is_locked() {
  {
    const auto vm = make_vm();
    std::byte* const base = vm->base();
    require(!vm->can_move() && vm->page_count() == kPages && vm->page_bytes() == kBytes, "its sizes");
    require(simulated_cuda::held().registrations == 0, "memory is locked before it is used");
    vm->commit(0, 3);
    vm->commit(3, 4);
    require(simulated_cuda::held().registrations == 2 && simulated_cuda::held().memory == 0, "what is locked");
    require(simulated_cuda::is_reachable(1, base, 3 * kBytes), "the device cannot use it");
    require(!simulated_cuda::is_reachable(1, base + 4 * kBytes, 1), "the device can use what is not locked");
    require(is_zero(base, 4 * kBytes), "it is not zeroed");
  }
  require_clean(kNone, "locked memory");
  require_nothing_held("locked memory");
}

// A copy may not go from one registration into another: those of a step end at borders of pages.
void test_copies_end_where_a_registration_does() {
  const auto vm = make_vm();
  const auto gpu = make_cuda_gpu(1);
  vm->commit(0, 1);
  vm->commit(1, 2);
  std::byte* const device = gpu->allocate(Memory::device, 2 * kBytes);
  StreamHandle const stream = gpu->make_stream();
  const auto across = error_of([&] { gpu->copy_state({{device, vm->base(), 2 * kBytes}}, Place::device, stream); });
  require(across && across->code() == cudaErrorInvalidValue, "a copy across two registrations is made");
  gpu->copy_state({{device, vm->base(), kBytes}, {device + kBytes, vm->base() + kBytes, kBytes}}, Place::device,
                  stream);
  gpu->free(Memory::device, device);
  gpu->free_stream(stream);
}

void test_content() {
  const auto vm = make_vm();
  std::byte* const base = vm->base();
  vm->commit(0, 4);
  const std::vector<std::byte> ones(kBytes, std::byte{1});
  for (const PageIndex page : {0, 1, 2}) require(vm->write(page, base + page * kBytes, ones.data(), kBytes), "a write");
  require(std::equal(ones.begin(), ones.end(), base + 2 * kBytes), "a write does not arrive");
  require(vm->clear(1, base + kBytes + 256, 512), "a part is cleared");
  require(is_zero(base + kBytes + 256, 512) && base[kBytes + 255] == std::byte{1} && base[kBytes + 768] == std::byte{1},
          "another part is cleared");
  vm->discard({0, 2});
  require(is_zero(base, kBytes) && is_zero(base + 2 * kBytes, kBytes), "what is discarded is not zeros");
  require(base[kBytes] == std::byte{1}, "a page that was not discarded is");
  vm->discard({1});
  require(is_zero(base, 4 * kBytes), "what is discarded alone is not zeros");
}

void test_nothing_moves() {
  const auto vm = make_vm();
  vm->commit(0, 2);
  (void)simulated_cuda::take_calls();
  std::size_t done = 0;
  const std::pair<const char*, std::function<void()>> moves[] = {
      {"populate", [&] { vm->populate(0); }},          {"prefetch", [&] { vm->prefetch({0, 1}, done); }},
      {"write_back", [&] { vm->write_back({0, 1}); }}, {"demote", [&] { vm->demote({0, 1}, done); }},
      {"place_lower", [&] { vm->place_lower(0); }},
  };
  for (const auto& [name, move] : moves) {
    bool is_refused = false;
    try {
      move();
    } catch (const std::logic_error&) {
      is_refused = true;
    }
    require(is_refused, std::string(name) + " is not refused");
  }
  vm->settle(0), vm->drop_cache(0);
  require(vm->enter(0, nullptr) && !vm->is_arriving(0), "a page is not there");
  require(vm->lower_bytes() == 0 && vm->visits().visited_pages == 0 && vm->refused_hints() == 0,
          "something is counted");
  require(simulated_cuda::take_calls().empty(), "the runtime is asked to move something");
}

// What a step put on its stream is waited for before its pages change, and so is the default stream; the device is not.
void test_what_is_waited_for() {
  const auto vm = make_vm();
  const auto gpu = make_cuda_gpu(1);
  vm->commit(0, 2);
  StreamHandle const stream = gpu->make_stream();
  const PageIndex pages[] = {0, 1};
  const std::byte one{1};
  const std::pair<const char*, std::function<void()>> changes[] = {
      {"write", [&] { vm->write(0, vm->base(), &one, 1); }},
      {"clear", [&] { vm->clear(1, vm->base() + kBytes, 1); }},
      {"discard", [&] { vm->discard({0, 1}); }},
  };
  for (const auto& [name, change] : changes) {
    vm->leave(pages, 2, stream);
    (void)simulated_cuda::take_calls();
    simulated_cuda::fail("cudaEventQuery", cudaErrorNotReady, 1000);
    change();
    simulated_cuda::forgive();
    int waits = 0, default_fences = 0;
    for (const Call& call : simulated_cuda::take_calls()) {
      waits += call.name == "cudaEventSynchronize" ? 1 : 0;
      default_fences += call.name == "cudaEventRecord" && call.detail.rfind("0 ", 0) == 0 ? 1 : 0;
      require(call.name != "cudaDeviceSynchronize", std::string(name) + " waits for the whole device");
    }
    require(waits == 2 && default_fences == 1, std::string(name) + " waits " + std::to_string(waits) + " times");
  }
  gpu->free_stream(stream);
}

void test_a_child_has_none_of_it() {
  auto vm = make_vm();
  vm->commit(0, 1);
  (void)simulated_cuda::take_calls();
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_mapped = ::msync(vm->base(), kBytes, MS_ASYNC) == 0 || errno != ENOMEM;
    vm.reset();
    ::_exit(is_mapped || !simulated_cuda::take_calls().empty() ? 1 : 0);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child has locked memory, or calls the runtime");
  require(is_zero(vm->base(), kBytes) && simulated_cuda::held().registrations == 1, "the parent has lost it");
}

}  // namespace

int main(int argc, char** argv) {
  return run_groups(argc, argv,
                    {{"what_is_locked", test_what_is_locked},
                     {"copies_end_where_a_registration_does", test_copies_end_where_a_registration_does},
                     {"content", test_content},
                     {"nothing_moves", test_nothing_moves},
                     {"what_is_waited_for", test_what_is_waited_for},
                     {"a_child_has_none_of_it", test_a_child_has_none_of_it}});
}

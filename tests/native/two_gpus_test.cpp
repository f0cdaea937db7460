// Two GPUs in one process, on a simulated CUDA runtime: an arena with its mover and the steps of an optimizer on each,
// one thread for both or one for each. The results are those of step_host to the bit, and all work was on its own GPU.
//   two_gpus_test [name of one group]
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "gpu/launch/launcher.h"
#include "gpu/vm_device.h"
#include "host_rows.h"
#include "memory/arena.h"
#include "simulated_cuda.h"
#include "sweep/sweep.h"

using namespace pagedopt;

namespace {

constexpr std::size_t kPageBytes = 16 << 10;
constexpr std::size_t kReservedPages = 128;
constexpr unsigned kSteps = 3;

struct Plan {
  const char* name;
  Codec codec;
  bool migrates[2];
  bool staged;          // state on the host passes through a ring
  bool default_stream;  // or one of the GPU's own
};

// Some parameters on one GPU, their state in an arena there, and the same in ordinary memory.
class Replica {
 public:
  Replica(const Plan& plan, int device) : plan_(plan), device_(device), gpu_(make_cuda_gpu(device)), random_(device) {
    arena_ = std::make_shared<Arena>(
        make_device_vm(gpu_, kPageBytes, kReservedPages * kPageBytes, /*direct=*/plan.codec == Codec::f32));
    case_.codec = plan.codec;
    case_.hyper.weight_decay = 0.1;
    case_.hyper.max_unorm = 0.5;  // so that there are stages that measure
    rows_ = std::make_shared<std::vector<Row>>();
    tensors_.reserve(std::size(kSizes));
    for (const std::int64_t numel : kSizes) add(numel + device);
    sweep_ = std::make_unique<Sweep>(rows_, std::vector<Hyper>{case_.hyper}, arena_, gpu_);
    if (!plan.default_stream) stream_ = gpu_->make_stream();
    arena_->attach();
    if (arena_->vm().can_move()) arena_->set_budget_pages(20);
    arena_->set_evict_way({2, plan.staged ? 1U : 2U});
  }
  ~Replica() {
    sweep_.reset();
    gpu_->synchronize();
    for (std::byte* memory : memory_) gpu_->free(Memory::device, memory);
    if (stream_ != nullptr) gpu_->free_stream(stream_);
  }
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  void step(unsigned t) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      new_gradient(tensors_[i], case_, t + 10 * static_cast<unsigned>(device_));
      gpu_->copy(const_cast<void*>((*rows_)[i].grad), tensors_[i].grad.data(), tensors_[i].grad.size(), stream_);
    }
    const auto passing = arena_->allocate(3 * kPageBytes, false);
    if (arena_->vm().can_move()) move();
    const std::size_t ring_bytes = plan_.staged ? sweep_->ring_bytes() : 0;
    std::byte* const ring = ring_bytes > 0 ? gpu_->allocate(Memory::device, ring_bytes) : nullptr;
    sweep_->step_on({case_.hyper}, {}, {ring, ring_bytes}, stream_);
    gpu_->synchronize();
    if (ring != nullptr) gpu_->free(Memory::device, ring);
    std::vector<Row> want;
    for (Tensor& tensor : tensors_) want.push_back(tensor.row());
    step_host(want, {case_.hyper}, make_tasks(want, {case_.hyper}), 1.0, 1, own_workers_, nullptr);
  }

  void check(const std::string& what) const {
    require(arena_->failure().empty(), what + ": " + arena_->failure());
    require(arena_->is_valid(), what + ": the arena is not valid");
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const Tensor& want = tensors_[i];
      const Row& got = (*rows_)[i];
      const std::string name = what + ", GPU " + std::to_string(device_) + ", parameter " + std::to_string(i);
      require(*got.step == static_cast<float>(kSteps), name + ": step " + std::to_string(*got.step));
      compare(want.param.data(), got.param, want.param.size(), name);
      for (int slot = 0; slot < kMostSlots; ++slot) {
        compare(want.slot[slot].data(), got.slot[slot], want.slot[slot].size(), name + ", slot");
        if (got.absmax[slot] != nullptr)
          compare(want.absmax[slot].data(), got.absmax[slot], want.absmax[slot].size() * 4, name + ", absmax");
      }
    }
    const Counters& counters = arena_->counters();
    if (arena_->vm().can_move())
      require(counters.prefetched_bytes > 0 && counters.evicted_bytes > 0, what + ": nothing moved");
    require((counters.staged_in_bytes > 0) == plan_.staged, what + ": staged, or not, against the plan");
  }

  void detach() { arena_->detach(); }

  // What a user does who drops an optimizer, and then all that is left of paging.
  void drop() {
    sweep_.reset();
    for (std::size_t i = 0; i < extents_.size(); i += 2) extents_[i].reset();
    extents_.clear();
    arena_.reset();
  }

 private:
  static constexpr std::int64_t kSizes[] = {20003, 300, 9000, 2048, 30007};

  template <class T>
  T* on_device(const std::vector<T>& content) {
    memory_.push_back(gpu_->allocate(Memory::device, content.size() * sizeof(T)));
    gpu_->copy(memory_.back(), content.data(), content.size() * sizeof(T), stream_);
    return reinterpret_cast<T*>(memory_.back());
  }

  void add(std::int64_t numel) {
    case_.numel = numel;
    Tensor& tensor = tensors_.emplace_back(case_);
    Row row = tensor.row();
    row.param = on_device(tensor.param);
    row.grad = on_device(tensor.grad);
    row.step = on_device(std::vector<float>{0.0F});
    row.gnorm_history = on_device(tensor.gnorms);
    std::size_t bytes = 0;
    for (int slot = 0; slot < kMostSlots; ++slot)
      bytes += round_up(tensor.slot[slot].size(), kSlotAlignmentBytes) +
               round_up(4 * tensor.absmax[slot].size(), kSlotAlignmentBytes);
    extents_.push_back(arena_->allocate(bytes, numel < 1000));
    std::byte* at = extents_.back()->data();
    const auto place = [&](const void* content, std::size_t content_bytes) {
      arena_->write(at, static_cast<const std::byte*>(content), content_bytes);
      return std::exchange(at, at + round_up(content_bytes, kSlotAlignmentBytes));
    };
    for (int slot = 0; slot < kMostSlots; ++slot) {
      row.slot[slot] = place(tensor.slot[slot].data(), tensor.slot[slot].size());
      if (row.absmax[slot] != nullptr)
        row.absmax[slot] = reinterpret_cast<float*>(place(tensor.absmax[slot].data(), 4 * tensor.absmax[slot].size()));
    }
    rows_->push_back(row);
  }

  // Some pages at once, and a plan for the mover's threads to carry out while the step runs.
  void move() {
    for (const auto& extent : extents_) {
      const std::size_t half = extent->bytes() / 2;
      if (random_() % 2 == 0) arena_->evict(extent->data(), 1 + random_() % extent->bytes());
      if (random_() % 2 == 0) arena_->prefetch(extent->data() + half, 1 + random_() % half);
    }
    const Order order = arena_->look().order;
    std::vector<Move> moves;
    for (std::size_t i = 0; i < order.pages.size(); ++i)
      moves.push_back({random_() % 2 ? MoveKind::prefetch : MoveKind::evict, Reason::behind, order.pages[i],
                       static_cast<std::int64_t>(i) - 1});
    require(arena_->submit(order.generation, order.cycle, moves), "a plan is refused: " + arena_->failure());
  }

  static void compare(const void* want, const void* got, std::size_t bytes, const std::string& what) {
    const auto* const a = static_cast<const unsigned char*>(want);
    const auto* const b = static_cast<const unsigned char*>(got);
    for (std::size_t i = 0; i < bytes; ++i)
      if (a[i] != b[i])
        fail(what + ": byte " + std::to_string(i) + " is " + std::to_string(b[i]) + ", not " + std::to_string(a[i]));
  }

  Plan plan_;
  int device_;
  std::shared_ptr<Gpu> gpu_;
  std::mt19937 random_;
  std::shared_ptr<Arena> arena_;
  Case case_;
  std::vector<Tensor> tensors_;
  std::shared_ptr<std::vector<Row>> rows_;
  std::vector<std::byte*> memory_;
  std::vector<std::shared_ptr<Extent>> extents_;
  std::unique_ptr<Sweep> sweep_;
  StreamHandle stream_ = nullptr;
  Workers own_workers_;
};

// Every call had its things' device as the current one, and failed only where that is how the core finds out.
void require_everything_in_its_place(const Plan& plan) {
  std::size_t calls[2] = {};
  for (const simulated_cuda::Call& call : simulated_cuda::take_calls()) {
    const std::string what = std::string(plan.name) + ": " + call.name;
    const bool may_fail = call.name == "cudaMemPrefetchBatchAsync" || call.name == "cudaMemDiscardBatchAsync";
    require(call.result == cudaSuccess || may_fail, what + " returns " + cudaGetErrorName(call.result));
    if (call.current >= 0) ++calls[call.current];
    for (const int subject : call.subjects)
      require(subject == call.current,
              what + " of device " + std::to_string(subject) + " with device " + std::to_string(call.current));
  }
  require(calls[0] > 100 && calls[1] > 100, std::string(plan.name) + ": a GPU has nothing to do");
}

void require_nothing_is_left(const Plan& plan) {
  const simulated_cuda::Held held = simulated_cuda::held();
  require(held.memory + held.streams + held.events + held.registrations == 0,
          std::string(plan.name) + ": something is not given back");
  require(cudaPeekAtLastError() == cudaSuccess, std::string(plan.name) + ": an error is left behind");
  require(simulated_cuda::thread_context() == -1, std::string(plan.name) + ": the thread is left on a device");
}

constexpr Plan kPlans[] = {
    {"float32", Codec::f32, {true, true}, false, false},
    {"float32, staged", Codec::f32, {true, true}, true, true},
    {"8-bit", Codec::blockwise8, {true, true}, false, true},
    {"8-bit, staged", Codec::blockwise8, {true, true}, true, false},
    {"one migrates", Codec::tensorwise8, {true, false}, true, false},
    {"none migrates", Codec::f32, {false, false}, true, true},
    {"none migrates, in place", Codec::blockwise8, {false, false}, false, false},
};

void install(const Plan& plan) { simulated_cuda::install({{plan.migrates[0]}, {plan.migrates[1]}}); }

void test_one_thread() {
  for (const Plan& plan : kPlans) {
    install(plan);
    {
      Replica first(plan, 0), second(plan, 1);
      for (unsigned t = 1; t <= kSteps; ++t)
        for (Replica* replica : {&first, &second}) replica->step(t);
      for (Replica* replica : {&first, &second}) replica->detach(), replica->check(plan.name);
    }
    require_everything_in_its_place(plan);
    require_nothing_is_left(plan);
  }
}

void test_a_thread_each() {
  for (const Plan& plan : kPlans) {
    install(plan);
    std::vector<std::thread> threads;
    for (const int device : {0, 1})
      threads.emplace_back([&plan, device] {
        Replica replica(plan, device);
        for (unsigned t = 1; t <= kSteps; ++t) replica.step(t);
        replica.detach();
        replica.check(plan.name);
        require(simulated_cuda::thread_context() == -1, std::string(plan.name) + ": a thread is left on a device");
      });
    for (std::thread& thread : threads) thread.join();
    require_everything_in_its_place(plan);
    require_nothing_is_left(plan);
  }
}

// A process that works for the second GPU alone has nothing on the first.
void test_second_alone() {
  for (const Plan& plan : kPlans) {
    install(plan);
    {
      Replica replica(plan, 1);
      for (unsigned t = 1; t <= kSteps; ++t) replica.step(t);
      replica.detach();
      replica.check(plan.name);
    }
    require(!simulated_cuda::has_context(0), std::string(plan.name) + ": the first GPU got a context");
    require_nothing_is_left(plan);
  }
}

// An optimizer is dropped, by whatever thread, while a stream captures a graph: the capture goes on to its end. A
// blocking stream's capture forbids work on the default stream, so that its pages are discarded later.
void test_dropped_beside_a_capture() {
  for (const Plan& plan : kPlans)
    for (const unsigned flags : {cudaStreamNonBlocking, cudaStreamDefault})
      for (const bool by_another : {true, false}) {
        install(plan);
        {
          Replica replica(plan, 1);
          for (unsigned t = 1; t <= kSteps; ++t) replica.step(t);
          replica.detach();
          replica.check(plan.name);
          require(cudaSetDevice(1) == cudaSuccess, "cudaSetDevice");
          cudaStream_t stream = nullptr;
          cudaGraph_t graph = nullptr;
          require(cudaStreamCreateWithFlags(&stream, flags) == cudaSuccess, "cudaStreamCreateWithFlags");
          require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess, "cudaStreamBeginCapture");
          if (by_another)
            std::thread([&] { replica.drop(); }).join();
          else
            replica.drop();
          require(cudaStreamEndCapture(stream, &graph) == cudaSuccess, std::string(plan.name) + ": a capture ended");
          (void)cudaStreamDestroy(stream);
        }
        require(cudaPeekAtLastError() == cudaSuccess, std::string(plan.name) + ": an error is left behind");
        const simulated_cuda::Held held = simulated_cuda::held();
        require(held.memory + held.streams + held.events + held.registrations == 0,
                std::string(plan.name) + ": something is not given back");
      }
}

}  // namespace

int main(int argc, char** argv) {
  return run_groups(argc, argv,
                    {{"one_thread", test_one_thread},
                     {"a_thread_each", test_a_thread_each},
                     {"second_alone", test_second_alone},
                     {"dropped_beside_a_capture", test_dropped_beside_a_capture}},
                    best_isa);
}

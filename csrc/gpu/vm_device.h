// Paged memory of a GPU.
#pragma once

#include <cstddef>
#include <memory>

#include "gpu/gpu.h"
#include "memory/vm.h"

namespace pagedopt {

// Device over host: managed memory of a GPU. A GPU that cannot migrate it gets locked host memory, used over the link;
// then `can_move` is false and nothing is to be asked to move. `direct`: the device maps pages wherever they are,
// instead of leaving those on the host to the driver's page faults. `reserve_bytes` is address space; less is taken
// where the driver gives less.
std::unique_ptr<Vm> make_device_vm(std::shared_ptr<Gpu> gpu, std::size_t page_bytes, std::size_t reserve_bytes,
                                   bool direct);

// The second of these.
std::unique_ptr<Vm> make_locked_vm(std::shared_ptr<Gpu> gpu, std::size_t page_bytes, std::size_t reserve_bytes);

}  // namespace pagedopt

// gpu.h of a core that was built without CUDA.
#include "gpu/gpu.h"

namespace pagedopt {

int cuda_device_count() noexcept { return 0; }
std::string cuda_absence() {
  return "this build of pagedopt has no CUDA code; install it where nvcc is found, with -C "
         "cmake.define.PAGEDOPT_CUDA=ON";
}
std::shared_ptr<Gpu> make_cuda_gpu(int) { throw GpuError(cuda_absence(), 100); }  // cudaErrorNoDevice

}  // namespace pagedopt

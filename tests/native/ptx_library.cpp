// What libptx_kernels.so gives to who loads it: the kernels, launched in the interpreter.
#include "gpu/kernels/tables.h"

extern "C" __attribute__((visibility("default"))) const pagedopt::DeviceKernels* ptx_kernels() {
  return &pagedopt::cuda_kernels;
}

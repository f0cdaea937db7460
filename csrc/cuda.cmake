# Whether the CUDA kernels are built: sets PAGEDOPT_WITH_CUDA, and with it the language, CMAKE_CUDA_ARCHITECTURES and
# the target CUDA::cudart_static. A GPU is not needed for that, nor a driver.
#
# AUTO builds them wherever a CUDA compiler works, GPU or not (machines that build often have none), but not for
# sanitizers nor for native programs alone. A compiler that is there and fails is a warning and a build for the CPU.
set(PAGEDOPT_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where a CUDA compiler works), ON or OFF")
set_property(CACHE PAGEDOPT_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT PAGEDOPT_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "PAGEDOPT_CUDA is '${PAGEDOPT_CUDA}'; it may be AUTO, ON or OFF")
endif()

# What stands in the way is a warning, or with ON an error.
function(pagedopt_no_cuda reason)
  if(PAGEDOPT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PAGEDOPT_CUDA=ON, but ${reason}")
  endif()
  message(WARNING "${reason}. Building for the CPU only; PAGEDOPT_CUDA=OFF silences this.")
endfunction()

# Compiles a line with the host compiler and the architectures of the build, before CMake is told of the language: what
# fails inside enable_language() cannot be caught.
function(pagedopt_try_cuda result)
  set(directory ${CMAKE_BINARY_DIR}/pagedopt_try_cuda)
  file(WRITE ${directory}/try.cu "#include <cuda_runtime.h>\n__global__ void kernel(float* x) { *x = 1.0f; }\n")
  set(flags -std=c++17)
  foreach(architecture IN LISTS CMAKE_CUDA_ARCHITECTURES)
    string(REGEX REPLACE "-(real|virtual)$" "" number "${architecture}")
    if(number MATCHES "^[0-9]+[a-z]?$")  # and not `native`, `all`
      list(APPEND flags -gencode=arch=compute_${number},code=sm_${number})
    endif()
  endforeach()
  if(CMAKE_CUDA_HOST_COMPILER)
    list(APPEND flags -ccbin ${CMAKE_CUDA_HOST_COMPILER})
  endif()
  execute_process(
    COMMAND ${CMAKE_CUDA_COMPILER} ${flags} -c ${directory}/try.cu -o ${directory}/try.o
    RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT failed EQUAL 0)
    message(STATUS "${CMAKE_CUDA_COMPILER} says:\n${output}")
  endif()
  set(${result} ${failed} PARENT_SCOPE)
endfunction()

set(PAGEDOPT_WITH_CUDA OFF)
if(PAGEDOPT_CUDA STREQUAL "ON" OR (PAGEDOPT_CUDA STREQUAL "AUTO" AND PAGEDOPT_PYTHON AND NOT PAGEDOPT_SANITIZE))
  # Machine code for A100 (and, same generation, 86 and 89), H100/H200 and B200, and what newer ones can compile.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
    set(PAGEDOPT_OLDER_ARCHITECTURES 80-real 90)  # for a compiler before 12.8, which does not know B200
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    pagedopt_try_cuda(PAGEDOPT_CUDA_FAILS)
    if(NOT PAGEDOPT_CUDA_FAILS EQUAL 0 AND PAGEDOPT_OLDER_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES ${PAGEDOPT_OLDER_ARCHITECTURES})
      pagedopt_try_cuda(PAGEDOPT_CUDA_FAILS)
    endif()
    if(PAGEDOPT_CUDA_FAILS EQUAL 0)
      set(PAGEDOPT_WITH_CUDA ON)
    else()
      pagedopt_no_cuda("${CMAKE_CUDA_COMPILER} does not compile for ${CMAKE_CUDA_ARCHITECTURES}")
    endif()
  elseif(PAGEDOPT_CUDA STREQUAL "ON")
    pagedopt_no_cuda("no CUDA compiler was found that works; set CUDACXX to nvcc")
  endif()
endif()

if(PAGEDOPT_WITH_CUDA)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
endif()
message(STATUS "CUDA kernels: ${PAGEDOPT_WITH_CUDA}")

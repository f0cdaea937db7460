# The libraries that programs and the Python module are linked from: the core, and the emulated GPU where it is wanted.
add_library(pagedopt_core STATIC
  base/workers.cpp
  memory/arena.cpp memory/arena_report.cpp memory/extents.cpp memory/mover.cpp memory/page_gate.cpp memory/pages.cpp
  memory/pins.cpp memory/plan_link.cpp memory/schedule.cpp memory/spill_file.cpp memory/trace.cpp memory/transfers.cpp
  memory/vm_host.cpp memory/walk.cpp memory/write_watch.cpp
  step/step_host.cpp
  gpu/vm_locked.cpp gpu/vm_managed.cpp gpu/kernels/tables.cpp gpu/launch/launcher.cpp gpu/launch/placement.cpp
  gpu/launch/ring.cpp
  sweep/sweep.cpp sweep/tensor_sweep.cpp)
target_link_libraries(pagedopt_core PUBLIC Threads::Threads)
target_compile_options(pagedopt_core PUBLIC -Wall -Wextra -Wpedantic -fvisibility=hidden)

# The kernels are one source, compiled once per instruction set and chosen at run time. Contraction stays off so that
# every instruction set gives the same bits.
# Sanitizer builds take the portable one alone: the others would take minutes to compile.
function(pagedopt_kernels isa)
  add_library(pagedopt_kernels_${isa} OBJECT step/cpu/kernels.cpp)
  target_compile_definitions(pagedopt_kernels_${isa} PRIVATE PAGEDOPT_ISA=${isa})
  target_compile_options(pagedopt_kernels_${isa} PRIVATE -Wall -Wextra -fvisibility=hidden ${PAGEDOPT_KERNEL_FLAGS} ${ARGN})
  target_sources(pagedopt_core PRIVATE $<TARGET_OBJECTS:pagedopt_kernels_${isa}>)
endfunction()
pagedopt_kernels(portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT PAGEDOPT_SANITIZE)
  pagedopt_kernels(avx2 -mavx2 -mf16c)
  pagedopt_kernels(avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mf16c -mprefer-vector-width=512)
  set_source_files_properties(step/step_host.cpp step/cpu/kernels.cpp PROPERTIES COMPILE_DEFINITIONS PAGEDOPT_X86)
endif()

# A GPU's kernels on the CPU; contracted no more than there.
set_source_files_properties(emulated/kernels.cpp PROPERTIES COMPILE_OPTIONS "${PAGEDOPT_KERNEL_FLAGS}")
# Most of their time is the compiler's.
if(PAGEDOPT_SANITIZE)
  set_property(SOURCE emulated/kernels.cpp APPEND PROPERTY COMPILE_OPTIONS -O0)
else()
  set_property(SOURCE emulated/kernels.cpp APPEND PROPERTY COMPILE_OPTIONS -O2)
endif()
if(PAGEDOPT_EMULATED_GPU OR PAGEDOPT_STRESS)
  add_library(pagedopt_emulated STATIC emulated/gpu.cpp emulated/kernels.cpp emulated/managed_memory.cpp)
  target_link_libraries(pagedopt_emulated PUBLIC pagedopt_core)
endif()

# What talks to the CUDA runtime. The kernels have flags of their own: no contraction and no fast math, as above. The
# runtime is linked in, and it opens the driver when it is first called, so that the module imports without one.
if(PAGEDOPT_WITH_CUDA)
  add_library(pagedopt_kernels_cuda OBJECT gpu/kernels/kernels.cu)
  target_compile_options(pagedopt_kernels_cuda PRIVATE -fmad=false --threads=0 -Xcompiler=-Wall,-Wextra,-fvisibility=hidden)
  target_compile_definitions(pagedopt_kernels_cuda PRIVATE PAGEDOPT_CUDA)
  if(PAGEDOPT_KEEP_PTX)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/ptx)
    target_compile_options(pagedopt_kernels_cuda PRIVATE
      --keep --keep-dir=${CMAKE_BINARY_DIR}/ptx --Werror=all-warnings -Xcompiler=-Werror)
  endif()
  target_sources(pagedopt_core PRIVATE gpu/gpu_cuda.cpp $<TARGET_OBJECTS:pagedopt_kernels_cuda>)
  target_compile_definitions(pagedopt_core PUBLIC PAGEDOPT_CUDA)
  target_include_directories(pagedopt_core SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(pagedopt_core PUBLIC CUDA::cudart_static)
else()
  target_sources(pagedopt_core PRIVATE gpu/gpu_none.cpp)
endif()

if(PAGEDOPT_CHECKED OR PAGEDOPT_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_definitions(pagedopt_core PUBLIC PAGEDOPT_CHECKED)
endif()

# All of the Python module but its entry, which names what the module has.
if(PAGEDOPT_PYTHON)
  add_library(pagedopt_bindings STATIC
    python/bindings_arena.cpp python/bindings_gpu.cpp python/bindings_tensors.cpp python/tensors.cpp)
  target_link_libraries(pagedopt_bindings PUBLIC pagedopt_core pybind11::module)
  # Half the time to compile, and nothing in them takes time; python/tensors.cpp, which looks at every parameter, does.
  set_source_files_properties(python/bindings_arena.cpp python/bindings_gpu.cpp python/bindings_tensors.cpp
    PROPERTIES COMPILE_OPTIONS -O1)
endif()

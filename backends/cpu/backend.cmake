# Each kernel file is compiled for its instruction set; isa.cpp decides at run time which table is used. Nothing else in the
# backend gets these flags.
set(ttt_cpu_kernel_flags -fno-math-errno -fno-trapping-math -Wno-psabi -Wno-uninitialized $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
set_source_files_properties(cpu/kernels_portable.cpp PROPERTIES COMPILE_OPTIONS "${ttt_cpu_kernel_flags};-O3")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(ttt_cpu_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512)
  set_source_files_properties(cpu/kernels_avx2.cpp PROPERTIES COMPILE_OPTIONS "${ttt_cpu_kernel_flags};-O3;-mavx2;-mfma;-mf16c")
  set_source_files_properties(cpu/kernels_avx512.cpp PROPERTIES COMPILE_OPTIONS "${ttt_cpu_kernel_flags};-O3;${ttt_cpu_avx512}")
  set_source_files_properties(cpu/kernels_avx512_bf16.cpp PROPERTIES
    COMPILE_OPTIONS "${ttt_cpu_kernel_flags};-O3;${ttt_cpu_avx512};-mavx512vbmi;-mavx512bf16")
  # Tiles only: what this file contains may run before the processor is known.
  set_source_files_properties(cpu/kernels_amx.cpp PROPERTIES COMPILE_OPTIONS "${ttt_cpu_kernel_flags};-O3;-mamx-tile;-mamx-bf16")
else()
  set_source_files_properties(cpu/kernels_avx2.cpp cpu/kernels_avx512.cpp cpu/kernels_avx512_bf16.cpp cpu/kernels_amx.cpp
    PROPERTIES HEADER_FILE_ONLY TRUE)
endif()
find_package(Threads REQUIRED)
target_link_libraries(ttt_backend_cpu PRIVATE Threads::Threads)

# The build tree mirrors the install tree, so that a program finds its backends and models the same way in both:
#   bin/ttt   lib/libttt_*.so   lib/ttt-2/backends/   lib/ttt-2/models/   share/ttt-2/
set(TTT_PLUGIN_DIR ${CMAKE_INSTALL_LIBDIR}/ttt-${PROJECT_VERSION_MAJOR})
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/${CMAKE_INSTALL_LIBDIR})
  set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/${CMAKE_INSTALL_LIBDIR})
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_EXTENSIONS OFF)

# What all our targets share: language level, warnings, sanitizers, reproducible floating point.
add_library(ttt_options INTERFACE)
target_compile_features(ttt_options INTERFACE cxx_std_20)
# GCC 12 warns of overlapping copies in "literal" + std::string (its bug 105651).
target_compile_options(ttt_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_compile_options(ttt_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers
                       -ffp-contract=off $<$<BOOL:${TTT_WERROR}>:-Werror>)
# A call to a layer on the right is a link error. Clang's sanitizers are the exception: their runtime is in the programs alone.
set(ttt_no_undefined -Wl,--no-undefined)
if(TTT_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(ttt_no_undefined "")
endif()
if(TTT_FUZZ)
  target_compile_options(ttt_options INTERFACE -fsanitize=fuzzer-no-link)  # libFuzzer is led by coverage
endif()
# Of what is measured only: tests and models stay as they are in a release build. A line that is optimised away counts for nobody.
add_library(ttt_counted INTERFACE)
if(TTT_COVERAGE)
  target_compile_options(ttt_counted INTERFACE --coverage -fprofile-update=atomic -O1)
  target_link_options(ttt_counted INTERFACE --coverage)
endif()
if(TTT_SANITIZE OR TTT_FUZZ)
  target_compile_definitions(ttt_options INTERFACE TTT_SANITIZED)
endif()
if(TTT_SANITIZE)
  target_compile_options(ttt_options INTERFACE -fsanitize=${TTT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  target_link_options(ttt_options INTERFACE -fsanitize=${TTT_SANITIZE})
endif()

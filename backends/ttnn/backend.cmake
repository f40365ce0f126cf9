# The driver calls Python through the stable ABI of 3.10. Its symbols come from the interpreter of the process, so nothing is
# linked, and the headers of any Python from 3.10 on will do. Without headers there is no driver, and the backend says so.
set(TTT_TTNN_PYTHON "$ENV{TTT_TTNN_PYTHON}" CACHE FILEPATH "Python whose headers the TTNN driver is built with; empty: search")
set(candidates ${TTT_TTNN_PYTHON})
if(NOT candidates)
  file(GLOB pyenv LIST_DIRECTORIES false $ENV{HOME}/.pyenv/versions/3.1[0-9]*/bin/python3)
  list(APPEND candidates python3.12 python3.10 python3 ${pyenv})
endif()
set(ttnn_headers "")
foreach(candidate IN LISTS candidates)
  execute_process(COMMAND ${candidate} -c "import sys, sysconfig; assert sys.version_info >= (3, 10); print(sysconfig.get_path('include'))"
    OUTPUT_VARIABLE include_folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed AND EXISTS "${include_folder}/Python.h")
    set(ttnn_headers ${include_folder})
    break()
  endif()
endforeach()
if(NOT ttnn_headers)
  message(STATUS "No TTNN driver: no Python from 3.10 on with its headers (Debian: python3-dev)")
  return()
endif()
message(STATUS "TTNN driver: headers of ${ttnn_headers}")

file(GLOB driver_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/ttnn/driver/*.cpp)
add_library(ttt_ttnn_driver MODULE ${driver_sources})
target_include_directories(ttt_ttnn_driver PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/ttnn/driver ${PROJECT_SOURCE_DIR}/src)
target_include_directories(ttt_ttnn_driver SYSTEM PRIVATE ${ttnn_headers})
target_link_libraries(ttt_ttnn_driver PRIVATE ttt::ops ttt_options)
set_target_properties(ttt_ttnn_driver PROPERTIES
  PREFIX "" CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/${TTT_PLUGIN_DIR}/backends
  INSTALL_RPATH "$ORIGIN/../..")
install(TARGETS ttt_ttnn_driver LIBRARY DESTINATION ${TTT_PLUGIN_DIR}/backends COMPONENT ttt)
add_dependencies(ttt_backend_ttnn ttt_ttnn_driver)

# An install of this build tree, used from outside (install_test.cmake says what is tried).
add_executable(write_fixture install/write_fixture.cpp)
target_link_libraries(write_fixture PRIVATE ttt::testing ttt_options)
if(TTT_INSTALL AND TARGET ttt AND TARGET ttt_models AND TARGET ttt_backend_cpu)
  set(flags "${CMAKE_CXX_FLAGS}")
  if(TTT_SANITIZE)
    string(APPEND flags " -fsanitize=${TTT_SANITIZE}")
  endif()
  add_test(NAME install.package_is_found_and_used
    COMMAND ${CMAKE_COMMAND} -D BUILD=${PROJECT_BINARY_DIR} -D SOURCE=${PROJECT_SOURCE_DIR} -D FIXTURE_WRITER=$<TARGET_FILE:write_fixture>
            -D COMPILER=${CMAKE_CXX_COMPILER} -D "FLAGS=${flags}" -D BUILD_TYPE=${CMAKE_BUILD_TYPE} -D LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER}
            -P ${CMAKE_CURRENT_SOURCE_DIR}/install/install_test.cmake)
  set_tests_properties(install.package_is_found_and_used PROPERTIES TIMEOUT 1200 PROCESSORS 2 LABELS install)
endif()

# Ports and modules with mistakes, as model libraries of their own, and what `ttt check` and `ttt debug` say of them.
ttt_model_library(ttt_mistakes ${CMAKE_CURRENT_LIST_DIR}/mistakes.cpp)
target_link_libraries(ttt_mistakes PRIVATE ttt_options)
ttt_model_library(ttt_mistaken_modules CUSTOM ${CMAKE_CURRENT_LIST_DIR}/modules.cpp)
target_link_libraries(ttt_mistaken_modules PRIVATE ttt_options)
set_target_properties(ttt_mistakes ttt_mistaken_modules PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
ttt_test_suite(mistakes ttt::testing)
set(flags "${CMAKE_CXX_FLAGS}")
if(TTT_SANITIZE)
  string(APPEND flags " -fsanitize=${TTT_SANITIZE}")
endif()
if(TTT_COVERAGE)
  string(APPEND flags " --coverage")
endif()
target_compile_definitions(mistakes_tests PRIVATE TTT_MISTAKES="$<TARGET_FILE:ttt_mistakes>"
                           TTT_MISTAKEN_MODULES="$<TARGET_FILE:ttt_mistaken_modules>"
                           TTT_MODEL_SDK="$<TARGET_FILE:ttt_model_sdk>" TTT_CXX="${CMAKE_CXX_COMPILER}" TTT_CXX_FLAGS="${flags}")
add_dependencies(mistakes_tests ttt_mistakes ttt_mistaken_modules ttt_model_sdk)

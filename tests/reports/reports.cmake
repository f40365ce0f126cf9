# What `ttt debug` and `ttt perf` write, read by the programs that it is for. The model is the one of the demos' tests.
if(Python3_Interpreter_FOUND AND TARGET ttt AND TARGET demo_chat AND TARGET ttt_models)
  foreach(test page trace)
    add_test(NAME reports.${test} COMMAND ${CMAKE_COMMAND} -E env TTT_CACHE=${CMAKE_CURRENT_BINARY_DIR}/demo-cache
      ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/reports/${test}_test.py $<TARGET_FILE:ttt> ${CMAKE_CURRENT_BINARY_DIR}/demo-model)
    set_tests_properties(reports.${test} PROPERTIES FIXTURES_REQUIRED demo_model TIMEOUT 600 LABELS reports SKIP_RETURN_CODE 77)
  endforeach()
endif()

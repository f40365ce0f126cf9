# ttt serve from outside. The model is the one of the demos' tests.
if(Python3_Interpreter_FOUND AND TARGET ttt AND TARGET demo_chat AND TARGET ttt_models)
  add_test(NAME serve.http COMMAND ${CMAKE_COMMAND} -E env TTT_CACHE=${CMAKE_CURRENT_BINARY_DIR}/demo-cache
    ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/serve/http_test.py $<TARGET_FILE:ttt> ${CMAKE_CURRENT_BINARY_DIR}/demo-model)
  set_tests_properties(serve.http PROPERTIES FIXTURES_REQUIRED demo_model TIMEOUT 600 LABELS serve)
  # The short form; tools/soak_server has the full one, 20 minutes.
  add_test(NAME serve.soak COMMAND ${CMAKE_COMMAND} -E env TTT_CACHE=${CMAKE_CURRENT_BINARY_DIR}/demo-cache TTT=$<TARGET_FILE:ttt>
    ${Python3_EXECUTABLE} -B ${PROJECT_SOURCE_DIR}/tools/soak_server --minutes 0.2 --restarts 1 --clients 6
    --model ${CMAKE_CURRENT_BINARY_DIR}/demo-model -- --precision f32)
  set_tests_properties(serve.soak PROPERTIES FIXTURES_REQUIRED demo_model TIMEOUT 600 LABELS serve)
  add_test(NAME serve.page COMMAND ${CMAKE_COMMAND} -E env TTT_CACHE=${CMAKE_CURRENT_BINARY_DIR}/demo-cache
    ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/serve/page_test.py $<TARGET_FILE:ttt> ${CMAKE_CURRENT_BINARY_DIR}/demo-model -- --precision f32)
  set_tests_properties(serve.page PROPERTIES FIXTURES_REQUIRED demo_model TIMEOUT 600 LABELS serve SKIP_RETURN_CODE 77)
endif()

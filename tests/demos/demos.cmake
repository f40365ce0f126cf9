# Each demo over a tiny checkpoint: it runs, and says what it should.
if(TARGET demo_chat AND TARGET ttt_models)
  set(model ${CMAKE_CURRENT_BINARY_DIR}/demo-model)
  add_test(NAME demos.model COMMAND ${CMAKE_COMMAND} -D WRITER=$<TARGET_FILE:write_fixture> -D SOURCE=${PROJECT_SOURCE_DIR} -D OUT=${model}
                                    -P ${CMAKE_CURRENT_SOURCE_DIR}/demos/make_model.cmake)
  set_tests_properties(demos.model PROPERTIES FIXTURES_SETUP demo_model LABELS demos)
  # ttt_demo_test(NAME REGEX command...)
  function(ttt_demo_test name regex)
    add_test(NAME demos.${name} COMMAND ${ARGN})
    set_tests_properties(demos.${name} PROPERTIES FIXTURES_REQUIRED demo_model PASS_REGULAR_EXPRESSION "${regex}" TIMEOUT 300 LABELS demos
                         ENVIRONMENT TTT_CACHE=${CMAKE_CURRENT_BINARY_DIR}/demo-cache)
  endfunction()
  ttt_demo_test(chat "tokens, [0-9.e+]+ per second" sh -c "echo 'The other thing' | $<TARGET_FILE:demo_chat> ${model}")
  ttt_demo_test(batch "tokens for 4 requests in [0-9]+ steps" $<TARGET_FILE:demo_batch> ${model})
  ttt_demo_test(evaluation "f32 +3[0-9][0-9]\\.[0-9]+ " $<TARGET_FILE:demo_evaluation> ${model} ${CMAKE_CURRENT_SOURCE_DIR}/demos/text.txt)
  ttt_demo_test(embed "on cpu: .*in [1-9][0-9]* pieces" $<TARGET_FILE:demo_embed> ${model} "The other" "thing")
  ttt_demo_test(errors "error: .*no-such-model" $<TARGET_FILE:demo_batch> no-such-model)
endif()

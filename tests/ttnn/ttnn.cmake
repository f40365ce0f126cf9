# Real TTNN on a mock cluster. The tests are skipped until tools/ttnn/setup has made build/ttnn; a process takes 3 GB, so there
# is one at a time.
if(NOT TARGET ttt_ttnn_driver)
  return()
endif()
add_executable(ttnn_mock_tests ttnn/mock_test.cpp)
add_executable(ttnn_sweep ttnn/sweep.cpp)
foreach(program ttnn_mock_tests ttnn_sweep)
  target_link_libraries(${program} PRIVATE ttt::testing ttt_options nlohmann_json::nlohmann_json)
  target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR}/src ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_definitions(${program} PRIVATE TTT_SWEEP_MODELS="${PROJECT_SOURCE_DIR}/data/models/full_size.json")
  add_dependencies(${program} ttt_backend_ttnn)
endforeach()
target_link_libraries(ttnn_mock_tests PRIVATE GTest::gtest_main)
foreach(run "n150|-MockMesh.*" "n300|MockMesh.*")
  string(REPLACE "|" ";" run ${run})
  list(GET run 0 sku)
  list(GET run 1 filter)
  # TTNN writes files of its own into the folder that it runs in.
  add_test(NAME ttnn.mock_${sku} WORKING_DIRECTORY ${PROJECT_BINARY_DIR}
    COMMAND ${PROJECT_SOURCE_DIR}/tools/ttnn/mock --folder ${PROJECT_BINARY_DIR}/ttnn ${sku}
            $<TARGET_FILE:ttnn_mock_tests> --gtest_filter=${filter})
  set_tests_properties(ttnn.mock_${sku} PROPERTIES LABELS ttnn SKIP_RETURN_CODE 77 RESOURCE_LOCK ttnn TIMEOUT 1200)
endforeach()

# The roofline against published measurements: tools/roofline/refit prints the whole table.
add_executable(roofline_fit ${PROJECT_SOURCE_DIR}/tools/roofline/fit.cpp)
target_link_libraries(roofline_fit PRIVATE ttt::convert ttt::runtime ttt_options nlohmann_json::nlohmann_json)
foreach(needed ttt_model_libraries ttt_backend_null)
  if(TARGET ${needed})
    add_dependencies(roofline_fit ${needed})
  endif()
endforeach()
add_test(NAME roofline.published COMMAND roofline_fit --rows ${PROJECT_SOURCE_DIR}/data/roofline/published.csv
  --models ${PROJECT_SOURCE_DIR}/data/models/full_size.json --most 20 35)

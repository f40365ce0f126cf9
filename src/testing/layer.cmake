# JSON for fixtures, specs and what is known of models.
find_package(nlohmann_json 3.11 REQUIRED)
target_link_libraries(ttt_testing PRIVATE nlohmann_json::nlohmann_json)

# data/models/*.json become string literals, so that no file is looked up at run time.
foreach(table architectures evidence)
  set(file ${PROJECT_SOURCE_DIR}/data/models/${table}.json)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  string(TOUPPER TTT_${table} variable)
  file(READ ${file} ${variable})
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/src/testing/registry_data.cpp.in ${PROJECT_BINARY_DIR}/generated/registry_data.cpp @ONLY)
target_sources(ttt_testing PRIVATE ${PROJECT_BINARY_DIR}/generated/registry_data.cpp)

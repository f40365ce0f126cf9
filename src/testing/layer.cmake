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
# The configurations of the goldens, where the tests are there (a wheel's sources lack them).
file(GLOB fixtures CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/golden/fixtures/*.json)
set(TTT_GOLDEN_CONFIGURATIONS "")
foreach(fixture IN LISTS fixtures)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${fixture})
  cmake_path(GET fixture STEM LAST_ONLY name)
  file(READ ${fixture} text)
  string(JSON config GET "${text}" config)
  string(APPEND TTT_GOLDEN_CONFIGURATIONS "    {\"${name}\", R\"json(${config})json\"},\n")
endforeach()
file(GLOB expectations CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/data/expectations/*.jsonl)
set(TTT_EXPECTATIONS "")
foreach(table IN LISTS expectations)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${table})
  cmake_path(GET table STEM sku)
  file(READ ${table} text)
  string(APPEND TTT_EXPECTATIONS "    {\"${sku}\", R\"json(${text})json\"},\n")
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/src/testing/registry_data.cpp.in ${PROJECT_BINARY_DIR}/generated/registry_data.cpp @ONLY)
target_sources(ttt_testing PRIVATE ${PROJECT_BINARY_DIR}/generated/registry_data.cpp)

# The page of reports and a text to evaluate, likewise.
set(page ${PROJECT_SOURCE_DIR}/src/testing/report.html)
set(text ${PROJECT_SOURCE_DIR}/docs/architecture.md)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page} ${text})
file(READ ${page} report_html)
file(READ ${text} prose)
configure_file(${PROJECT_SOURCE_DIR}/src/testing/built_in_text.cpp.in ${PROJECT_BINARY_DIR}/generated/built_in_text.cpp @ONLY)
target_sources(ttt_testing PRIVATE ${PROJECT_BINARY_DIR}/generated/built_in_text.cpp)

# GCC 12 takes the undefined registers of its own intrinsics for mistakes.
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/testing/peak.cpp PROPERTIES COMPILE_OPTIONS "-Wno-uninitialized;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>")

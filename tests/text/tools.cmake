# Small programs that compare with reference packages: they read requests on standard input and answer on standard output.
find_package(nlohmann_json 3.11 REQUIRED)
add_executable(template_tool ${CMAKE_CURRENT_LIST_DIR}/template_tool.cpp)
target_link_libraries(template_tool PRIVATE ttt::text ttt_options nlohmann_json::nlohmann_json)
add_executable(tokenizer_tool ${CMAKE_CURRENT_LIST_DIR}/tokenizer_tool.cpp)
target_link_libraries(tokenizer_tool PRIVATE ttt::text ttt_options nlohmann_json::nlohmann_json)
target_include_directories(tokenizer_tool PRIVATE ${CMAKE_CURRENT_LIST_DIR}/..)
set_target_properties(template_tool tokenizer_tool PROPERTIES EXCLUDE_FROM_ALL ON)

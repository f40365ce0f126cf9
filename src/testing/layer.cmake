# JSON for fixture files.
find_package(nlohmann_json 3.11 REQUIRED)
target_link_libraries(ttt_testing PRIVATE nlohmann_json::nlohmann_json)

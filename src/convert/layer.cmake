# JSON headers of safetensors, configs and weight maps.
find_package(nlohmann_json 3.11 REQUIRED)
target_link_libraries(ttt_convert PRIVATE nlohmann_json::nlohmann_json)
# Dequantised values are bit-exact with the reference: no fused multiply-adds.
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/convert/storage_type.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)

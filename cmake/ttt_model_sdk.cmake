# What model libraries link: reading configs, writing specs and weight maps as JSON, the entry points. A static library whose symbols stay
# hidden in them, so that a library built for 2.0 works unchanged with every later 2.x.
find_package(nlohmann_json 3.11 REQUIRED)
add_library(ttt_model_sdk STATIC
  src/model_sdk/model_library.cpp src/model_sdk/decoder_spec.cpp
  src/base/error.cpp src/base/utf8.cpp src/ops/names.cpp src/model/spec_json.cpp
  src/convert/hf_config.cpp src/convert/hf_config_decoder.cpp src/convert/json.cpp src/convert/weight_map.cpp)
add_library(ttt::model_sdk ALIAS ttt_model_sdk)
set_target_properties(ttt_model_sdk PROPERTIES EXPORT_NAME model_sdk POSITION_INDEPENDENT_CODE ON)
target_compile_features(ttt_model_sdk PUBLIC cxx_std_20)
target_include_directories(ttt_model_sdk PRIVATE src PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/ttt-${PROJECT_VERSION_MAJOR}>)
target_link_libraries(ttt_model_sdk PRIVATE $<BUILD_INTERFACE:ttt_options> $<BUILD_INTERFACE:ttt_counted> $<BUILD_INTERFACE:nlohmann_json::nlohmann_json>)
target_link_options(ttt_model_sdk INTERFACE -Wl,-u,ttt_model_library_2)

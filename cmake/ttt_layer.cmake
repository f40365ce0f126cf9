# ttt_layer(NAME [DEPS layers...]): one shared library per layer, from src/NAME and include/ttt/NAME.
# src/NAME/layer.cmake, where present, adds the private third-party libraries of the layer.
# -Wl,--no-undefined turns a call to a layer on the right into a link error.
function(ttt_layer name)
  cmake_parse_arguments(arg "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/ttt/${name}/*.h)
  if(sources)
    add_library(ttt_${name} SHARED ${sources} ${headers})
    set(scope PUBLIC)
    target_include_directories(ttt_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(ttt_${name} PRIVATE $<BUILD_INTERFACE:ttt_options>)
    target_link_options(ttt_${name} PRIVATE -Wl,--no-undefined)
    target_compile_features(ttt_${name} PUBLIC cxx_std_20)
    set_target_properties(ttt_${name} PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
                          INSTALL_RPATH "$ORIGIN")
  else()
    add_library(ttt_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(ttt::${name} ALIAS ttt_${name})
  set_target_properties(ttt_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(ttt_${name} ${scope}
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/ttt-${PROJECT_VERSION_MAJOR}>)
  foreach(dep IN LISTS arg_DEPS)
    target_link_libraries(ttt_${name} ${scope} ttt::${dep})
  endforeach()
  set_property(GLOBAL APPEND PROPERTY TTT_LAYERS ttt_${name})
  if(EXISTS ${PROJECT_SOURCE_DIR}/src/${name}/layer.cmake)
    include(${PROJECT_SOURCE_DIR}/src/${name}/layer.cmake)
  endif()
endfunction()

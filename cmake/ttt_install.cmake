# What an install holds. Names and folders carry the major version, so that 2.x and 3.x live in one prefix:
#   bin/ttt   include/ttt-2/   lib/libttt_LAYER.so.2   lib/ttt-2/{backends,models}/   lib/cmake/ttt-2/   share/ttt-2/
# Others get it by find_package(ttt 2.0 CONFIG REQUIRED): ttt::ttt is everything, ttt::LAYER one layer (base, text, tensor, ..),
# ttt::model_sdk and ttt_model_library() are for model files.
option(TTT_INSTALL "Install the library" ${PROJECT_IS_TOP_LEVEL})

get_property(ttt_layers GLOBAL PROPERTY TTT_LAYERS)
add_library(ttt_everything INTERFACE)
add_library(ttt::ttt ALIAS ttt_everything)
set_target_properties(ttt_everything PROPERTIES EXPORT_NAME ttt)
target_link_libraries(ttt_everything INTERFACE ${ttt_layers})

if(NOT TTT_INSTALL)
  return()
endif()
include(CMakePackageConfigHelpers)
set(ttt_versioned ttt-${PROJECT_VERSION_MAJOR})
set(ttt_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/${ttt_versioned})

# No lib/libttt_LAYER.so: the package names the versioned file, and two majors could not both have it.
install(TARGETS ${ttt_layers} ttt_everything EXPORT ttt-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ttt NAMELINK_SKIP)
if(TARGET ttt_model_sdk)
  install(TARGETS ttt_model_sdk EXPORT ttt-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/${ttt_versioned} COMPONENT ttt-dev)
endif()
install(EXPORT ttt-targets NAMESPACE ttt:: DESTINATION ${ttt_package_dir} COMPONENT ttt-dev)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ttt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/${ttt_versioned} COMPONENT ttt-dev
  FILES_MATCHING PATTERN "*.h")
install(DIRECTORY ${PROJECT_SOURCE_DIR}/data/ DESTINATION ${CMAKE_INSTALL_DATADIR}/${ttt_versioned} COMPONENT ttt
  FILES_MATCHING PATTERN "*.json")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${ttt_versioned} COMPONENT ttt)

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/ttt-config.cmake.in ${PROJECT_BINARY_DIR}/ttt-config.cmake
  INSTALL_DESTINATION ${ttt_package_dir} NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ttt-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ttt-config.cmake ${PROJECT_BINARY_DIR}/ttt-config-version.cmake
              ${PROJECT_SOURCE_DIR}/cmake/ttt_model_library.cmake
  DESTINATION ${ttt_package_dir} COMPONENT ttt-dev)

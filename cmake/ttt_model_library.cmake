# ttt_model_library(NAME sources...): a library of model families, found by every ttt program that looks where it is put.
#   CUSTOM   the families bring modules of their own: links the whole core and is tied to this minor release
# Installed with the package, for models that live anywhere.
function(ttt_model_library name)
  cmake_parse_arguments(arg "CUSTOM" "" "" ${ARGN})
  add_library(${name} MODULE ${arg_UNPARSED_ARGUMENTS})
  target_compile_features(${name} PRIVATE cxx_std_20)
  target_link_libraries(${name} PRIVATE ttt::model_sdk)
  if(arg_CUSTOM)
    target_link_libraries(${name} PRIVATE ttt::model)
  endif()
  # Nothing but the entry points is visible, so that two libraries of different releases never see each other's copies.
  set(exports ${CMAKE_CURRENT_BINARY_DIR}/${name}.exports)
  file(CONFIGURE OUTPUT ${exports} CONTENT "{ global: ttt_model_library_*; local: *; };\n" @ONLY)
  target_link_options(${name} PRIVATE -Wl,--version-script=${exports})
  if(NOT (TTT_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES "Clang"))  # whose sanitizers live in the programs alone
    target_link_options(${name} PRIVATE -Wl,--no-undefined)
  endif()
  set_target_properties(${name} PROPERTIES CXX_VISIBILITY_PRESET default INSTALL_RPATH "$ORIGIN/../..")
endfunction()

# Fuzzers of whatever reads files from strangers: bad input ends in a ttt::Error, never in a crash, a leak or a memory bomb.
#   cmake -DTTT_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++-16 -DTTT_SANITIZE=address,undefined
#   ninja ttt_fuzzers && ctest -L fuzz                    TTT_FUZZ_SECONDS: of each; default 8
if(TTT_FUZZ)
  add_custom_target(ttt_fuzzers)
  file(GLOB targets ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/*_fuzz.cpp)
  foreach(source IN LISTS targets)
    get_filename_component(name ${source} NAME_WE)
    string(REPLACE "_fuzz" "" kind ${name})
    add_executable(${name} EXCLUDE_FROM_ALL ${source})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(${name} PRIVATE ttt::convert ttt_options)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(ttt_fuzzers ${name})
    # New inputs go into the build tree; the seeds stay as they are.
    set(found ${CMAKE_CURRENT_BINARY_DIR}/fuzz/${kind})
    file(MAKE_DIRECTORY ${found})
    add_test(NAME fuzz.${kind} COMMAND sh -c "exec $<TARGET_FILE:${name}> -max_total_time=\${TTT_FUZZ_SECONDS:-8} -timeout=10 -rss_limit_mb=2048 \
-max_len=16384 -artifact_prefix=${found}- -print_final_stats=1 ${found} ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/seeds/${kind}")
    set_tests_properties(fuzz.${kind} PROPERTIES LABELS fuzz TIMEOUT 3600)
  endforeach()
endif()

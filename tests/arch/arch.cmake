# The rules of the tree: check.py says which, check_test.py that it finds their violations.
if(Python3_Interpreter_FOUND)
  foreach(rule layers names models sizes links)
    add_test(NAME arch.${rule} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/arch/check.py ${rule} --root ${PROJECT_SOURCE_DIR})
  endforeach()
  add_test(NAME arch.rules_find_violations COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/arch/check_test.py)
endif()
add_test(NAME arch.headers_compile_alone COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/arch/headers.sh ${CMAKE_CXX_COMPILER} ${PROJECT_SOURCE_DIR})
set_tests_properties(arch.headers_compile_alone PROPERTIES TIMEOUT 900 PROCESSORS 2 LABELS arch)

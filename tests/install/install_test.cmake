# Installs the build tree into a prefix of its own; a program in another folder finds the package, builds and generates text; the models
# are built from their folder against the package and found by the installed program.
#   cmake -D BUILD=.. -D SOURCE=.. -D FIXTURE_WRITER=.. -D COMPILER=.. [-D FLAGS=..] [-D BUILD_TYPE=..] [-D LAUNCHER=..] -P install_test.cmake
cmake_minimum_required(VERSION 3.25)

string(RANDOM LENGTH 8 run)  # two runs over one tree do not meet
set(work ${BUILD}/install-test-${run})
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work})

# run(VARIABLE command...): fails the test unless the command succeeds; VARIABLE gets what it printed.
function(run variable)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE out ERROR_VARIABLE err RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}\nended with ${status}\n${out}\n${err}")
  endif()
  set(${variable} "${out}" PARENT_SCOPE)
endfunction()

function(build_project source binary)
  run(ignored ${CMAKE_COMMAND} -S ${source} -B ${binary} -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_CXX_COMPILER=${COMPILER}
      -DCMAKE_CXX_FLAGS=${FLAGS} -DCMAKE_BUILD_TYPE=${BUILD_TYPE} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} ${ARGN})
  run(ignored ${CMAKE_COMMAND} --build ${binary} --parallel 2)
endfunction()

run(ignored ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
file(GLOB_RECURSE names RELATIVE ${prefix} ${prefix}/*)
foreach(name IN LISTS names)
  # All but the program and its documents carries the major version.
  if(NOT name MATCHES "^bin/ttt$|ttt-2/|libttt_[a-z]+\\.so\\.2|completions/ttt$|site-functions/_ttt$|vendor_completions\\.d/ttt\\.fish$")
    message(FATAL_ERROR "${name} would collide with another major version")
  endif()
endforeach()

# The program that a user of the library writes.
build_project(${SOURCE}/tests/install/app ${work}/app)
run(ignored ${CMAKE_COMMAND} -D WRITER=${FIXTURE_WRITER} -D SOURCE=${SOURCE} -D OUT=${work}/model -P ${SOURCE}/tests/demos/make_model.cmake)
run(text ${work}/app/app ${work}/model "The other thing")
string(STRIP "${text}" text)
if(text STREQUAL "")
  message(FATAL_ERROR "the program generated no text")
endif()

# The installed program, away from the build tree, says the same.
run(json ${prefix}/bin/ttt run --model ${work}/model --raw --prompt "The other thing" --max-new-tokens 8 --precision f32 --no-cache --json)
string(JSON answer GET "${json}" text)
string(STRIP "${answer}" answer)
if(NOT answer STREQUAL text)
  message(FATAL_ERROR "ttt run says '${answer}', the program '${text}'")
endif()

# The models are a project of their own over the package: one family of each kind stands for all.
build_project(${SOURCE}/models ${work}/models -DCMAKE_INSTALL_PREFIX=${work}/models-prefix -DTTT_MODEL_FAMILIES=llama,gpt2,xlstm)
run(ignored ${CMAKE_COMMAND} --install ${work}/models)
file(GLOB_RECURSE library ${work}/models-prefix/*.so)
file(GLOB standard ${prefix}/*/ttt-2/models/*.so)
file(REMOVE ${standard})
run(standalone ${prefix}/bin/ttt models --models ${library} --json)
string(JSON found LENGTH "${standalone}" models)
if(NOT found EQUAL 3)
  message(FATAL_ERROR "${found} families in the libraries that were built alone, not 3: ${standalone}")
endif()
run(again ${prefix}/bin/ttt run --models ${library} --model ${work}/model --raw --prompt "The other thing" --max-new-tokens 8 --precision f32 --no-cache
    --json)
string(JSON again GET "${again}" text)
string(STRIP "${again}" again)
if(NOT again STREQUAL text)
  message(FATAL_ERROR "with the models that were built alone: '${again}', else '${text}'")
endif()

# Another major version is refused.
file(WRITE ${work}/other/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)\nproject(other LANGUAGES CXX)\nfind_package(ttt 3.0 CONFIG REQUIRED)\n")
execute_process(COMMAND ${CMAKE_COMMAND} -S ${work}/other -B ${work}/other/build -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_CXX_COMPILER=${COMPILER}
                RESULT_VARIABLE status OUTPUT_QUIET ERROR_VARIABLE message)
if(status EQUAL 0 OR NOT message MATCHES "compatible")
  message(FATAL_ERROR "a project that wants version 3.0 configures: ${message}")
endif()
file(REMOVE_RECURSE ${work})

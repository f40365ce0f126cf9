#include "paths.h"

namespace ttt::test {

std::string source_dir() { return TTT_SOURCE_DIR; }
std::string build_dir() { return TTT_BUILD_DIR; }

}  // namespace ttt::test

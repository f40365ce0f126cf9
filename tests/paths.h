// Where tests find what they read. One object file knows, so that the others are the same in every checkout.
#pragma once

#include <string>

namespace ttt::test {

std::string source_dir();  // of the project
std::string build_dir();

}  // namespace ttt::test

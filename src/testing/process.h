// Programs that describe a build tree: run and read.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ttt::inline v2::testing {

// What a program prints on standard output; it is searched on PATH. Error: it can not be started or fails
// (its last line on standard error is quoted), with `fix` as what to change.
std::string output_of(const std::vector<std::string>& command, const std::filesystem::path& folder,
                      const std::string& fix);

// Its exit status, with its output where ours goes; 128 and more: a signal ended it.
int status_of(const std::vector<std::string>& command, const std::filesystem::path& folder);

}  // namespace ttt::inline v2::testing

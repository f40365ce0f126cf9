#include "testing/process.h"

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

namespace {

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

std::string shell(const std::vector<std::string>& command, const std::filesystem::path& folder) {
  std::string line = "cd " + quoted(folder.string()) + " &&";
  for (const std::string& word : command) line += " " + quoted(word);
  return line;
}

int exit_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

std::string output_of(const std::vector<std::string>& command, const std::filesystem::path& folder,
                      const std::string& fix) {
  std::FILE* pipe = ::popen((shell(command, folder) + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw Error("can not be started", command.front(), fix);
  std::string text;
  std::array<char, 1 << 16> part;
  while (const std::size_t n = std::fread(part.data(), 1, part.size(), pipe)) text.append(part.data(), n);
  if (const int status = exit_status(::pclose(pipe)); status != 0) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    const std::size_t line = text.rfind('\n');
    throw Error("ended with status " + std::to_string(status) + ": " +
                    printable(line == std::string::npos ? text : text.substr(line + 1), 200),
                command.front(), fix);
  }
  return text;
}

int status_of(const std::vector<std::string>& command, const std::filesystem::path& folder) {
  std::fflush(nullptr);
  return exit_status(std::system(shell(command, folder).c_str()));
}

}  // namespace ttt::inline v2::testing

// Model libraries on the host's side: found, opened once, asked in JSON.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ttt/model/build.h"

namespace ttt::inline v2 {

class ModelLibrary {
 public:
  // Error when the file can not be loaded or is no model library.
  explicit ModelLibrary(const std::filesystem::path&);

  struct Gguf {
    std::string architecture;
    std::vector<std::pair<std::string, std::string>> config;
    nlohmann::ordered_json constants;
    std::string key;  // that its files have; empty: any
  };
  struct FamilyEntry {
    std::string name;
    std::vector<std::string> architectures;
    std::vector<Gguf> gguf;
    bool modules = false;
  };

  const std::filesystem::path& path() const { return path_; }
  const std::vector<FamilyEntry>& families() const { return families_; }
  // Error as the library reports it.
  nlohmann::ordered_json ask(const nlohmann::ordered_json& request) const;
  // The modules of its own. Error when it was built for another minor release.
  CustomModules modules() const;

 private:
  std::filesystem::path path_;
  const char* (*entry_)(const char*) = nullptr;
  void (*modules_)(void*) = nullptr;
  int major_ = 0, minor_ = 0;
  std::vector<FamilyEntry> families_;
};

// The given libraries, then those of $TTT_MODELS (paths separated by ':'), then the installed ones; opened
// once per process.
std::vector<std::shared_ptr<const ModelLibrary>> model_libraries(
    const std::vector<std::filesystem::path>& given);

}  // namespace ttt::inline v2

#include "convert/library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "ttt/base/error.h"
#include "ttt/base/version.h"

namespace ttt::inline v2 {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

ModelLibrary::ModelLibrary(const fs::path& path) : path_(path) {
  if (!fs::exists(path)) throw Error("no such file", path.string(), "give the path of a model library (.so)");
  // Libraries stay loaded: their modules may live as long as the process.
  void* handle = dlopen(fs::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr)
    throw Error(std::string("can not be loaded: ") + dlerror(), path.string(),
                "rebuild it for this machine and release");
  entry_ = reinterpret_cast<const char* (*)(const char*)>(dlsym(handle, "ttt_model_library_2"));
  modules_ = reinterpret_cast<void (*)(void*)>(dlsym(handle, "ttt_model_library_modules_2"));
  if (entry_ == nullptr)
    throw Error("not a model library of release 2", path.string(),
                "link it with ttt::model_sdk (docs/add_a_model.md)");
  const Json answer = ask({{"request", "list"}});
  try {
    major_ = answer.at("version").at(0).get<int>();
    minor_ = answer.at("version").at(1).get<int>();
    for (const Json& family : answer.at("families")) {
      FamilyEntry entry{.name = family.at("name").get<std::string>(),
                        .architectures = family.at("architectures").get<std::vector<std::string>>(),
                        .gguf = {},
                        .modules = family.at("modules").get<bool>()};
      for (const Json& part : family.at("gguf")) {
        Gguf gguf{.architecture = part.at("architecture").get<std::string>(),
                  .config = {},
                  .constants = part.at("constants"),
                  .key = part.value("key", std::string())};
        for (const Json& pair : part.at("config"))
          gguf.config.emplace_back(pair.at(0).get<std::string>(), pair.at(1).get<std::string>());
        entry.gguf.push_back(std::move(gguf));
      }
      families_.push_back(std::move(entry));
    }
  } catch (const Json::exception&) {
    throw Error("answers in a form that this release does not know", path.string(),
                "update the core or rebuild the library");
  }
}

Json ModelLibrary::ask(const Json& request) const {
  Json answer = Json::parse(entry_(request.dump(-1, ' ', false, Json::error_handler_t::replace).c_str()),
                            nullptr, false);
  if (answer.is_discarded() || !answer.is_object())
    throw Error("answers with no JSON object", path_.string(), "rebuild the library");
  if (const auto error = answer.find("error"); error != answer.end())
    throw Error(error->value("what", "failed"), error->value("where", path_.string()),
                error->value("fix", ""));
  return answer;
}

CustomModules ModelLibrary::modules() const {
  if (major_ != TTT_VERSION_MAJOR || minor_ != TTT_VERSION_MINOR) {
    throw Error("its modules were built for release " + std::to_string(major_) + "." +
                    std::to_string(minor_) + ", this is " + version(),
                path_.string(), "rebuild it (families without modules of their own need no rebuild)");
  }
  CustomModules modules;
  if (modules_ != nullptr) modules_(&modules);
  return modules;
}

namespace {

// lib/ttt-2/models beside the library that this code is in.
fs::path installed_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&installed_folder), &info) == 0 || info.dli_fname == nullptr)
    return {};
  std::error_code ignored;
  const fs::path self = fs::canonical(info.dli_fname, ignored);
  return ignored ? fs::path{} : self.parent_path() / ("ttt-" + std::to_string(TTT_VERSION_MAJOR)) / "models";
}

std::shared_ptr<const ModelLibrary> open_once(const fs::path& path) {
  static std::mutex mutex;
  static std::map<fs::path, std::shared_ptr<const ModelLibrary>> open;
  const std::lock_guard lock(mutex);
  std::error_code ignored;
  const fs::path key = fs::weakly_canonical(path, ignored);
  auto& library = open[key];
  if (!library) library = std::make_shared<const ModelLibrary>(path);
  return library;
}

}  // namespace

std::vector<std::shared_ptr<const ModelLibrary>> model_libraries(const std::vector<fs::path>& given) {
  std::vector<fs::path> paths = given;
  if (const char* environment = std::getenv("TTT_MODELS")) {
    std::string_view rest = environment;
    while (!rest.empty()) {
      const std::size_t colon = rest.find(':');
      if (const std::string_view one = rest.substr(0, colon); !one.empty()) paths.emplace_back(one);
      rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon + 1);
    }
  }
  std::error_code ignored;
  std::vector<fs::path> installed;
  for (const auto& file : fs::directory_iterator(installed_folder(), ignored)) {
    if (file.path().extension() == ".so") installed.push_back(file.path());
  }
  std::ranges::sort(installed);
  paths.insert(paths.end(), installed.begin(), installed.end());
  std::vector<std::shared_ptr<const ModelLibrary>> libraries;
  for (const fs::path& path : paths) {
    auto library = open_once(path);
    if (std::ranges::find(libraries, library) == libraries.end()) libraries.push_back(std::move(library));
  }
  return libraries;
}

}  // namespace ttt::inline v2

#include "ttt/ops/backend.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <utility>

namespace ttt::inline v2 {

namespace fs = std::filesystem;

Backend::~Backend() = default;

namespace {

constexpr std::string_view prefix = "libttt_backend_", suffix = ".so";
using OpenFunction = void (*)(const DeviceOptions&, std::shared_ptr<Backend>&);

struct Registry {
  std::mutex mutex;
  std::map<std::string, BackendFactory, std::less<>> factories;  // linked into the program
  std::map<std::string, OpenFunction, std::less<>> loaded;       // never unloaded: tensors hold their code
};

Registry& registry() {
  static Registry instance;
  return instance;
}

// <folder of libttt_ops.so>/ttt-2/backends, in the build tree as in the install tree.
fs::path plugin_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&registry), &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code failed;
  fs::path library = fs::absolute(info.dli_fname, failed);
  if (failed) return {};
  return library.parent_path() / ("ttt-" + std::to_string(TTT_VERSION_MAJOR)) / "backends";
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& n : names) text += (text.empty() ? "" : ", ") + n;
  return text;
}

bool plain_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

OpenFunction load(const std::string& name) {
  const fs::path path = plugin_folder() / (std::string(prefix) + name + std::string(suffix));
  std::error_code ignored;
  if (!plain_name(name) || !fs::exists(path, ignored)) {
    const std::vector<std::string> known = backend_names();
    throw Error("no backend \"" + printable(name) + "\"", plugin_folder().string(),
                known.empty() ? "install one" : "use one of " + join(known));
  }
  const auto why = [] {
    const char* text = ::dlerror();
    return std::string(text != nullptr ? text : "unknown error");
  };
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error("the backend \"" + name + "\" cannot be loaded: " + why(), path.string());
  const auto version = reinterpret_cast<int (*)()>(::dlsym(library, "ttt_backend_version"));
  const auto open = reinterpret_cast<OpenFunction>(::dlsym(library, "ttt_backend_open"));
  if (version == nullptr || open == nullptr) {
    throw Error("the library is no backend: " + why(), path.string(), "reinstall it");
  }
  if (const int found = version(); found != backend_abi_version) {
    throw Error("the backend \"" + name + "\" is of release " + std::to_string(found / 1000) + "." +
                    std::to_string(found % 1000) + ", the library of " + std::to_string(TTT_VERSION_MAJOR) +
                    "." + std::to_string(TTT_VERSION_MINOR),
                path.string(), "install both from one release");
  }
  return open;
}

}  // namespace

std::shared_ptr<Backend> open_device(std::string_view name, const DeviceOptions& options) {
  BackendFactory factory = nullptr;
  OpenFunction open = nullptr;
  {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    if (const auto known = r.factories.find(name); known != r.factories.end()) {
      factory = known->second;
    } else if (const auto loaded = r.loaded.find(name); loaded != r.loaded.end()) {
      open = loaded->second;
    }
  }
  std::shared_ptr<Backend> backend;
  if (factory != nullptr) {
    backend = factory(options);
  } else {
    if (open == nullptr) {
      open = load(std::string(name));
      Registry& r = registry();
      const std::lock_guard lock(r.mutex);
      r.loaded.emplace(name, open);
    }
    open(options, backend);
  }
  if (!backend) throw Error("the backend \"" + printable(name) + "\" opened no device");
  return backend;
}

std::shared_ptr<Backend> default_device() {
  static const std::shared_ptr<Backend> device = open_device("cpu");
  return device;
}

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    for (const auto& [name, factory] : r.factories) names.push_back(name);
  }
  std::error_code failed;
  for (fs::directory_iterator it(plugin_folder(), failed), end; !failed && it != end; it.increment(failed)) {
    const std::string file = it->path().filename().string();
    if (file.size() <= prefix.size() + suffix.size() || !file.starts_with(prefix) || !file.ends_with(suffix))
      continue;
    names.push_back(file.substr(prefix.size(), file.size() - prefix.size() - suffix.size()));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void register_backend(std::string_view name, BackendFactory factory) {
  if (!plain_name(name))
    throw Error("a backend cannot be named \"" + printable(name) + "\"", {}, "use a-z, 0-9 and _");
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.factories[std::string(name)] = factory;
}

}  // namespace ttt::inline v2

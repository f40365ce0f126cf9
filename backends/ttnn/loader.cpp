// The part of the TTNN backend that programs load by name. It finds a Python that has the package ttnn,
// starts it in this process (or takes the one that is running), and hands over to the driver, which needs
// Python's symbols and is therefore a library of its own: without Python this one still loads, and says in
// one line what is missing.
#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <sstream>

#include "ttt/ops/backend.h"

namespace ttt::inline v2 {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view where = "ttnn backend";
constexpr const char* install = "python -m pip install 'ttnn==0.81.*' 'numpy<2'";
constexpr const char* driver_name = "ttt_ttnn_driver.so";

using OpenDriver = void (*)(const char*, const DeviceOptions&, std::shared_ptr<Backend>&);

struct Interpreter {
  std::string executable;
  std::string version;  // "3.10"
  std::string library;  // the shared libpython; empty: there is none
  std::string ttnn;     // version of the package; empty: not installed
};

bool has_wheel(const std::string& version) { return version == "3.10" || version == "3.12"; }

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// What an executable says of itself; nothing when it is no Python or does not run.
std::optional<Interpreter> ask(const std::string& executable) {
  static constexpr std::string_view question = R"(import sys, sysconfig, os, importlib.metadata as m
print('%d.%d' % sys.version_info[:2])
v = sysconfig.get_config_var
names = [os.path.join(v('LIBDIR') or '', n) for n in (v('INSTSONAME'), v('LDLIBRARY')) if n and '.so' in n]
print(next((n for n in names if os.path.exists(n)), ''))
try: print(m.version('ttnn'))
except m.PackageNotFoundError: print())";
  const std::string command =
      quoted(executable) + " -c " + quoted(std::string(question)) + " 2>/dev/null </dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), &::pclose);
  if (!pipe) return std::nullopt;
  std::string answer;
  std::array<char, 512> part{};
  while (std::fgets(part.data(), part.size(), pipe.get()) != nullptr) answer += part.data();
  Interpreter found{.executable = executable};
  std::istringstream lines(answer);
  std::getline(lines, found.version) && std::getline(lines, found.library) && std::getline(lines, found.ttnn);
  return found.version.empty() ? std::nullopt : std::optional(found);
}

void require_wheel(const Interpreter& python) {
  if (!has_wheel(python.version)) {
    throw Error("Python " + printable(python.version) + " has no ttnn wheel",
                printable(python.executable, 200), "set TTT_TTNN_PYTHON to a Python 3.10 or 3.12");
  }
  if (python.ttnn.empty()) {
    throw Error("the package ttnn is not installed", printable(python.executable, 200), install);
  }
  if (!python.ttnn.starts_with("0.81.")) {
    throw Error("ttnn " + printable(python.ttnn) + " is installed, this release drives 0.81",
                printable(python.executable, 200), install);
  }
  if (python.library.empty()) {
    throw Error("this Python has no shared library", printable(python.executable, 200),
                "use one that was built with --enable-shared, as Debian's and conda's are");
  }
}

// $TTT_TTNN_PYTHON alone where it is set; else the active virtual environment and what is on PATH.
Interpreter find_interpreter() {
  if (const std::string chosen = environment("TTT_TTNN_PYTHON"); !chosen.empty()) {
    const std::optional<Interpreter> python = ask(chosen);
    if (!python) {
      throw Error("TTT_TTNN_PYTHON is no Python that runs: " + printable(chosen, 200), where,
                  "set it to a Python 3.10 or 3.12 with the package ttnn");
    }
    require_wheel(*python);
    return *python;
  }
  std::vector<std::string> candidates;
  if (const std::string venv = environment("VIRTUAL_ENV"); !venv.empty())
    candidates.push_back(venv + "/bin/python");
  for (const char* name : {"python3.12", "python3.10", "python3"}) {
    std::istringstream path(environment("PATH"));
    for (std::string folder; std::getline(path, folder, ':');) {
      const fs::path file = fs::path(folder) / name;
      if (::access(file.c_str(), X_OK) == 0) candidates.push_back(file.string());
    }
  }
  for (const std::string& candidate : candidates) {
    const std::optional<Interpreter> python = ask(candidate);
    if (!python || !has_wheel(python->version) || python->ttnn.empty()) continue;
    require_wheel(*python);
    return *python;
  }
  throw Error("no Python 3.10 or 3.12 with the package ttnn", where,
              std::string(install) + ", and set TTT_TTNN_PYTHON to that Python");
}

// The version of the Python that this process runs already, if it does: "3.10".
std::optional<std::string> running_version() {
  const auto initialized = reinterpret_cast<int (*)()>(::dlsym(RTLD_DEFAULT, "Py_IsInitialized"));
  const auto version = reinterpret_cast<const char* (*)()>(::dlsym(RTLD_DEFAULT, "Py_GetVersion"));
  if (initialized == nullptr || version == nullptr || initialized() == 0) return std::nullopt;
  const std::string text = version();
  return text.substr(0, text.find('.', text.find('.') + 1));
}

fs::path driver_path() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&driver_path), &info) == 0 || info.dli_fname == nullptr)
    return {};
  std::error_code failed;
  return fs::absolute(info.dli_fname, failed).parent_path() / driver_name;
}

void* load_library(const std::string& path, int visibility) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | visibility);
  if (library == nullptr) {
    const char* why = ::dlerror();
    throw Error("a library cannot be loaded: " + std::string(why != nullptr ? why : "unknown error"), path);
  }
  return library;
}

std::shared_ptr<Backend> open(const DeviceOptions& options) {
  const fs::path driver = driver_path();
  std::error_code ignored;
  if (!fs::exists(driver, ignored)) {
    throw Error("this build has no TTNN driver", driver.string(),
                "install Python 3.10 or newer with its headers (Debian: python3-dev) and build again");
  }
  static std::string python;  // the interpreter that this process has started
  if (const std::optional<std::string> running = running_version(); running && python.empty()) {
    if (!has_wheel(*running)) {
      throw Error("this process runs Python " + *running + ", which has no ttnn wheel", where,
                  "run it with Python 3.10 or 3.12");
    }
  } else if (python.empty()) {
    const Interpreter found = find_interpreter();
    load_library(found.library, RTLD_GLOBAL);
    python = found.executable;
  }
  void* library = load_library(driver.string(), RTLD_LOCAL);
  const auto entry = reinterpret_cast<OpenDriver>(::dlsym(library, "ttt_ttnn_open"));
  if (entry == nullptr) throw Error("the library is no TTNN driver", driver.string(), "reinstall it");
  std::shared_ptr<Backend> backend;
  entry(python.empty() ? nullptr : python.c_str(), options, backend);
  return backend;
}

}  // namespace

}  // namespace ttt::inline v2

extern "C" TTT_EXPORT int ttt_backend_version() { return ttt::backend_abi_version; }

extern "C" TTT_EXPORT void ttt_backend_open(const ttt::DeviceOptions& options,
                                            std::shared_ptr<ttt::Backend>& out) {
  out = ttt::open(options);
}

#include "testing/change.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "ttt/base/error.h"
#include "ttt/base/version.h"

namespace ttt::inline v2::testing {

namespace fs = std::filesystem;

namespace {

using Object = BuildGraph::Object;
using Use = BuildGraph::Use;

// As a name stands in a mangled symbol: "9Attention".
std::string component(const std::string& name) { return std::to_string(name.size()) + name; }
const std::string& scope() {  // of the library: "3ttt2v2"
  static const std::string text = component("ttt") + component("v" + std::to_string(TTT_VERSION_MAJOR));
  return text;
}

// The class of a module: "latent_attention" is LatentAttention.
std::string class_of(const std::string& module) {
  std::string name;
  bool upper = true;
  for (const char c : module) {
    if (c == '_') {
      upper = true;
    } else {
      name += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
      upper = false;
    }
  }
  return name;
}

// Classes of the library whose member functions an object defines.
std::set<std::string> classes_of(const Object& object) {
  std::set<std::string> classes;
  for (const std::string& symbol : object.defines) {
    for (const char* begin : {"_ZN", "_ZNK"}) {
      const std::string prefix = begin + scope();
      if (!symbol.starts_with(prefix)) continue;
      std::size_t at = prefix.size(), length = 0;
      while (at < symbol.size() && std::isdigit(static_cast<unsigned char>(symbol[at])))
        length = length * 10 + static_cast<std::size_t>(symbol[at++] - '0');
      // A function that is no member has its arguments behind its name.
      if (length > 0 && at + length < symbol.size() && std::isupper(static_cast<unsigned char>(symbol[at])) &&
          symbol.find('E', at + length) != std::string::npos)
        classes.insert(symbol.substr(at, length));
    }
  }
  return classes;
}

bool mentions(const std::string& symbol, const std::set<std::string>& classes) {
  return std::ranges::any_of(classes, [&](const std::string& name) {
    return std::ranges::any_of(std::array{"", "Plan", "Config"}, [&](const char* suffix) {
      return symbol.find(component(name + suffix)) != std::string::npos;
    });
  });
}

std::string library_target(const fs::path& library) {
  const std::string stem = library.stem().string();
  return stem.starts_with("lib") ? stem.substr(3) : stem;
}

// The name of a network as the names of test cases spell it.
std::string spelt(std::string name) {
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

// What an instance of a model's own is made of, as JSON.
std::string parameters_of(const Network& network, const ModuleInstance& instance) {
  if (instance.layer < 0) return {};
  const LayerSpec& layer = network.description.spec.layers.at(static_cast<std::size_t>(instance.layer));
  std::string text;
  if (layer.block) text += layer.block->parameters;
  if (const auto* custom = std::get_if<CustomSpec>(&layer.mixer)) text += custom->parameters;
  if (const auto* custom = std::get_if<CustomSpec>(&layer.ffn)) text += custom->parameters;
  return text;
}

constexpr std::string_view custom_prefix = "custom@";

}  // namespace

Change::Part Change::part(const Network& network, const ModuleKind& kind) {
  if (!kind.module.starts_with("custom.")) return kind.module;
  return std::string(custom_prefix) + library_target(network.description.library);
}

Change::Change(const BuildGraph& graph, std::vector<std::string> files,
               const std::vector<std::shared_ptr<const Network>>& networks)
    : graph_(graph) {
  for (const std::string& file : files) classify(file);
  const Target target = make_target(hw::cpu(), "f32");
  for (const auto& network : networks) instances_[network.get()] = module_instances(*network, target);
  find_parts(networks);
  for (const auto& network : networks) {
    bool& breaks = networks_[spelt(network->name)];
    breaks = breaks || std::ranges::any_of(instances_.at(network.get()), [&](const ModuleInstance& i) {
               return !reason(*network, i, Depth::with_parts).empty();
             });
  }
}

void Change::classify(const std::string& file) {
  const std::set<int>& objects = graph_.compiled_from(file);
  const fs::path path = graph_.source_folder() / file;
  const std::string extension = fs::path(file).extension().string();
  if (!objects.empty()) {
    for (const int object : objects) changed_.emplace(object, file);
  } else if (file.starts_with("tests/") && extension != ".txt" && extension != ".cmake") {
    test_files_.insert(file);
  } else if (graph_.configures(file)) {
    everything_ = file;
  } else if (extension == ".cpp" || extension == ".h") {
    std::error_code missing;
    const auto built = fs::last_write_time(graph_.build_folder() / "build.ninja", missing);
    if (fs::exists(path) && fs::last_write_time(path, missing) > built) {
      everything_ = file;
      notes_.push_back(file + " is newer than the build tree: build first for a smaller selection");
    } else {
      notes_.push_back(file + " is in no object of this build");
      plain_.insert(file);
    }
  } else {
    plain_.insert(file);
  }
}

void Change::find_parts(const std::vector<std::shared_ptr<const Network>>& networks) {
  // The objects of each part's class, or of its library.
  std::map<Part, std::set<int>> own;
  std::map<std::string, fs::path> libraries;  // of families
  for (const auto& network : networks) {
    libraries[network->description.family] = network->description.library;
    for (const ModuleInstance& instance : instances_.at(network.get()))
      own.try_emplace(part(*network, instance));
  }
  std::map<int, std::set<std::string>> owners;  // classes of the objects that hold a part's class
  for (std::size_t i = 0; i < graph_.objects().size(); ++i) {
    const std::set<std::string> classes = classes_of(graph_.objects()[i]);
    for (auto& [name, objects] : own) {
      if (!classes.contains(class_of(name))) continue;
      objects.insert(static_cast<int>(i));
      // Few matrices are instances by themselves: the others are tested in the modules that hold them.
      if (name != "linear") owners[static_cast<int>(i)] = classes;
    }
  }
  for (auto& [name, objects] : own) {
    if (!name.starts_with(custom_prefix)) continue;
    objects = graph_.of_target(name.substr(custom_prefix.size()));
  }
  for (const auto& [name, objects] : own) {
    // A part that is a module of its own is tested as one: its owner sees it through its class alone.
    const std::set<int> reached = graph_.reach(objects, [&, &mine = objects](const Object&, const Use& use) {
      const auto owner = owners.find(use.object);
      return owner != owners.end() && !mine.contains(use.object) &&
             std::ranges::all_of(use.symbols,
                                 [&](const std::string& s) { return mentions(s, owner->second); });
    });
    const std::set<int> everything = graph_.reach(objects);
    of_parts_.insert(everything.begin(), everything.end());
    if (std::string why = through(reached); !why.empty()) parts_[name] = std::move(why);
    if (std::string why = through(everything); !why.empty()) with_parts_[name] = std::move(why);
  }

  // What builds networks of parts: every network's.
  const std::string build = "_ZN" + scope() + component("build");
  std::set<int> builders;
  for (std::size_t i = 0; i < graph_.objects().size(); ++i) {
    const auto& defines = graph_.objects()[i].defines;
    const auto at = defines.lower_bound(build);
    if (at != defines.end() && at->starts_with(build)) builders.insert(static_cast<int>(i));
  }
  std::set<int> common = graph_.reach(builders);
  std::erase_if(common, [&](int object) { return of_parts_.contains(object); });
  common_ = through(common);

  for (const auto& [object, file] : changed_) {
    const Object& o = graph_.objects()[static_cast<std::size_t>(object)];
    if (o.target.starts_with("ttt_backend_")) backends_.insert(o.target.substr(12));
  }
  for (const auto& [family, library] : libraries) {
    for (const auto& [object, file] : changed_) {
      const Object& o = graph_.objects()[static_cast<std::size_t>(object)];
      if (o.target != library_target(library)) continue;
      of_parts_.insert(object);
      const fs::path source = family_source(family, graph_.source_folder() / "models");
      // A library of its own belongs to its family; several families in one have a file each.
      if (o.source == source.lexically_relative(graph_.source_folder()).generic_string() ||
          fs::path(o.source).parent_path().filename() != "models")
        families_[family] = file;
    }
  }
}

// How a change gets into what is reached: "src/ops/attention.cpp".
std::string Change::through(const std::set<int>& reached) const {
  for (const auto& [object, file] : changed_) {
    if (!reached.contains(object)) continue;
    const std::string& source = graph_.objects()[static_cast<std::size_t>(object)].source;
    return source == file ? file : file + " in " + source;
  }
  return {};
}

std::string Change::reason(const Network& network, const ModuleInstance& instance, Depth depth) const {
  if (!everything_.empty()) return everything_;
  if (!common_.empty()) return common_;
  const auto& parts = depth == Depth::itself ? parts_ : with_parts_;
  const Part name = part(network, instance);
  if (const auto found = parts.find(name); found != parts.end()) return found->second;
  if (depth == Depth::with_parts && name.starts_with(custom_prefix)) {
    // Parts of the core that it builds by their specs show in its parameters; those of a module inside are a
    // string of their own.
    const std::string parameters = parameters_of(network, instance);
    for (const auto& [core, why] : parts) {
      if (parameters.find("\"" + core + "\"") != std::string::npos ||
          parameters.find("\"" + core + "\\\"") != std::string::npos)
        return why;
    }
  }
  if (const auto found = families_.find(network.description.family); found != families_.end())
    return found->second;
  const bool on_cpu = instance.sku.starts_with("cpu");
  for (const std::string& backend : backends_) {
    if (on_cpu == (backend == "cpu")) return "kernels of the " + backend + " backend";
  }
  for (const std::string& file : test_files_) {
    if (fs::path(file).stem() == network.name) return file;
  }
  return {};
}

std::optional<bool> Change::network_breaks(const std::string& parameter) const {
  const auto found = networks_.find(parameter);
  return found == networks_.end() ? std::optional<bool>() : found->second;
}

std::string Change::reason_of(const BuildGraph::Test& test) const {
  if (!everything_.empty()) return everything_;
  const std::string target =
      test.command.empty() ? std::string() : fs::path(test.command.front()).filename().string();
  const std::string& label = test.label;
  // "golden.Fixtures/Golden.AgreesWithTheReference/NAME": a suite of parameters, the case, its parameter.
  std::string suite_case =
      test.name.starts_with(label + ".") ? test.name.substr(label.size() + 1) : std::string();
  std::string parameter;
  if (const std::size_t first = suite_case.find('/'), dot = suite_case.find('.');
      first != std::string::npos && first < dot)
    suite_case = suite_case.substr(first + 1);
  if (const std::size_t slash = suite_case.find('/'); slash != std::string::npos)
    parameter = suite_case.substr(slash + 1), suite_case.resize(slash);
  std::set<int> object;
  for (const int i : graph_.of_target(target)) {
    const auto& cases = graph_.objects()[static_cast<std::size_t>(i)].cases;
    if (std::ranges::find(cases, suite_case) != cases.end()) object.insert(i);
  }
  for (const std::string& file : test_files_) {
    const std::string suite = fs::path(file).parent_path().lexically_relative("tests").generic_string();
    std::string folder = suite.substr(0, suite.find('/'));
    const bool ours = label.starts_with(folder);
    const bool one = networks_.contains(spelt(fs::path(file).stem().string()));
    if (ours && (!one || parameter.empty() || parameter == spelt(fs::path(file).stem().string())))
      return file;
  }
  if (object.empty()) {
    for (const std::string& word : test.command) {
      for (const auto* files : {&plain_, &test_files_}) {
        for (const std::string& file : *files) {
          if (word.find(file) != std::string::npos) return file;
        }
      }
    }
    if (label == "arch") return "reads all sources";
    for (const auto& [changed, file] : changed_) {
      if (graph_.objects()[static_cast<std::size_t>(changed)].target.ends_with("_tests")) continue;
      return file + " in what it runs";
    }
    return {};
  }
  auto& reached = reached_[{target, object}];
  if (reached.empty()) {
    reached = graph_.reach(object);
    for (const std::string& run : graph_.runs(target)) reached.merge(graph_.reach(graph_.of_target(run)));
  }
  const std::string why = through(reached);
  if (why.empty()) return {};
  // What stands behind the parts of networks breaks the networks that have these parts.
  const bool behind_parts = std::ranges::all_of(changed_, [&](const auto& change) {
    return !reached.contains(change.first) || of_parts_.contains(change.first);
  });
  const std::optional<bool> breaks = network_breaks(parameter);
  return behind_parts && breaks && !*breaks ? std::string() : why;
}

std::vector<SelectedCase> Change::cases() const {
  std::vector<SelectedCase> selected;
  for (const BuildGraph::Test& test : graph_.tests()) {
    if (std::string why = reason_of(test); !why.empty()) selected.push_back({test.name, std::move(why)});
  }
  return selected;
}

}  // namespace ttt::inline v2::testing

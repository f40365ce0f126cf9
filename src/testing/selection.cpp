#include "ttt/testing/selection.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <sstream>

#include "testing/change.h"
#include "testing/process.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

namespace fs = std::filesystem;

namespace {

// Files that differ in a range of commits, or between one commit and the working tree; "A...B" as git diff
// takes it.
std::vector<std::string> changed_files(const std::string& range, const fs::path& source) {
  if (range.empty() || range.front() == '-')
    throw Error("no range of commits", printable(range, 100), "give HEAD, main or A..B");
  std::istringstream text(output_of({"git", "diff", "--name-only", "--no-renames", range, "--"}, source,
                                    "give a range that git diff takes, like HEAD or main...HEAD"));
  std::vector<std::string> files;
  for (std::string line; std::getline(text, line);) {
    if (!line.empty()) files.push_back(line);
  }
  return files;
}

bool of_module(const ModuleInstance& instance, const std::string& module) {
  return module.empty() || instance.kind.module == module || instance.kind.module.starts_with(module + ".");
}

std::string place(const Network& network, const ModuleInstance& instance) {
  std::string text =
      instance.path + " of " + (network.name.empty() ? network.description.architecture : network.name);
  if (instance.count > 1) text += ", " + std::to_string(instance.count) + " times";
  return text;
}

class Selector {
 public:
  explicit Selector(const SelectionOptions& options)
      : options_(options), load_({.model_libraries = options.model_libraries}) {
    for (const std::string& sku : options.skus.empty() ? std::vector<std::string>{"cpu"} : options.skus) {
      const Sku& found = hw::find(sku);
      targets_.push_back(make_target(found, options.precision, found.mesh));
    }
  }

  Selection run() {
    collect();
    if (!options_.family.empty()) keep_family();
    if (!options_.module.empty()) keep_module();
    if (!options_.added.empty()) keep_added();
    if (!options_.changed.empty() || !options_.files.empty()) keep_changed();
    return std::move(result_);
  }

 private:
  void collect() {
    const fs::path& path = options_.added.empty() ? options_.model : options_.added;
    if (!path.empty()) {
      auto network = std::make_shared<Network>(Network{{}, describe(path, load_)});
      std::erase_if(network->description.target.rows,
                    [](const Override& row) { return row.origin != "model"; });
      for (const Target& target : targets_) add(network, target, false);
    } else {
      for (const Target& target : targets_) {
        for (const Network& network : full_size_networks(load_)) add(kept(network), target, false);
      }
      // Small ones have their numbers on the processor.
      if (std::ranges::any_of(targets_, [](const Target& t) { return t.sku.arch == Arch::cpu; })) {
        const Target f32 = make_target(hw::cpu(), "f32");
        for (const Network& network : golden_networks(load_)) add(kept(network), f32, true);
      }
    }
    result_.of_instances = result_.instances.size();
  }

  // Those of the registry live as long as the process.
  static std::shared_ptr<const Network> kept(const Network& network) {
    return {std::shared_ptr<void>(), &network};
  }

  void add(const std::shared_ptr<const Network>& network, const Target& target, bool golden) {
    if (std::ranges::find(networks_, network) == networks_.end()) networks_.push_back(network);
    for (ModuleInstance& instance : module_instances(*network, target)) {
      if (!keys_.insert(instance.key()).second) continue;
      std::string reason = place(*network, instance);
      result_.instances.push_back({std::move(instance), network, target, golden, std::move(reason)});
    }
  }

  void keep(const std::function<bool(SelectedInstance&)>& wanted) {
    std::erase_if(result_.instances, [&](SelectedInstance& s) { return !wanted(s); });
  }

  void keep_family() {
    std::vector<std::string> names;
    for (const FamilyInfo& family : families(options_.model_libraries)) names.push_back(family.name);
    if (std::ranges::find(names, options_.family) == names.end()) {
      const std::string near = nearest(options_.family, names);
      throw Error("no family '" + printable(options_.family) + "'", "the model libraries",
                  near.empty() ? "see ttt models" : "the nearest is " + near);
    }
    // By keys: another family's network may have been the first to have an instance.
    std::map<std::string, std::string> of_family;
    for (const auto& network : networks_) {
      if (network->description.family != options_.family) continue;
      for (const Target& target : all_targets()) {
        for (const ModuleInstance& i : module_instances(*network, target))
          of_family.try_emplace(i.key(), place(*network, i));
      }
    }
    keep([&](SelectedInstance& s) {
      const auto found = of_family.find(s.instance.key());
      if (found != of_family.end()) s.reason = found->second;
      return found != of_family.end();
    });
  }

  std::vector<Target> all_targets() const {
    std::vector<Target> all = targets_;
    all.push_back(make_target(hw::cpu(), "f32"));
    return all;
  }

  void keep_module() {
    std::set<std::string> modules;
    for (const SelectedInstance& s : result_.instances) modules.insert(s.instance.kind.module);
    keep([&](SelectedInstance& s) { return of_module(s.instance, options_.module); });
    if (!result_.instances.empty()) return;
    const std::vector<std::string> names(modules.begin(), modules.end());
    const std::string near = nearest(options_.module, names);
    throw Error("no instance of module '" + printable(options_.module) + "'", "the selection",
                near.empty() ? "see ttt tests select without --module" : "the nearest is " + near);
  }

  void keep_added() {
    std::set<std::string> kinds, keys;
    const std::string& own = networks_.front()->description.architecture;
    for (const Network& network : full_size_networks(load_)) {
      if (network.description.architecture == own) continue;
      for (const Target& target : targets_) {
        for (const ModuleInstance& i : module_instances(network, target)) {
          kinds.insert(i.kind.key());
          keys.insert(i.key());
        }
      }
    }
    keep([&](SelectedInstance& s) {
      if (keys.contains(s.instance.key())) return false;
      s.reason =
          std::string(kinds.contains(s.instance.kind.key()) ? "a new shape" : "a new kind") + ": " + s.reason;
      return true;
    });
  }

  void keep_changed() {
    const fs::path build = options_.build.empty() ? own_build_folder() : options_.build;
    if (build.empty())
      throw Error("no build tree", "a selection by change", "name the one of this source by --build");
    // Once per process.
    static std::map<fs::path, BuildGraph> graphs;
    auto found = graphs.find(build);
    if (found == graphs.end()) found = graphs.emplace(build, BuildGraph::read(build)).first;
    const BuildGraph& graph = found->second;
    std::vector<std::string> files = options_.files;
    if (!options_.changed.empty()) files = changed_files(options_.changed, graph.source_folder());
    const Change change(graph, files, networks_);
    keep([&](SelectedInstance& s) {
      s.reason = change.reason(*s.network, s.instance);
      return !s.reason.empty();
    });
    result_.notes = change.notes();
    result_.cases = change.cases();
    result_.of_cases = graph.tests().size();
  }

  const SelectionOptions& options_;
  LoadOptions load_;
  std::vector<Target> targets_;
  std::vector<std::shared_ptr<const Network>> networks_;
  std::set<std::string> keys_;
  Selection result_;
};

}  // namespace

Selection select_tests(const SelectionOptions& options) { return Selector(options).run(); }

fs::path own_build_folder() {
  std::error_code failed;
  for (fs::path at = fs::read_symlink("/proc/self/exe", failed).parent_path(); at.has_relative_path();
       at = at.parent_path()) {
    if (fs::exists(at / "build.ninja", failed)) return at;
  }
  return {};
}

int run_cases(const std::vector<SelectedCase>& cases, const fs::path& build, int jobs) {
  if (cases.empty()) return 0;
  return status_of({"ctest", "-j", std::to_string(jobs), "--output-on-failure", "--no-label-summary",
                    "--progress", "-R", ctest_pattern(cases)},
                   build);
}

std::string ctest_pattern(const std::vector<SelectedCase>& cases) {
  std::string pattern;
  for (const SelectedCase& c : cases) {
    pattern += pattern.empty() ? "^(" : "|";
    for (const char letter : c.name) {
      if (std::string_view(".+*?()[]^$|\\").find(letter) != std::string_view::npos) pattern += '\\';
      pattern += letter;
    }
  }
  return pattern.empty() ? pattern : pattern + ")$";
}

}  // namespace ttt::inline v2::testing

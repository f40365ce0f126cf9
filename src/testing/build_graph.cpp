#include "ttt/testing/build_graph.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <unordered_map>

#include "testing/process.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

namespace fs = std::filesystem;

namespace {

constexpr const char* build_first = "configure with cmake -G Ninja and build it, or name another by --build";

// Below `folder`, or empty.
std::string below(const fs::path& folder, const fs::path& path) {
  const std::string base = folder.generic_string() + "/", text = path.lexically_normal().generic_string();
  return text.starts_with(base) ? text.substr(base.size()) : std::string();
}

// "_ZN12_GLOBAL__N_119Suite_Case_Test8TestBodyEv" -> "Suite.Case"; empty for any other symbol.
std::string test_case(std::string_view symbol) {
  constexpr std::string_view begin = "_ZN", end = "8TestBodyEv";
  if (!symbol.starts_with(begin) || !symbol.ends_with(end)) return {};
  symbol = symbol.substr(begin.size(), symbol.size() - begin.size() - end.size());
  std::string_view part;
  while (!symbol.empty()) {
    std::size_t digits = 0, length = 0;
    while (digits < symbol.size() && symbol[digits] >= '0' && symbol[digits] <= '9' && length < symbol.size())
      length = length * 10 + static_cast<std::size_t>(symbol[digits++] - '0');
    if (digits == 0 || digits + length > symbol.size()) return {};
    part = symbol.substr(digits, length);
    symbol.remove_prefix(digits + length);
  }
  const std::size_t bar = part.find('_');
  if (bar == std::string_view::npos || !part.ends_with("_Test") || bar + 5 >= part.size()) return {};
  return std::string(part.substr(0, bar)) + "." + std::string(part.substr(bar + 1, part.size() - bar - 6));
}

std::vector<std::string> words(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> all;
  for (std::string word; stream >> word;) all.push_back(std::move(word));
  return all;
}

}  // namespace

BuildGraph BuildGraph::read(const fs::path& build_folder) {
  BuildGraph graph;
  std::error_code missing;
  graph.build_folder_ = fs::canonical(build_folder, missing);
  std::ifstream cache(graph.build_folder_ / "CMakeCache.txt");
  constexpr std::string_view home = "CMAKE_HOME_DIRECTORY:INTERNAL=";
  for (std::string line; std::getline(cache, line);) {
    if (line.starts_with(home)) graph.source_folder_ = line.substr(home.size());
  }
  if (graph.source_folder_.empty() || !fs::exists(graph.build_folder_ / "build.ninja"))
    throw Error("no build tree of Ninja", printable(build_folder.string(), 200), build_first);
  graph.read_dependencies();
  graph.read_targets();
  graph.read_symbols();
  graph.read_tests();
  return graph;
}

// "OBJECT: #deps N, ..." and below it the files that it was compiled from, its source first.
void BuildGraph::read_dependencies() {
  std::istringstream text(output_of({"ninja", "-t", "deps"}, build_folder_, "install ninja"));
  int object = -1;
  for (std::string line; std::getline(text, line);) {
    if (line.empty()) continue;
    if (line.front() != ' ') {
      object = -1;
      const std::size_t colon = line.find(": #deps");
      const std::size_t dir = line.rfind(".dir/", colon), begin = line.rfind("CMakeFiles/", dir);
      if (colon == std::string::npos || dir == std::string::npos || begin == std::string::npos) continue;
      const std::string path = line.substr(0, colon);
      if (!fs::exists(build_folder_ / path)) continue;
      object = static_cast<int>(objects_.size());
      objects_.push_back({.path = path, .source = {}, .target = line.substr(begin + 11, dir - begin - 11)});
      continue;
    }
    if (object < 0) continue;
    const fs::path path = line.substr(line.find_first_not_of(' '));
    const std::string file = below(source_folder_, path.is_absolute() ? path : build_folder_ / path);
    if (file.empty()) continue;
    Object& o = objects_[static_cast<std::size_t>(object)];
    if (o.source.empty()) o.source = file;
    compiled_from_[file].insert(object);
  }
  if (objects_.empty()) throw Error("nothing is compiled", build_folder_.string(), build_first);
}

void BuildGraph::read_symbols() {
  std::vector<std::string> command{"nm", "-A", "-P"};
  std::unordered_map<std::string, int> by_path;
  for (std::size_t i = 0; i < objects_.size(); ++i) {
    command.push_back(objects_[i].path);
    by_path.emplace(objects_[i].path, static_cast<int>(i));
  }
  struct Definers {
    std::vector<int> strong, weak;
  };
  std::unordered_map<std::string, Definers> definers;
  std::vector<std::pair<int, std::string>> undefined;
  std::istringstream text(output_of(command, build_folder_, "install binutils"));
  for (std::string line; std::getline(text, line);) {  // PATH: SYMBOL TYPE ..
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const auto object = by_path.find(line.substr(0, colon));
    const std::size_t end = line.find(' ', colon + 2);
    if (object == by_path.end() || end == std::string::npos || end + 1 >= line.size()) continue;
    std::string symbol = line.substr(colon + 2, end - colon - 2);
    Object& o = objects_[static_cast<std::size_t>(object->second)];
    const char type = line[end + 1];
    if (std::string test = test_case(symbol); !test.empty() && type != 'U')
      o.cases.push_back(std::move(test));
    if (type == 'U') {
      undefined.emplace_back(object->second, std::move(symbol));
    } else if (type == 'W' || type == 'V') {
      definers[symbol].weak.push_back(object->second);
    } else if (type >= 'A' && type <= 'Z') {
      o.defines.insert(symbol);
      definers[symbol].strong.push_back(object->second);
    }
  }
  // What a program defines is its own, also where it is named as a library's (operator new of a test).
  const auto serves = [&](int definer, int user) {
    const std::string& target = objects_[static_cast<std::size_t>(definer)].target;
    return !programs_.contains(target) || objects_[static_cast<std::size_t>(user)].target == target;
  };
  std::map<std::pair<int, int>, std::vector<std::string>> uses;
  for (auto& [object, symbol] : undefined) {
    const auto found = definers.find(symbol);
    if (found == definers.end()) continue;
    for (const int definer : found->second.strong.empty() ? found->second.weak : found->second.strong) {
      if (definer != object && serves(definer, object)) uses[{object, definer}].push_back(symbol);
    }
  }
  for (auto& [edge, symbols] : uses)
    objects_[static_cast<std::size_t>(edge.first)].uses.push_back({edge.second, std::move(symbols)});
}

// build.ninja: "build OUTPUT..: ..LINKER__TARGET_CONFIG objects | libraries || what else must be there".
void BuildGraph::read_targets() {
  std::ifstream file(build_folder_ / "build.ninja");
  std::map<std::string, std::string> target_of;                  // by output
  std::map<std::string, std::vector<std::string>> waits, phony;  // by target; by name
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("build ")) continue;
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    std::vector<std::string> outputs = words(line.substr(6, colon - 6)),
                             inputs = words(line.substr(colon + 2));
    if (inputs.empty()) continue;
    const std::string rule = inputs.front();
    if (rule == "RERUN_CMAKE") {
      for (const std::string& input : inputs) {
        if (std::string name = below(source_folder_, input); !name.empty())
          configures_.insert(std::move(name));
      }
    } else if (rule == "phony") {
      phony[outputs.front()] = {inputs.begin() + 1, inputs.end()};
    } else if (const std::size_t linker = rule.find("_LINKER__"); linker != std::string::npos) {
      const std::string target = rule.substr(linker + 9, rule.rfind('_') - linker - 9);
      if (rule.find("EXECUTABLE") != std::string::npos) programs_.insert(target);
      // Shared libraries are linked; what else a target waits for it runs or loads.
      if (rule.find("SHARED_LIBRARY") == std::string::npos) {
        for (const std::string& output : outputs) target_of[output] = target;
      }
      const auto order_only = std::ranges::find(inputs, "||");
      if (order_only != inputs.end()) waits[target].assign(order_only + 1, inputs.end());
    }
  }
  for (const auto& [target, names] : waits) {
    std::vector<std::string> open = names;
    std::set<std::string> seen;
    while (!open.empty()) {
      const std::string name = std::move(open.back());
      open.pop_back();
      if (!seen.insert(name).second) continue;
      const auto made = target_of.find(name);
      if (made != target_of.end()) runs_[target].insert(made->second);
      if (const auto alias = phony.find(name); alias != phony.end())
        open.insert(open.end(), alias->second.begin(), alias->second.end());
    }
  }
}

void BuildGraph::read_tests() {
  using Json = nlohmann::json;
  const Json listed = Json::parse(
      output_of({"ctest", "--show-only=json-v1"}, build_folder_, "install CMake's ctest"), nullptr, false);
  if (!listed.is_object()) throw Error("no list of tests", "ctest --show-only=json-v1", "update CMake");
  for (const Json& test : listed.value("tests", Json::array())) {
    Test t{.name = test.value("name", ""),
           .label = {},
           .command = test.value("command", std::vector<std::string>())};
    t.label = t.name.substr(0, t.name.find('.'));
    for (const Json& property : test.value("properties", Json::array())) {
      if (property.value("name", "") == "LABELS" && !property.at("value").empty())
        t.label = property.at("value").at(0).get<std::string>();
    }
    tests_.push_back(std::move(t));
  }
}

const std::set<int>& BuildGraph::compiled_from(std::string_view file) const {
  static const std::set<int> none;
  const auto found = compiled_from_.find(file);
  return found == compiled_from_.end() ? none : found->second;
}

std::set<int> BuildGraph::of_target(std::string_view target) const {
  std::set<int> all;
  for (std::size_t i = 0; i < objects_.size(); ++i) {
    if (objects_[i].target == target) all.insert(static_cast<int>(i));
  }
  return all;
}

const std::set<std::string>& BuildGraph::runs(std::string_view target) const {
  static const std::set<std::string> none;
  const auto found = runs_.find(target);
  return found == runs_.end() ? none : found->second;
}

std::set<int> BuildGraph::reach(const std::set<int>& from, const Stop& stop) const {
  std::set<int> reached = from;
  std::vector<int> open(from.begin(), from.end());
  while (!open.empty()) {
    const Object& object = objects_[static_cast<std::size_t>(open.back())];
    open.pop_back();
    for (const Use& use : object.uses) {
      if (stop && stop(object, use)) continue;
      if (reached.insert(use.object).second) open.push_back(use.object);
    }
  }
  return reached;
}

}  // namespace ttt::inline v2::testing

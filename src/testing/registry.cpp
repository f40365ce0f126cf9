#include "ttt/testing/registry.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "testing/registry_data.h"
#include "testing/rounding.h"
#include "ttt/base/error.h"
#include "ttt/base/version.h"
#include "ttt/testing/networks.h"

namespace ttt::inline v2::testing {

using Json = nlohmann::ordered_json;

const std::vector<KnownArchitecture>& known_architectures() {
  static const std::vector<KnownArchitecture> known = [] {
    std::vector<KnownArchitecture> all;
    const Json table = Json::parse(architectures_json);
    for (const Json& row : table.at("architectures")) {
      Json config = row.at("config");
      config["architectures"] = Json::array({row.at("architecture")});
      all.push_back(
          {row.at("name").get<std::string>(), row.at("architecture").get<std::string>(), config.dump()});
    }
    return all;
  }();
  return known;
}

// ---------------------------------------------------------------- evidence

std::vector<Evidence> parse_evidence(std::string_view text) {
  std::vector<Evidence> all;
  const Json json = Json::parse(text, nullptr, false);
  try {
    for (const Json& row : json.at("goldens")) {
      Evidence e{.golden = row.at("golden").get<std::string>(),
                 .architecture = row.at("architecture").get<std::string>(),
                 .family = row.at("family").get<std::string>(),
                 .reference = row.at("reference").get<std::string>(),
                 .device = row.at("device").get<std::string>(),
                 .version = row.at("version").get<std::string>(),
                 .date = row.at("date").get<std::string>(),
                 .seconds = row.at("seconds").get<double>()};
      for (const auto& [precision, run] : row.at("runs").items())
        e.runs[precision] = {.passed = run.at("passed").get<bool>(),
                             .largest_error = run.at("largest_error").get<double>(),
                             .pcc = run.at("pcc").get<double>()};
      all.push_back(std::move(e));
    }
  } catch (const Json::exception&) {
    throw Error("no table of evidence", "row " + std::to_string(all.size()),
                "it is written by ttt eval golden --record");
  }
  return all;
}

const std::vector<Evidence>& golden_evidence() {
  static const std::vector<Evidence> all = parse_evidence(evidence_json);
  return all;
}

double rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return std::strtod(text, nullptr);
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
  return text;
}

Evidence evidence_of(const GoldenResult& result) {
  Evidence e{.golden = result.name,
             .architecture = result.architecture,
             .family = result.family,
             .reference = result.reference,
             .device = result.device,
             .version = version(),
             .date = today(),
             .seconds = rounded(result.seconds)};
  for (const GoldenRun& run : result.runs)
    e.runs[run.precision] = {run.passed, rounded(run.max_error), std::floor(run.pcc * 1e6) / 1e6};
  return e;
}

void record_evidence(const std::filesystem::path& path, std::span<const GoldenResult> results) {
  std::map<std::string, Evidence> rows;
  if (std::ifstream file(path); file) {
    for (Evidence& e : parse_evidence(std::string(std::istreambuf_iterator<char>(file), {})))
      rows[e.golden] = std::move(e);
  }
  for (const GoldenResult& result : results) {
    Evidence e = evidence_of(result);
    e.runs.merge(rows[e.golden].runs);
    rows[e.golden] = std::move(e);
  }
  std::string text = "{\"source\": \"written by ttt eval golden --record\", \"goldens\": [\n";
  for (const auto& [golden, e] : rows) {
    Json runs = Json::object();
    for (const auto& [precision, run] : e.runs)
      runs[precision] = {{"passed", run.passed}, {"largest_error", run.largest_error}, {"pcc", run.pcc}};
    const Json row{{"golden", golden},       {"architecture", e.architecture},
                   {"family", e.family},     {"reference", e.reference},
                   {"device", e.device},     {"version", e.version},
                   {"date", e.date},         {"seconds", e.seconds},
                   {"runs", std::move(runs)}};
    text += (text.ends_with("[\n") ? "  " : ",\n  ") + row.dump();
  }
  std::ofstream file(path, std::ios::binary);
  file << text << "\n]}\n";
  if (!file.flush())
    throw Error("can not be written", printable(path.string(), 200), "check the path and the disk");
}

// ---------------------------------------------------------------- the test set

namespace {

struct Configuration {
  std::string name, config;
};

// What the libraries make of configurations; cached by libraries.
const std::vector<Network>& networks(
    const LoadOptions& options, const std::function<std::vector<Configuration>()>& configurations,
    std::map<std::vector<std::filesystem::path>, std::vector<Network>>& cache) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const auto [found, made] = cache.try_emplace(options.model_libraries);
  std::vector<Network>& all = found->second;
  if (!made) return all;
  for (const Configuration& c : configurations()) {
    try {
      Network network{c.name, describe_config(c.config, {.model_libraries = options.model_libraries})};
      std::erase_if(network.description.target.rows,
                    [](const Override& row) { return row.origin != "model"; });
      all.push_back(std::move(network));
    } catch (
        const Error&) {  // a default that contradicts itself is nobody's network, nor is one of no family
    }
  }
  return all;
}

}  // namespace

const std::vector<Network>& full_size_networks(const LoadOptions& options) {
  static std::map<std::vector<std::filesystem::path>, std::vector<Network>> cache;
  return networks(
      options,
      [&] {
        std::vector<Configuration> all;
        for (const FamilyInfo& family : families(options.model_libraries)) {
          for (const std::string& architecture : family.architectures) {
            for (const KnownArchitecture& known : known_architectures()) {
              if (known.architecture == architecture) all.push_back({known.name, known.config});
            }
          }
        }
        return all;
      },
      cache);
}

const std::vector<Network>& golden_networks(const LoadOptions& options) {
  static std::map<std::vector<std::filesystem::path>, std::vector<Network>> cache;
  return networks(
      options,
      [] {
        std::vector<Configuration> all;
        for (const auto& [name, config] : golden_configurations)
          all.push_back({std::string(name), std::string(config)});
        return all;
      },
      cache);
}

std::vector<ModuleInstance> module_instances(const Network& network, const Target& target) {
  Target own = target;
  const std::vector<Override>& rows = network.description.target.rows;
  own.rows.insert(own.rows.end(), rows.begin(), rows.end());
  return module_instances(network.description.spec, own);
}

std::filesystem::path family_source(std::string_view family, const std::filesystem::path& models) {
  const std::string quoted = "\"" + std::string(family) + "\"";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(models, ignored)) {
    if (entry.path().extension() != ".cpp") continue;
    std::ifstream file(entry.path());
    for (std::string line, before; std::getline(file, line); before = line) {
      // The name may stand on the line behind.
      const std::string both = before + line;
      if (both.find("Family ") != std::string::npos && both.find('{') != std::string::npos &&
          line.find(quoted) != std::string::npos)
        return entry.path();
    }
  }
  return {};
}

std::vector<ScalingRow> scaling(std::span<const Target> targets, const LoadOptions& options) {
  std::vector<ScalingRow> rows;
  std::set<std::string> kinds, instances;
  ScalingRow sum;
  for (const Network& network : full_size_networks(options)) {
    sum.architecture = network.description.architecture;
    sum.family = network.description.family;
    for (const Target& target : targets) {
      for (const ModuleInstance& instance : module_instances(network, target)) {
        kinds.insert(instance.kind.key());
        instances.insert(instance.key());
        ++sum.product;
      }
    }
    sum.new_kinds = kinds.size() - std::exchange(sum.kinds, kinds.size());
    sum.new_instances = instances.size() - std::exchange(sum.instances, instances.size());
    for (const Evidence& e : golden_evidence()) {
      if (e.golden == network.name) sum.golden_seconds += e.seconds;
    }
    rows.push_back(sum);
  }
  return rows;
}

Addition addition(const ModelSpec& spec, const Target& target, const LoadOptions& options,
                  std::string_view except) {
  std::set<std::string> kinds, instances;
  for (const Network& network : full_size_networks(options)) {
    if (network.description.architecture == except) continue;
    for (const ModuleInstance& instance : module_instances(network, target)) {
      kinds.insert(instance.kind.key());
      instances.insert(instance.key());
    }
  }
  Addition result;
  for (ModuleInstance& instance : module_instances(spec, target)) {
    ++result.of;
    if (kinds.insert(instance.kind.key()).second) result.kinds.push_back(instance.kind);
    if (!instances.contains(instance.key())) result.instances.push_back(std::move(instance));
  }
  return result;
}

}  // namespace ttt::inline v2::testing

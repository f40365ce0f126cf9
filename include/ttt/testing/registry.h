// What is known of the architectures that model libraries provide: the default configurations of their
// full-size checkpoints, and what was measured of them on goldens. From both: the test set, and what each
// model adds to it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/instances.h"

namespace ttt::inline v2::testing {

// A default configuration (data/models/architectures.json, from tools/full_size.py).
struct KnownArchitecture {
  std::string name;          // transformers' model type
  std::string architecture;  // of config.json
  std::string config;        // the text of a config.json
};
const std::vector<KnownArchitecture>& known_architectures();

// What goldens showed (data/models/evidence.json, written by `ttt eval golden --record`).
struct Evidence {
  struct Run {
    bool passed = false;
    double largest_error = 0, pcc = 0;
    bool operator==(const Run&) const = default;
  };
  std::string golden;                // folder or fixture
  std::string architecture, family;  // as in GoldenResult
  std::string reference, device, version, date;
  double seconds = 0;                 // wall time of the runs
  std::map<std::string, Run> runs{};  // by precision
  bool operator==(const Evidence&) const = default;
};
const std::vector<Evidence>& golden_evidence();
Evidence evidence_of(const GoldenResult&);
// Error names the row when the text is not such a table.
std::vector<Evidence> parse_evidence(std::string_view json);
// Puts results into a file of evidence, in place of what it has of the same golden at the same precision.
// Error: the file is there and is none, or can not be written.
void record_evidence(const std::filesystem::path&, std::span<const GoldenResult>);

// How the test set grows, one row per architecture in the order of the registry.
struct ScalingRow {
  std::string architecture, family;
  std::size_t new_kinds = 0, kinds = 0;          // distinct module kinds: what it adds, and all so far
  std::size_t new_instances = 0, instances = 0;  // the same of module instances, over all targets
  std::size_t product = 0;    // were nothing shared: the instances of each model by itself, added up
  double golden_seconds = 0;  // wall time of the goldens of all so far, as far as there is evidence
};
// Networks are those of known_architectures() that the libraries of `options` provide.
std::vector<ScalingRow> scaling(std::span<const Target> targets, const LoadOptions& options = {});

// What a network adds to the test set of the others: instances whose kind, or whose shape and formats no
// known architecture has. `except`: the architecture that does not count.
struct Addition {
  std::vector<ModuleKind> kinds{};
  std::vector<ModuleInstance> instances{};
  std::size_t of = 0;  // instances of the network
};
Addition addition(const ModelSpec&, const Target&, const LoadOptions& options, std::string_view except = {});

}  // namespace ttt::inline v2::testing

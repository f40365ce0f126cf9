// The networks of the test set, as what the model libraries make of configurations.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/testing/instances.h"

namespace ttt::inline v2::testing {

struct Network {
  std::string name;         // of the known architecture, or of the golden: NAME, NAME@VARIANT
  Description description;  // its target's rows are the model's own alone
};
// The known architectures that the libraries of `options` provide, in the order of the registry.
const std::vector<Network>& full_size_networks(const LoadOptions& options = {});
// The configurations of the goldens (tests/golden/fixtures): small, and of every kind of module.
const std::vector<Network>& golden_networks(const LoadOptions& options = {});
// The instances of a network with its model's own rows over those of the target.
std::vector<ModuleInstance> module_instances(const Network&, const Target&);

// The file below `models` that registers a family, `Family name{"family", ..`; empty: none.
std::filesystem::path family_source(std::string_view family, const std::filesystem::path& models);

}  // namespace ttt::inline v2::testing

// What all modules share. Each module is three types, so that "unresolved" can not be represented:
//   XConfig   weights and what can not be read off them; everything else is optional;
//   XPlan     resolve(config, target): a pure function that decides the rest; plain data, printable,
//   comparable; X         runs a plan. X(weights..) for most users, X::from_config(config, target) for the
//   others.
// State (caches, positions) is a parameter of prefill() and decode(); modules are const at run time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ttt/debug/check.h"
#include "ttt/debug/tap.h"
#include "ttt/hw/target.h"
#include "ttt/modules/step.h"
#include "ttt/ops/ops.h"
#include "ttt/perf/zone.h"
#include "ttt/tensor/lazy_weight.h"

namespace ttt::inline v2 {

// Position of a module in the network, for taps and override rows: "layers.3.attn" and 3.
struct ModuleName {
  std::string path;
  int layer = -1;
  ModuleName operator/(std::string_view part) const {
    return {path.empty() ? std::string(part) : path + "." + std::string(part), layer};
  }
  bool operator==(const ModuleName&) const = default;
};

// Where modules live: the device that runs them and the cache of its packed weights.
struct Home {
  std::shared_ptr<Backend> device{};  // null: default_device()
  WeightCache cache{};                // default: none, weights are converted in memory
  std::shared_ptr<std::vector<LazyWeight>>
      bound{};  // where set, every weight that a module binds is added to it

  Backend& backend() const;
  // Undefined stays undefined.
  LazyWeight bind(const LazyWeight&, DataType, const MemoryConfig& = {}, const Sharding& = {}) const;
};

// Vectors (norm weights, biases, sinks) are kept in float32: their bytes do not count, their roundings would.
constexpr DataType vector_dtype = DataType::f32;

// A plan as rows, for ttt inspect plan, for messages and for tests.
struct PlanRow {
  std::string module, field, value;
  bool operator==(const PlanRow&) const = default;
};
using PlanRows = std::vector<PlanRow>;

// A module's forward, for whoever measures time or hunts NaNs: a zone under its path. Costs two loads and two
// branches when nobody does.
class ModuleScope {
 public:
  explicit ModuleScope(const ModuleName& module)
      : zone_(module.path, perf::ZoneKind::module, module.layer), place_(module.path) {}

 private:
  perf::Zone zone_;
  debug::Place place_;
};

// Shows an intermediate of a module under "layers.3.attn.q_rope". Costs one load and one branch when nobody
// listens.
void tap(const Tensor& x, const ModuleName& module, std::string_view part = {});

}  // namespace ttt::inline v2

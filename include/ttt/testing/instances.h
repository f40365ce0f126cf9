// Module kinds and instances: the units in which this library is tested. A kind is a module with its knobs,
// an instance a kind at a shape, in number formats, in one mode, on one SKU. The test set is the set of
// distinct instances over all models, so that one more model costs what it adds and not a product
// (docs/architecture.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ttt/hw/target.h"
#include "ttt/model/spec.h"
#include "ttt/modules/step.h"

namespace ttt::inline v2::testing {

// What is computed, without sizes: "attention[qk_norm=per_head,qkv_bias,rope,window]". A knob is a field of
// the module's spec that is not at its default and decides which operations run; numbers that only enter them
// (eps, theta, the values of a scaling) are none. Parts that are modules of their own (rope, norms, router,
// shared experts) are kinds of their own, and their owner has a knob that says they are there.
struct ModuleKind {
  std::string module;                // "attention", "norm", "mlp", "custom.NAME", ...
  std::vector<std::string> knobs{};  // sorted
  std::string key() const;
  bool operator==(const ModuleKind&) const = default;
};

struct ModuleInstance {
  ModuleKind kind;
  std::vector<std::pair<std::string, std::int64_t>> shape{};  // "heads" 32, by name; of the whole mesh
  std::vector<std::pair<std::string, DataType>> dtypes{};  // of each matrix, "kv" and "activations", by name
  Mode mode = Mode::prefill;
  std::string sku;        // "t3k", with the mesh behind it where that is not the SKU's own: "t3k:1x4"
  std::string path{};     // the first module of the network that is this instance: "layers.0.attn"
  int layer = -1;         // and its layer: spec.layers[layer] describes it; -1: outside of the layers
  std::size_t count = 0;  // modules of the network that are this instance
  // One line that identifies it in files: equal for equal instances whatever network they stem from, and over
  // releases as long as the spec's fields keep their names.
  std::string key() const;
};

// The distinct instances of a network, prefill before decode, in the order of execution. Pure: needs no
// checkpoint and no device.
std::vector<ModuleInstance> module_instances(const ModelSpec&, const Target&);

// The instance that each module of a network is, in both modes alike: by its path ("layers.3.attn"), in
// prefill. Pure.
std::map<std::string, ModuleInstance, std::less<>> instances_by_path(const ModelSpec&, const Target&);

}  // namespace ttt::inline v2::testing

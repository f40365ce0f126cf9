// A weight map applied to the names and shapes of one checkpoint: for every slot of the network, where it
// comes from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/weight_map.h"
#include "ttt/model/spec.h"
#include "ttt/tensor/weight_source.h"

namespace ttt::inline v2 {

class Checkpoint;

struct NamedShape {
  std::string name{};
  std::vector<std::int64_t> shape{};  // outermost first
};

// What the network takes of one tensor.
struct TensorUse {
  std::vector<std::string> slots{};  // that are made of it or of a part; none: it is ignored
  bool changed = false;              // values are transformed on the way (something is added, a function)
  // The axis along which the outputs of a linear weight run, -2 or -1, if all cuts are at multiples of 16
  // outputs: then the blocks of a block format stay whole. Else 0.
  int output_axis = 0;
};

// Immutable; copies share.
class Binding {
 public:
  bool has(std::string_view slot) const;
  // The weight as [rows, cols] of its slot. Undefined (null) for an optional slot without a tensor; Error for
  // a name that is no slot.
  WeightSourcePtr source(std::string_view slot, const Checkpoint&) const;
  // "rows 0 to 575 of model.layers.0.self_attn.qkv_proj.weight, plus 1", or "" for an empty slot.
  std::string describe(std::string_view slot) const;
  std::vector<std::string> slots() const;    // in the order they were given
  std::vector<std::string> ignored() const;  // checkpoint tensors that no slot uses
  std::vector<TensorUse> uses() const;       // of all tensors, in the order they were given
  // {"weights": [{"slot", "shape", "role", "from"}], "ignored": [...]}
  std::string to_json(int indent = 2) const;

 private:
  friend Binding bind_weights(const WeightMap&, std::span<const NamedShape>, std::span<const WeightSlot>);
  struct State;
  std::shared_ptr<const State> state_;
};

// One Error that lists every missing, leftover, doubly used and misshapen tensor with its nearest match (the
// first of each kind, and how many more), before any byte is read. Linear in the number of tensors.
Binding bind_weights(const WeightMap&, std::span<const NamedShape> tensors,
                     std::span<const WeightSlot> slots);

// What keeps tensors from being the network's weights, by kind: missing, unknown (no rule takes it), left
// over (the network has no such weight), doubly given, incomplete, misshapen.
struct WeightProblem {
  std::string kind{};
  std::size_t count = 0;
  std::vector<std::string> examples{};  // the first of them, each with its nearest match
  std::vector<std::string> names{};     // of all missing weights or unknown tensors
};
// All problems of which bind_weights() makes one Error; none: it binds.
std::vector<WeightProblem> weight_problems(const WeightMap&, std::span<const NamedShape> tensors,
                                           std::span<const WeightSlot> slots);

}  // namespace ttt::inline v2

// The weights of a network as its modules bound them, for planners.
#pragma once

#include <span>

#include "ttt/model/causal_lm.h"
#include "ttt/tensor/lazy_weight.h"

namespace ttt::inline v2 {

// What a CausalLM that keeps a list of them derives from besides; what build() makes does.
class BoundWeights {
 public:
  virtual ~BoundWeights();
  // Name, dtype, placement and division over the mesh.
  virtual std::span<const LazyWeight> weights() const = 0;
};

// Empty where the model keeps no list.
std::span<const LazyWeight> bound_weights(const CausalLM&);

}  // namespace ttt::inline v2

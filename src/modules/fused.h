// Several projections of one input as one matrix.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "ttt/modules/linear.h"

namespace ttt::inline v2 {

struct Projection {
  LazyWeight weight, bias{};
};

// The projections side by side; where some have a bias, the others count as having zeros. `groups`: of
// LazyWeight::concat.
inline LinearConfig fused(std::span<const Projection> parts, const ModuleName& name,
                          std::int64_t groups = 1) {
  std::vector<LazyWeight> weights, biases;
  bool any = false;
  for (const Projection& part : parts) any = any || part.bias;
  for (const Projection& part : parts) {
    if (!part.weight) throw Error("a weight is missing", name.path, "check the weight map");
    weights.push_back(part.weight);
    if (any)
      biases.push_back(part.bias ? part.bias
                                 : LazyWeight::from_values(
                                       std::vector<float>(static_cast<std::size_t>(part.weight.rows())), 1,
                                       part.weight.rows(), WeightRole::vector));
  }
  return {.weight = weights.size() == 1 ? weights.front() : LazyWeight::concat(std::move(weights), groups),
          .bias = any ? biases.size() == 1 ? biases.front() : LazyWeight::concat(std::move(biases), groups)
                      : LazyWeight{},
          .name = name};
}
inline LinearConfig fused(std::initializer_list<Projection> parts, const ModuleName& name) {
  return fused(std::span(parts.begin(), parts.size()), name);
}

// Columns [begin, begin + width) of a fused result, as a view; begin moves on.
inline Tensor take(const Tensor& x, std::int64_t& begin, std::int64_t width) {
  begin += width;
  return x.narrow(3, begin - width, begin);
}

}  // namespace ttt::inline v2

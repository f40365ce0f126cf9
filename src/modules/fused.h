// What modules share: several projections of one input as one matrix, gates on what attention gives.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "ttt/modules/linear.h"
#include "ttt/modules/spec.h"

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

// Error unless the weight is there and has so many rows.
inline void expect_rows(const LazyWeight& weight, const char* part, std::int64_t rows,
                        const ModuleName& name) {
  if (!weight) throw Error(std::string("no weight ") + part, name.path, "check the weight map");
  if (weight.rows() != rows)
    throw Error(std::string(part) + " has " + std::to_string(weight.rows()) + " rows, expected " +
                    std::to_string(rows),
                name.path, "check the weight map and the number of heads");
}

// Columns [begin, begin + width) of a fused result, as a view; begin moves on.
inline Tensor take(const Tensor& x, std::int64_t& begin, std::int64_t width) {
  begin += width;
  return x.narrow(3, begin - width, begin);
}

// act(x W_gate + b) of an attention of `heads` whose values have v_dim dimensions.
inline LinearPlan resolve_gate(const AttentionGateSpec& spec, const LazyWeight& weight,
                               const LazyWeight& bias, std::int64_t heads, std::int64_t v_dim,
                               const ModuleName& name, const Target& target) {
  expect_rows(weight, "gate", spec.per_head ? heads : heads * v_dim, name);
  return resolve(LinearConfig{.weight = weight,
                              .bias = bias,
                              .name = name / "gate",
                              .activation = Activation{spec.act},
                              .parallel = Parallel::column},
                 target);
}
// context [1, 1, tokens, heads * v_dim] times its gate.
inline Tensor gated(Tensor context, const Tensor& gate, const AttentionGateSpec& spec, std::int64_t heads) {
  if (!spec.per_head) return ops::mul(std::move(context), gate);
  const Shape flat = context.shape(), by_head{1, flat[2], heads, flat[3] / heads};
  return ops::mul(context.reshape(by_head), gate.reshape({1, flat[2], heads, 1})).reshape(flat);
}

}  // namespace ttt::inline v2

#include "ttt/modules/embedding.h"

#include "modules/print.h"

namespace ttt::inline v2 {

EmbeddingPlan resolve(const EmbeddingConfig& config, const Target& target) {
  if (!config.weight)
    throw Error("an embedding without a table", config.name.path, "set EmbeddingConfig::weight");
  const float scale = config.scale.value_or(1.0f);
  // Rows are gathered, never multiplied: block formats would cost accuracy and save no bandwidth.
  return {.weight = config.weight,
          .name = config.name,
          .dtype = target.activation_dtype(),
          .out_dtype = target.activation_dtype(),
          // The references keep the factor in the dtype of the rows.
          .scale = target.activation_dtype() == DataType::bf16 ? round_to_bf16(scale) : scale};
}

void print(const EmbeddingPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "weight", extents(plan.weight) + " " + std::string(name(plan.dtype)));
  if (plan.scale != 1) row(rows, plan.name, "scale", text(plan.scale));
}

Embedding::Embedding(EmbeddingPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, plan_.dtype);
}
Embedding::Embedding(LazyWeight weight, const Target& target, const Home& home)
    : Embedding(resolve(EmbeddingConfig{.weight = std::move(weight)}, target), home) {}
Embedding Embedding::from_config(const EmbeddingConfig& config, const Target& target, const Home& home) {
  return Embedding(resolve(config, target), home);
}

Tensor Embedding::operator()(const Tensor& ids) const {
  Tensor x = ops::embedding(ids, plan_.weight.get(), plan_.out_dtype);
  return plan_.scale == 1 ? x : ops::mul(std::move(x), plan_.scale);
}

}  // namespace ttt::inline v2

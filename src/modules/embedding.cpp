#include "ttt/modules/embedding.h"

#include "modules/parallel.h"
#include "modules/print.h"

namespace ttt::inline v2 {

EmbeddingPlan resolve(const EmbeddingConfig& config, const Target& target) {
  if (!config.weight)
    throw Error("an embedding without a table", config.name.path, "set EmbeddingConfig::weight");
  const float scale = config.scale.value_or(1.0f);
  const ShardAxis entries = config.divide_entries ? over(target.mesh, unit_axis) : ShardAxis{};
  // Rows are gathered, never multiplied: block formats would cost accuracy and save no bandwidth.
  return {.weight = pad_rows(config.weight, entries.parts),
          .name = config.name,
          .dtype = target.activation_dtype(),
          .out_dtype = target.activation_dtype(),
          // The references keep the factor in the dtype of the rows.
          .scale = target.activation_dtype() == DataType::bf16 ? round_to_bf16(scale) : scale,
          .sharding = {.rows = entries, .cols = over(target.mesh, stream_axis)}};
}

void print(const EmbeddingPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "weight", extents(plan.weight) + " " + std::string(name(plan.dtype)));
  if (plan.sharding.rows.mesh_axis >= 0)
    row(rows, plan.name, "collective",
        "all_reduce over mesh axis " + std::to_string(plan.sharding.rows.mesh_axis));
  if (plan.scale != 1) row(rows, plan.name, "scale", text(plan.scale));
}

Embedding::Embedding(EmbeddingPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, plan_.dtype, {}, plan_.sharding);
  if (plan_.sharding.rows.mesh_axis >= 0)
    first_entry_ = first_of_parts(home.backend(), plan_.weight.rows(), plan_.sharding.rows);
}
Embedding::Embedding(LazyWeight weight, const Target& target, const Home& home)
    : Embedding(resolve(EmbeddingConfig{.weight = std::move(weight)}, target), home) {}
Embedding Embedding::from_config(const EmbeddingConfig& config, const Target& target, const Home& home) {
  return Embedding(resolve(config, target), home);
}

Tensor Embedding::operator()(const Tensor& ids) const {
  const ModuleScope scope(plan_.name);
  Tensor x;
  if (first_entry_) {
    // Ids of other devices' entries are outside of the table and give zeros.
    x = ops::embedding(ops::subtract(ops::typecast(ids, DataType::i32), first_entry_), plan_.weight.get(),
                       plan_.out_dtype);
    x = ops::all_reduce(std::move(x), plan_.sharding.rows.mesh_axis);
  } else {
    x = ops::embedding(ids, plan_.weight.get(), plan_.out_dtype);
  }
  return plan_.scale == 1 ? x : ops::mul(std::move(x), plan_.scale);
}

}  // namespace ttt::inline v2

#include "ttt/modules/lm_head.h"

#include "modules/parallel.h"
#include "modules/print.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2 {

LmHeadPlan resolve(const LmHeadConfig& config, const Target& target) {
  // Whole tiles on every device: an all_gather of others is taken apart into rows.
  const std::int64_t parts = over(target.mesh, unit_axis).parts, multiple = parts > 1 ? parts * tile_size : 1;
  return {.linear = resolve(LinearConfig{.weight = pad_rows(config.weight, multiple),
                                         .bias = pad_rows(config.bias, multiple),
                                         .name = config.name,
                                         .out_dtype = DataType::f32,
                                         .parallel = Parallel::column},
                            target),
          .scale = config.scale.value_or(1.0f),
          .softcap = config.softcap,
          .vocab = config.weight.rows()};
}

void print(const LmHeadPlan& plan, PlanRows& rows) {
  print(plan.linear, rows);
  if (plan.scale != 1) row(rows, plan.linear.name, "scale", text(plan.scale));
  if (plan.softcap) row(rows, plan.linear.name, "softcap", text(*plan.softcap));
}

LmHead::LmHead(LmHeadPlan plan, const Home& home) : plan_(std::move(plan)), linear_(plan_.linear, home) {}
LmHead::LmHead(LazyWeight weight, const Target& target, const Home& home)
    : LmHead(resolve(LmHeadConfig{.weight = std::move(weight)}, target), home) {}
LmHead LmHead::from_config(const LmHeadConfig& config, const Target& target, const Home& home) {
  return LmHead(resolve(config, target), home);
}

Tensor LmHead::operator()(const Tensor& x, Mode mode) const {
  Tensor logits = linear_.forward(x, mode);
  if (plan_.scale != 1) logits = ops::mul(std::move(logits), plan_.scale);
  if (plan_.softcap) {
    const float cap = *plan_.softcap;
    logits = ops::mul(std::move(logits), 1 / cap);
    logits = ops::unary(std::move(logits), {UnaryOp::tanh});
    logits = ops::mul(std::move(logits), cap);
  }
  if (const ShardAxis& units = plan_.linear.sharding.rows; units.mesh_axis >= 0) {
    logits = ops::all_gather(logits, -1, units.mesh_axis);
    if (logits.dim(-1) != plan_.vocab) logits = ops::slice(logits, -1, 0, plan_.vocab);
  }
  return logits;
}

}  // namespace ttt::inline v2

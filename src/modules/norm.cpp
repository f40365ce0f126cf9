#include "ttt/modules/norm.h"

#include "modules/print.h"

namespace ttt::inline v2 {

namespace {

const Tensor* get(const LazyWeight& weight) { return weight ? &weight.get() : nullptr; }

ShardAxis division(const Target& target, int mesh_axis) {
  return mesh_axis < 0 ? ShardAxis{} : over(target.mesh, mesh_axis);
}

// Mean over a last axis that is divided over the mesh: the mean of the parts' means, as they are equal in
// size.
Tensor distributed_mean(const Tensor& x, const ShardAxis& axis) {
  return ops::mul(ops::all_reduce(ops::mean(x), axis.mesh_axis), 1 / static_cast<float>(axis.parts));
}

// x / sqrt(mean(x^2) + eps) * weight + bias, in float32 until the end.
Tensor scaled(Tensor x, const ShardAxis& axis, float eps, const Tensor* weight, const Tensor* bias,
              DataType dtype) {
  Tensor factor = ops::add(distributed_mean(ops::unary(x, {UnaryOp::square}), axis), eps);
  x = ops::mul(std::move(x), ops::unary(std::move(factor), {UnaryOp::rsqrt}));
  if (weight != nullptr) x = ops::mul(std::move(x), *weight);
  if (bias != nullptr) x = ops::add(std::move(x), *bias);
  return ops::typecast(std::move(x), dtype);
}

void print_division(const ShardAxis& axis, const ModuleName& name, PlanRows& rows) {
  if (axis.mesh_axis >= 0)
    row(rows, name, "collective",
        "all_reduce of the moments over mesh axis " + std::to_string(axis.mesh_axis));
}

}  // namespace

RmsNormPlan resolve(const RmsNormConfig& config, const Target& target) {
  return {.weight = config.weight,
          .name = config.name,
          .eps = config.eps.value_or(1e-5f),
          .division = division(target, config.mesh_axis)};
}

void print(const RmsNormPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "rms_norm", "eps " + text(plan.eps));
  print_division(plan.division, plan.name, rows);
}

RmsNorm::RmsNorm(RmsNormPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, vector_dtype, {}, {.cols = plan_.division});
}
RmsNorm::RmsNorm(LazyWeight weight, float eps, const Target& target, const Home& home)
    : RmsNorm(resolve(RmsNormConfig{.weight = std::move(weight), .eps = eps}, target), home) {}
RmsNorm RmsNorm::from_config(const RmsNormConfig& config, const Target& target, const Home& home) {
  return RmsNorm(resolve(config, target), home);
}

Tensor RmsNorm::forward(const Tensor& x) const {
  const ModuleScope scope(plan_.name);
  if (plan_.division.mesh_axis >= 0)
    return scaled(ops::typecast(x, DataType::f32), plan_.division, plan_.eps, get(plan_.weight), nullptr,
                  x.dtype());
  return ops::rms_norm(x, {.weight = get(plan_.weight), .epsilon = plan_.eps});
}

LayerNormPlan resolve(const LayerNormConfig& config, const Target& target) {
  return {.weight = config.weight,
          .bias = config.bias,
          .name = config.name,
          .eps = config.eps.value_or(1e-5f),
          .division = division(target, config.mesh_axis)};
}

void print(const LayerNormPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "layer_norm", "eps " + text(plan.eps));
  print_division(plan.division, plan.name, rows);
}

LayerNorm::LayerNorm(LayerNormPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, vector_dtype, {}, {.cols = plan_.division});
  plan_.bias = home.bind(plan_.bias, vector_dtype, {}, {.cols = plan_.division});
}
LayerNorm::LayerNorm(LazyWeight weight, LazyWeight bias, float eps, const Target& target, const Home& home)
    : LayerNorm(
          resolve(LayerNormConfig{.weight = std::move(weight), .bias = std::move(bias), .eps = eps}, target),
          home) {}
LayerNorm LayerNorm::from_config(const LayerNormConfig& config, const Target& target, const Home& home) {
  return LayerNorm(resolve(config, target), home);
}

Tensor LayerNorm::forward(const Tensor& x) const {
  const ModuleScope scope(plan_.name);
  if (plan_.division.mesh_axis >= 0) {
    Tensor centred = ops::typecast(x, DataType::f32);
    centred = ops::subtract(centred, distributed_mean(centred, plan_.division));
    return scaled(std::move(centred), plan_.division, plan_.eps, get(plan_.weight), get(plan_.bias),
                  x.dtype());
  }
  return ops::layer_norm(x, {.weight = get(plan_.weight), .bias = get(plan_.bias), .epsilon = plan_.eps});
}

NormPlan resolve(const NormConfig& config, const Target& target) {
  if (config.spec.kind == NormKind::rms)
    return resolve(RmsNormConfig{.weight = config.weight,
                                 .name = config.name,
                                 .eps = config.spec.eps,
                                 .mesh_axis = config.mesh_axis},
                   target);
  return resolve(LayerNormConfig{.weight = config.weight,
                                 .bias = config.bias,
                                 .name = config.name,
                                 .eps = config.spec.eps,
                                 .mesh_axis = config.mesh_axis},
                 target);
}

void print(const NormPlan& plan, PlanRows& rows) {
  std::visit([&](const auto& p) { print(p, rows); }, plan);
}

static std::variant<RmsNorm, LayerNorm> make_norm(const NormPlan& plan, const Home& home) {
  if (const auto* rms = std::get_if<RmsNormPlan>(&plan)) return RmsNorm(*rms, home);
  return LayerNorm(std::get<LayerNormPlan>(plan), home);
}

Norm::Norm(const NormPlan& plan, const Home& home) : norm_(make_norm(plan, home)) {}
Norm Norm::from_config(const NormConfig& config, const Target& target, const Home& home) {
  return {resolve(config, target), home};
}

Tensor Norm::forward(const Tensor& x) const {
  return std::visit([&](const auto& norm) { return norm.forward(x); }, norm_);
}

NormPlan Norm::plan() const {
  return std::visit([](const auto& norm) { return NormPlan(norm.plan()); }, norm_);
}

}  // namespace ttt::inline v2

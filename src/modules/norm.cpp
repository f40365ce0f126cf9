#include "ttt/modules/norm.h"

#include "modules/print.h"

namespace ttt::inline v2 {

namespace {

const Tensor* get(const LazyWeight& weight) { return weight ? &weight.get() : nullptr; }

}  // namespace

RmsNormPlan resolve(const RmsNormConfig& config, const Target&) {
  return {.weight = config.weight, .name = config.name, .eps = config.eps.value_or(1e-5f)};
}

void print(const RmsNormPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "rms_norm", "eps " + text(plan.eps));
}

RmsNorm::RmsNorm(RmsNormPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, vector_dtype);
}
RmsNorm::RmsNorm(LazyWeight weight, float eps, const Target& target, const Home& home)
    : RmsNorm(resolve(RmsNormConfig{.weight = std::move(weight), .eps = eps}, target), home) {}
RmsNorm RmsNorm::from_config(const RmsNormConfig& config, const Target& target, const Home& home) {
  return RmsNorm(resolve(config, target), home);
}

Tensor RmsNorm::forward(const Tensor& x) const {
  return ops::rms_norm(x, {.weight = get(plan_.weight), .epsilon = plan_.eps});
}

LayerNormPlan resolve(const LayerNormConfig& config, const Target&) {
  return {
      .weight = config.weight, .bias = config.bias, .name = config.name, .eps = config.eps.value_or(1e-5f)};
}

void print(const LayerNormPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "layer_norm", "eps " + text(plan.eps));
}

LayerNorm::LayerNorm(LayerNormPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, vector_dtype);
  plan_.bias = home.bind(plan_.bias, vector_dtype);
}
LayerNorm::LayerNorm(LazyWeight weight, LazyWeight bias, float eps, const Target& target, const Home& home)
    : LayerNorm(
          resolve(LayerNormConfig{.weight = std::move(weight), .bias = std::move(bias), .eps = eps}, target),
          home) {}
LayerNorm LayerNorm::from_config(const LayerNormConfig& config, const Target& target, const Home& home) {
  return LayerNorm(resolve(config, target), home);
}

Tensor LayerNorm::forward(const Tensor& x) const {
  return ops::layer_norm(x, {.weight = get(plan_.weight), .bias = get(plan_.bias), .epsilon = plan_.eps});
}

NormPlan resolve(const NormConfig& config, const Target& target) {
  if (config.spec.kind == NormKind::rms)
    return resolve(RmsNormConfig{.weight = config.weight, .name = config.name, .eps = config.spec.eps},
                   target);
  return resolve(
      LayerNormConfig{
          .weight = config.weight, .bias = config.bias, .name = config.name, .eps = config.spec.eps},
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

#include "ttt/modules/gated_delta_net.h"

#include "modules/fused.h"
#include "modules/print.h"

namespace ttt::inline v2 {

GatedDeltaNetPlan resolve(const GatedDeltaNetConfig& c, const Target& target) {
  const GatedDeltaNetSpec& s = c.spec;
  const std::int64_t gates = std::int64_t{s.heads} * (s.decay_per_channel ? s.key_dim : 1);
  const auto expect = [&](const LazyWeight& vector, const char* part, std::int64_t n) {
    if (!vector || vector.rows() * vector.cols() != n)
      throw Error(std::string("no weight ") + part + " of " + std::to_string(n) + " values", c.name.path,
                  "check the weight map");
  };
  expect(c.dt_bias, "dt_bias", gates);
  expect(c.rate, "rate", s.heads);
  expect(c.norm, "norm", s.value_dim);
  GatedDeltaNetPlan plan;
  plan.spec = s;
  plan.name = c.name;
  plan.qkvz = resolve(fused({{c.q}, {c.k}, {c.v}, {c.z}}, c.name / "qkvz"), target);
  LinearConfig ba = fused({{c.b}, {c.a}}, c.name / "ba");
  ba.out_dtype = DataType::f32;
  plan.ba = resolve(ba, target);
  plan.conv = resolve(CausalConv1dConfig{.weight = c.conv, .name = c.name / "conv", .act = s.act}, target);
  plan.norm = resolve(RmsNormConfig{.weight = c.norm, .name = c.name / "norm", .eps = s.norm_eps}, target);
  plan.o = resolve(LinearConfig{.weight = c.o, .name = c.name / "o"}, target);
  plan.dt_bias = c.dt_bias;
  plan.rate = c.rate;
  return plan;
}

void print(const GatedDeltaNetPlan& plan, PlanRows& rows) {
  const GatedDeltaNetSpec& s = plan.spec;
  row(rows, plan.name, "gated_delta_net",
      std::to_string(s.heads) + " heads over " + std::to_string(s.key_heads) + " key heads, " +
          std::to_string(s.key_dim) + " x " + std::to_string(s.value_dim));
  print(plan.qkvz, rows);
  print(plan.ba, rows);
  print(plan.conv, rows);
  print(plan.norm, rows);
  print(plan.o, rows);
}

GatedDeltaNet::GatedDeltaNet(GatedDeltaNetPlan plan, const Home& home)
    : plan_(std::move(plan)),
      qkvz_(plan_.qkvz, home),
      conv_(plan_.conv, home),
      ba_(plan_.ba, home),
      norm_(plan_.norm, home),
      o_(plan_.o, home) {
  plan_.dt_bias = home.bind(plan_.dt_bias, vector_dtype);
  plan_.rate = home.bind(plan_.rate, vector_dtype);
}
GatedDeltaNet GatedDeltaNet::from_config(const GatedDeltaNetConfig& config, const Target& target,
                                         const Home& home) {
  return GatedDeltaNet(resolve(config, target), home);
}

Tensor GatedDeltaNet::log_decay(const Tensor& a) const {
  const GatedDeltaNetSpec& s = plan_.spec;
  const Shape shape = a.shape(), by_head{1, shape[2], s.heads, shape[3] / s.heads};
  const Tensor x = ops::add(a, plan_.dt_bias.get()).reshape(by_head);
  const Tensor rate = plan_.rate.get().reshape({1, 1, s.heads, 1});
  if (s.decay_bound)
    return ops::mul(ops::mul(x, rate, {.activation = {UnaryOp::sigmoid}}), *s.decay_bound).reshape(shape);
  return ops::mul(ops::mul(x, rate, {.lhs_activation = {UnaryOp::softplus}}), -1.0f).reshape(shape);
}

Tensor GatedDeltaNet::forward(const Tensor& x, const Step& step) const {
  const GatedDeltaNetSpec& s = plan_.spec;
  const std::int64_t keys = std::int64_t{s.key_heads} * s.key_dim,
                     values = std::int64_t{s.heads} * s.value_dim;
  const Tensor qkvz = qkvz_.forward(x, step.mode), ba = ba_.forward(x, step.mode);
  std::int64_t at = 0;
  const Tensor qkv = take(qkvz, at, 2 * keys + values), z = take(qkvz, at, values);
  const Tensor mixed = conv_.forward(qkv, step);
  at = 0;
  const Tensor q = take(mixed, at, keys), k = take(mixed, at, keys), v = take(mixed, at, values);
  at = 0;
  Tensor beta = ops::unary(take(ba, at, s.heads), {UnaryOp::sigmoid});
  if (s.beta_scale != 1) beta = ops::mul(std::move(beta), s.beta_scale);
  const Tensor g = log_decay(take(ba, at, plan_.dt_bias.cols()));
  const Tensor y =
      ops::gated_delta_rule(q, k, v, g, beta, step.state->slots_of(plan_.name.layer, "delta", step.iteration),
                            step.segments, s.heads, s.key_heads, {.l2norm_eps = 1e-6f});
  tap(y, plan_.name, "delta");
  // Norm and gate are rounded once.
  const Tensor wide = ops::typecast(y, DataType::f32);
  const Tensor normed =
      norm_.forward(wide.reshape({1, 1, x.dim(2) * s.heads, s.value_dim})).reshape({1, 1, x.dim(2), values});
  Tensor out =
      o_.forward(ops::mul(normed, z, {.rhs_activation = {s.gate_act}, .dtype = x.dtype()}), step.mode);
  tap(out, plan_.name);
  return out;
}

}  // namespace ttt::inline v2

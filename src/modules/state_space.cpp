#include "ttt/modules/state_space.h"

#include "modules/fused.h"
#include "modules/print.h"

namespace ttt::inline v2 {

namespace {

void expect(const LazyWeight& weight, const char* part, std::int64_t rows, std::int64_t cols,
            const ModuleName& name) {
  if (!weight) throw Error(std::string("no weight ") + part, name.path, "check the weight map");
  if (weight.rows() != rows || weight.cols() != cols)
    throw Error(std::string(part) + " is [" + std::to_string(weight.rows()) + ", " +
                    std::to_string(weight.cols()) + "], expected [" + std::to_string(rows) + ", " +
                    std::to_string(cols) + "]",
                name.path, "check the weight map and the spec");
}

}  // namespace

SelectiveSsmPlan resolve(const SelectiveSsmConfig& c, const Target& target) {
  const SelectiveSsmSpec& s = c.spec;
  expect(c.dt, "dt", s.inner, s.dt_rank, c.name);
  expect(c.a, "a", s.inner, s.state, c.name);
  expect(c.d, "d", 1, s.inner, c.name);
  expect(c.dt_in, "dt_in", s.dt_rank, s.inner, c.name);
  expect(c.b, "b", s.state, s.inner, c.name);
  SelectiveSsmPlan plan;
  plan.spec = s;
  plan.name = c.name;
  plan.in = resolve(fused({{c.x, c.x_bias}, {c.z, c.z_bias}}, c.name / "in"), target);
  plan.conv = resolve(
      CausalConv1dConfig{.weight = c.conv, .bias = c.conv_bias, .name = c.name / "conv", .act = s.act},
      target);
  plan.ssm = resolve(fused({{c.dt_in}, {c.b}, {c.c}}, c.name / "ssm"), target);
  LinearConfig dt{.weight = c.dt, .bias = c.dt_bias, .name = c.name / "dt"};
  dt.out_dtype = DataType::f32;
  plan.dt = resolve(dt, target);
  plan.o = resolve(LinearConfig{.weight = c.o, .bias = c.o_bias, .name = c.name / "o"}, target);
  if (s.ssm_norm) {
    const auto norm = [&](const LazyWeight& weight, const char* part) {
      return resolve(NormConfig{.spec = *s.ssm_norm, .weight = weight, .name = c.name / part}, target);
    };
    plan.dt_norm = norm(c.dt_norm, "dt_norm");
    plan.b_norm = norm(c.b_norm, "b_norm");
    plan.c_norm = norm(c.c_norm, "c_norm");
  }
  plan.a = c.a;
  plan.d = c.d;
  return plan;
}

void print(const SelectiveSsmPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "selective_ssm",
      std::to_string(plan.spec.inner) + " channels, state " + std::to_string(plan.spec.state));
  for (const LinearPlan* part : {&plan.in, &plan.ssm, &plan.dt, &plan.o}) print(*part, rows);
  print(plan.conv, rows);
}

SelectiveSsm::SelectiveSsm(SelectiveSsmPlan plan, const Home& home)
    : plan_(std::move(plan)),
      in_(plan_.in, home),
      conv_(plan_.conv, home),
      ssm_(plan_.ssm, home),
      dt_(plan_.dt, home),
      o_(plan_.o, home) {
  if (plan_.dt_norm) {
    dt_norm_.emplace(*plan_.dt_norm, home);
    b_norm_.emplace(*plan_.b_norm, home);
    c_norm_.emplace(*plan_.c_norm, home);
  }
  plan_.a = home.bind(plan_.a, vector_dtype);
  plan_.d = home.bind(plan_.d, vector_dtype);
}
SelectiveSsm SelectiveSsm::from_config(const SelectiveSsmConfig& config, const Target& target,
                                       const Home& home) {
  return SelectiveSsm(resolve(config, target), home);
}

Tensor SelectiveSsm::forward(const Tensor& x, const Step& step) const {
  const SelectiveSsmSpec& s = plan_.spec;
  const Tensor in = in_.forward(x, step.mode);
  std::int64_t at = 0;
  const Tensor inner = take(in, at, s.inner), z = take(in, at, s.inner);
  const Tensor h = conv_.forward(inner, step);
  const Tensor ssm = ssm_.forward(h, step.mode);
  at = 0;
  Tensor dt = take(ssm, at, s.dt_rank), b = take(ssm, at, s.state), c = take(ssm, at, s.state);
  if (dt_norm_) dt = dt_norm_->forward(dt), b = b_norm_->forward(b), c = c_norm_->forward(c);
  dt = dt_.forward(dt, step.mode);
  Tensor y = ops::selective_scan(h, b, c, step.state->slots_of(plan_.name.layer, "scan", step.iteration),
                                 step.segments, s.inner, 1,
                                 {.dt = &dt, .a = &plan_.a.get(), .d = &plan_.d.get(), .softplus = true});
  tap(y, plan_.name, "scan");
  y = o_.forward(ops::mul(std::move(y), z, {.rhs_activation = {UnaryOp::silu}}), step.mode);
  tap(y, plan_.name);
  return y;
}

SsdPlan resolve(const SsdConfig& c, const Target& target) {
  const SsdSpec& s = c.spec;
  expect(c.dt_bias, "dt_bias", 1, s.heads, c.name);
  expect(c.a, "a", 1, s.heads, c.name);
  expect(c.d, "d", 1, s.heads, c.name);
  const std::int64_t inner = std::int64_t{s.heads} * s.head_dim;
  if (s.norm != SsmNorm::none) expect(c.norm, "norm", 1, inner, c.name);
  SsdPlan plan;
  plan.spec = s;
  plan.name = c.name;
  plan.in =
      resolve(fused({{c.z, c.z_bias}, {c.x, c.x_bias}, {c.b, c.b_bias}, {c.c, c.c_bias}, {c.dt, c.step_bias}},
                    c.name / "in"),
              target);
  plan.conv = resolve(
      CausalConv1dConfig{.weight = c.conv, .bias = c.conv_bias, .name = c.name / "conv", .act = s.act},
      target);
  plan.o = resolve(LinearConfig{.weight = c.o, .bias = c.o_bias, .name = c.name / "o"}, target);
  plan.dt_bias = c.dt_bias;
  plan.a = c.a;
  plan.d = c.d;
  plan.norm = c.norm;
  return plan;
}

void print(const SsdPlan& plan, PlanRows& rows) {
  const SsdSpec& s = plan.spec;
  row(rows, plan.name, "ssd",
      std::to_string(s.heads) + " heads of " + std::to_string(s.head_dim) + ", state " +
          std::to_string(s.state) + ", groups " + std::to_string(s.groups));
  print(plan.in, rows);
  print(plan.conv, rows);
  print(plan.o, rows);
}

Ssd::Ssd(SsdPlan plan, const Home& home)
    : plan_(std::move(plan)), in_(plan_.in, home), conv_(plan_.conv, home), o_(plan_.o, home) {
  for (LazyWeight* vector : {&plan_.dt_bias, &plan_.a, &plan_.d, &plan_.norm})
    *vector = home.bind(*vector, vector_dtype);
}
Ssd Ssd::from_config(const SsdConfig& config, const Target& target, const Home& home) {
  return Ssd(resolve(config, target), home);
}

// The norm works on each group's channels by themselves.
Tensor Ssd::gated(const Tensor& y, const Tensor& z) const {
  const SsdSpec& s = plan_.spec;
  const auto gate = [&](const Tensor& x) { return ops::mul(x, z, {.rhs_activation = {UnaryOp::silu}}); };
  const auto norm = [&](const Tensor& x) {
    if (s.groups == 1) return ops::rms_norm(x, {.weight = &plan_.norm.get(), .epsilon = s.norm_eps});
    const Shape whole = x.shape();
    const Tensor groups = ops::to_contiguous(x).reshape({1, 1, whole[2] * s.groups, whole[3] / s.groups});
    return ops::mul(ops::rms_norm(groups, {.epsilon = s.norm_eps}).reshape(whole), plan_.norm.get());
  };
  if (s.norm == SsmNorm::none) return gate(y);
  return s.norm == SsmNorm::after_gate ? norm(gate(y)) : gate(norm(y));
}

Tensor Ssd::forward(const Tensor& x, const Step& step) const {
  const SsdSpec& s = plan_.spec;
  const std::int64_t inner = std::int64_t{s.heads} * s.head_dim, bc = std::int64_t{s.groups} * s.state;
  const Tensor in = in_.forward(x, step.mode);
  std::int64_t at = 0;
  const Tensor z = take(in, at, inner), xbc = take(in, at, inner + 2 * bc), dt = take(in, at, s.heads);
  const Tensor mixed = conv_.forward(xbc, step);
  at = 0;
  const Tensor h = take(mixed, at, inner), b = take(mixed, at, bc), c = take(mixed, at, bc);
  Tensor y = ops::selective_scan(h, b, c, step.state->slots_of(plan_.name.layer, "scan", step.iteration),
                                 step.segments, s.heads, s.groups,
                                 {.dt = &dt,
                                  .dt_bias = &plan_.dt_bias.get(),
                                  .a = &plan_.a.get(),
                                  .d = &plan_.d.get(),
                                  .softplus = true,
                                  .dt_min = s.dt_min,
                                  .dt_max = s.dt_max});
  tap(y, plan_.name, "scan");
  y = o_.forward(gated(y, z), step.mode);
  tap(y, plan_.name);
  return y;
}

}  // namespace ttt::inline v2

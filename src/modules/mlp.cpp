#include "ttt/modules/mlp.h"

#include <limits>

#include "modules/print.h"

namespace ttt::inline v2 {

MlpPlan resolve(const MlpConfig& config, const Target& target) {
  MlpPlan plan;
  plan.name = config.name;
  plan.act = config.act.value_or(Activation{UnaryOp::silu});
  plan.limit = config.limit;
  const bool gated = config.gate.defined();
  if (gated)
    plan.gate = resolve(LinearConfig{.weight = config.gate,
                                     .bias = config.gate_bias,
                                     .name = config.name / "gate",
                                     .parallel = Parallel::column},
                        target);
  plan.up = resolve(LinearConfig{.weight = config.up,
                                 .bias = config.up_bias,
                                 .name = config.name / "up",
                                 .activation = gated ? Activation{} : plan.act,
                                 .parallel = Parallel::column},
                    target);
  plan.down = resolve(LinearConfig{.weight = config.down,
                                   .bias = config.down_bias,
                                   .name = config.name / "down",
                                   .parallel = Parallel::row},
                      target);
  if (gated && config.gate.rows() != config.up.rows())
    throw Error("gate and up have different widths", config.name.path, "check the weight map");
  if (plan.down.weight.cols() != plan.up.weight.rows())
    throw Error("down does not take what up gives", config.name.path, "check the weight map");
  return plan;
}

void print(const MlpPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "act", name(plan.act.op));
  if (plan.gate) print(*plan.gate, rows);
  print(plan.up, rows);
  print(plan.down, rows);
}

Tensor gated_product(Tensor gate, Tensor up, const Activation& act, const std::optional<GluLimit>& limit) {
  if (limit) {
    gate = ops::clamp(std::move(gate), std::numeric_limits<float>::lowest(), limit->limit);
    up = ops::clamp(std::move(up), -limit->limit, limit->limit);
    if (limit->up_offset != 0) up = ops::add(std::move(up), limit->up_offset);
  }
  return ops::mul(std::move(gate), std::move(up), {.lhs_activation = act});
}

Mlp::Mlp(MlpPlan plan, const Home& home)
    : plan_(std::move(plan)), up_(plan_.up, home), down_(plan_.down, home) {
  if (plan_.gate) gate_.emplace(*plan_.gate, home);
}
Mlp::Mlp(LazyWeight gate, LazyWeight up, LazyWeight down, const Target& target, const Home& home)
    : Mlp(resolve(MlpConfig{.gate = std::move(gate), .up = std::move(up), .down = std::move(down)}, target),
          home) {}
Mlp Mlp::from_config(const MlpConfig& config, const Target& target, const Home& home) {
  return Mlp(resolve(config, target), home);
}

Tensor Mlp::forward(const Tensor& x, Mode mode) const {
  Tensor hidden = up_.forward(x, mode);  // without a gate the activation is done already
  if (gate_) {
    tap(hidden, plan_.name, "up");
    Tensor gate = gate_->forward(x, mode);
    tap(gate, plan_.name, "gate");
    hidden = gated_product(std::move(gate), std::move(hidden), plan_.act, plan_.limit);
  }
  tap(hidden, plan_.name, "hidden");
  Tensor y = down_.forward(hidden, mode);
  tap(y, plan_.name);
  return y;
}

}  // namespace ttt::inline v2

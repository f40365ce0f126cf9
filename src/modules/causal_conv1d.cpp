#include "ttt/modules/causal_conv1d.h"

#include "modules/print.h"

namespace ttt::inline v2 {

CausalConv1dPlan resolve(const CausalConv1dConfig& config, const Target&) {
  if (!config.weight) throw Error("no weight", config.name.path, "check the weight map");
  if (config.bias && config.bias.cols() != config.weight.rows())
    throw Error("weight and bias have different widths", config.name.path, "check the weight map");
  return {.weight = config.weight,
          .bias = config.bias,
          .name = config.name,
          .act = config.act.value_or(Activation{}),
          .state = config.state};
}

void print(const CausalConv1dPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "causal_conv1d",
      std::to_string(plan.weight.rows()) + " channels, kernel " + std::to_string(plan.weight.cols()));
}

CausalConv1d::CausalConv1d(CausalConv1dPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, vector_dtype);
  plan_.bias = home.bind(plan_.bias, vector_dtype);
}

CausalConv1d CausalConv1d::from_config(const CausalConv1dConfig& config, const Target& target,
                                       const Home& home) {
  return CausalConv1d(resolve(config, target), home);
}

Tensor CausalConv1d::forward(const Tensor& x, const Step& step) const {
  const ModuleScope scope(plan_.name);
  Tensor y = ops::causal_conv1d(x, plan_.weight.get(), plan_.bias ? &plan_.bias.get() : nullptr,
                                step.state->slots_of(plan_.name.layer, plan_.state, step.iteration),
                                step.segments, plan_.act);
  tap(y, plan_.name);
  return y;
}

}  // namespace ttt::inline v2

#include "ttt/modules/linear.h"

#include "modules/print.h"

namespace ttt::inline v2 {

LinearPlan resolve(const LinearConfig& config, const Target& target) {
  if (!config.weight)
    throw Error("a linear layer without a weight", config.name.path, "set LinearConfig::weight");
  if (config.bias && config.bias.cols() != config.weight.rows()) {
    throw Error("a bias of " + std::to_string(config.bias.cols()) + " values for " +
                    std::to_string(config.weight.rows()) + " outputs",
                config.name.path, "check the weight map");
  }
  return {.weight = config.weight,
          .bias = config.bias,
          .name = config.name,
          .dtype = config.dtype.value_or(target.weight_dtype(config.name.path)),
          .out_dtype = config.out_dtype.value_or(target.activation_dtype()),
          .activation = config.activation.value_or(Activation{}),
          .prefill = {},
          .decode = {},
          .compute_kernel_config = target.compute_config(config.name.path)};
}

void print(const LinearPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "weight", extents(plan.weight) + " " + std::string(name(plan.dtype)));
  if (plan.bias) row(rows, plan.name, "bias", "yes");
  if (plan.activation.op != UnaryOp::identity) row(rows, plan.name, "activation", name(plan.activation.op));
  row(rows, plan.name, "compute", to_string(plan.compute_kernel_config));
}

Linear::Linear(LinearPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, plan_.dtype);
  plan_.bias = home.bind(plan_.bias, vector_dtype);
}

Linear::Linear(LazyWeight weight, LazyWeight bias, const Target& target, const Home& home)
    : Linear(resolve(LinearConfig{.weight = std::move(weight), .bias = std::move(bias)}, target), home) {}

Linear Linear::from_config(const LinearConfig& config, const Target& target, const Home& home) {
  return Linear(resolve(config, target), home);
}

Tensor Linear::forward(const Tensor& x, Mode mode) const {
  const LinearPlan::ModePlan& m = mode == Mode::prefill ? plan_.prefill : plan_.decode;
  return ops::linear(x, plan_.weight.get(),
                     {.bias = plan_.bias ? &plan_.bias.get() : nullptr,
                      .activation = plan_.activation,
                      .dtype = plan_.out_dtype,
                      .memory_config = m.out,
                      .program_config = m.program_config,
                      .compute_kernel_config = plan_.compute_kernel_config});
}

}  // namespace ttt::inline v2

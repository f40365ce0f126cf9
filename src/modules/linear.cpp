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
  const ShardAxis stream = over(target.mesh, stream_axis), units = over(target.mesh, unit_axis);
  Sharding sharding, bias_sharding;
  switch (config.parallel) {
    case Parallel::none:
      break;
    case Parallel::column:
      sharding = {.rows = units, .cols = stream};
      bias_sharding.cols = units;
      break;
    case Parallel::row:
      sharding = {.rows = stream, .cols = units};
      bias_sharding.cols = stream;
      break;
    case Parallel::stream:
      sharding.cols = stream;
      break;
    case Parallel::unit:
      sharding.rows = units;
      bias_sharding.cols = units;
      break;
  }
  try {
    weight_shape({.sharding = sharding}, config.weight.rows(), config.weight.cols());
  } catch (const Error& error) {
    throw Error(error.problem(), config.name.path, "choose a mesh that divides the network");
  }
  return {.weight = config.weight,
          .bias = config.bias,
          .name = config.name,
          .dtype = config.dtype.value_or(target.weight_dtype(config.name.path)),
          .out_dtype = config.out_dtype.value_or(target.activation_dtype()),
          .activation = config.activation.value_or(Activation{}),
          .sharding = sharding,
          .bias_sharding = bias_sharding,
          .reduce_axis = sharding.cols.mesh_axis,
          .prefill = {},
          .decode = {},
          .compute_kernel_config = target.compute_config(config.name.path)};
}

void print(const LinearPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "weight", extents(plan.weight) + " " + std::string(name(plan.dtype)));
  if (plan.bias) row(rows, plan.name, "bias", "yes");
  if (plan.activation.op != UnaryOp::identity) row(rows, plan.name, "activation", name(plan.activation.op));
  if (plan.sharding.rows.parts > 1)
    row(rows, plan.name, "outputs", "divided over mesh axis " + std::to_string(plan.sharding.rows.mesh_axis));
  if (plan.reduce_axis >= 0)
    row(rows, plan.name, "collective", "all_reduce over mesh axis " + std::to_string(plan.reduce_axis));
  row(rows, plan.name, "compute", to_string(plan.compute_kernel_config));
}

Linear::Linear(LinearPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, plan_.dtype, {}, plan_.sharding);
  plan_.bias = home.bind(plan_.bias, vector_dtype, {}, plan_.bias_sharding);
}

Linear::Linear(LazyWeight weight, LazyWeight bias, const Target& target, const Home& home)
    : Linear(resolve(LinearConfig{.weight = std::move(weight), .bias = std::move(bias)}, target), home) {}

Linear Linear::from_config(const LinearConfig& config, const Target& target, const Home& home) {
  return Linear(resolve(config, target), home);
}

Tensor Linear::forward(const Tensor& x, Mode mode) const {
  const LinearPlan::ModePlan& m = mode == Mode::prefill ? plan_.prefill : plan_.decode;
  const Tensor* bias = plan_.bias ? &plan_.bias.get() : nullptr;
  ops::LinearOptions options{.bias = bias,
                             .activation = plan_.activation,
                             .dtype = plan_.out_dtype,
                             .memory_config = m.out,
                             .program_config = m.program_config,
                             .compute_kernel_config = plan_.compute_kernel_config};
  if (plan_.reduce_axis < 0) return ops::linear(x, plan_.weight.get(), options);
  // What is not linear waits for the sum.
  options.bias = nullptr;
  options.activation = {};
  Tensor y = ops::all_reduce(ops::linear(x, plan_.weight.get(), options), plan_.reduce_axis);
  if (bias != nullptr)
    return ops::add(std::move(y), *bias, {.activation = plan_.activation, .dtype = plan_.out_dtype});
  return plan_.activation.op == UnaryOp::identity ? y : ops::unary(std::move(y), plan_.activation);
}

}  // namespace ttt::inline v2

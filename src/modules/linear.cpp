#include "ttt/modules/linear.h"

#include "modules/print.h"
#include "ttt/hw/check.h"

namespace ttt::inline v2 {

namespace {

TensorSpec spec(std::int64_t rows, std::int64_t cols, DataType dtype, const MemoryConfig& memory) {
  return {.shape = {1, 1, rows, cols}, .dtype = dtype, .memory = memory};
}

// Fills in where the operands lie and which program runs, for every planned number of rows. Rows of the
// target hold for the row counts that they fit; one that fits none is an error.
void place(LinearPlan& plan, const Target& target) {
  const std::string& path = plan.name.path;
  // Of one device.
  const Shape part = weight_shape({.sharding = plan.sharding}, plan.weight.rows(), plan.weight.cols());
  const std::int64_t in = part[2], out = part[3];
  plan.weight_memory = hw::choose_weight_memory(target.sku, in, out, plan.dtype);
  const std::optional<MatmulProgramConfig> program = target.program_config(path);
  const std::optional<MemoryConfig> memory = target.memory_config(path);
  std::optional<Error> misfit;
  bool fits = !program && !memory;
  for (std::int64_t rows : hw::planned_rows()) {
    const hw::MatmulShape shape{.rows = rows,
                                .in = in,
                                .out = out,
                                .weights = plan.dtype,
                                .activations = target.activation_dtype(),
                                .result = plan.out_dtype};
    const hw::MatmulPlan chosen =
        hw::choose_matmul(target.sku, shape, plan.weight_memory, plan.compute_kernel_config);
    hw::MatmulPlan wanted = chosen;
    if (program) wanted.program_config = *program;
    if (memory) wanted.out = *memory;
    if (memory && wanted.product == chosen.out) wanted.product = *memory;
    const auto check = [&](const hw::MatmulPlan& p) {
      hw::check_tensor(target.sku, spec(rows, out, plan.out_dtype, p.out));
      hw::check_matmul(target.sku, {.x = spec(rows, in, shape.activations, p.in.value_or(MemoryConfig{})),
                                    .w = spec(in, out, plan.dtype, plan.weight_memory),
                                    .y = spec(rows, out, plan.out_dtype, p.product),
                                    .program_config = p.program_config,
                                    .compute_kernel_config = plan.compute_kernel_config});
    };
    plan.by_rows.push_back(chosen);
    if (!program && !memory) {
      check(chosen);
      continue;
    }
    try {
      check(wanted);
      plan.by_rows.back() = wanted;
      fits = true;
    } catch (const Error& error) {
      if (!misfit) misfit = Error(error.problem(), path + ": " + error.where(), error.fix());
    }
  }
  if (!fits) throw *misfit;
}

}  // namespace

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
  const std::string& path = config.name.path;
  LinearPlan plan{.weight = config.weight,
                  .bias = config.bias,
                  .name = config.name,
                  .dtype = config.dtype.value_or(target.weight_dtype(path)),
                  .out_dtype = config.out_dtype.value_or(target.activation_dtype()),
                  .activation = config.activation.value_or(Activation{}),
                  .sharding = sharding,
                  .bias_sharding = bias_sharding,
                  .reduce_axis = sharding.cols.mesh_axis,
                  .compute_kernel_config = target.compute_config(path)};
  if (target.sku.arch != Arch::cpu) place(plan, target);
  return plan;
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
  if (plan.by_rows.empty()) return;
  row(rows, plan.name, "weight_memory", to_string(plan.weight_memory));
  for (const hw::MatmulPlan& p : plan.by_rows) {
    const std::string up_to = "rows <= " + std::to_string(p.rows);
    row(rows, plan.name, up_to, to_string(p.program_config));
    row(rows, plan.name, up_to + " placement",
        (p.in ? to_string(*p.in) : "interleaved") + " -> " + to_string(p.product) +
            (p.out == p.product ? "" : " -> " + to_string(p.out)));
  }
}

Linear::Linear(LinearPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.weight = home.bind(plan_.weight, plan_.dtype, plan_.weight_memory, plan_.sharding);
  plan_.bias = home.bind(plan_.bias, vector_dtype, {}, plan_.bias_sharding);
}

Linear::Linear(LazyWeight weight, LazyWeight bias, const Target& target, const Home& home)
    : Linear(resolve(LinearConfig{.weight = std::move(weight), .bias = std::move(bias)}, target), home) {}

Linear Linear::from_config(const LinearConfig& config, const Target& target, const Home& home) {
  return Linear(resolve(config, target), home);
}

const hw::MatmulPlan& Linear::plan_for(std::int64_t rows) const {
  static const hw::MatmulPlan unplanned;
  for (const hw::MatmulPlan& p : plan_.by_rows) {
    if (rows <= p.rows) return p;
  }
  return unplanned;
}

Tensor Linear::forward(const Tensor& x, Mode) const {
  const ModuleScope scope(plan_.name);
  const hw::MatmulPlan& p = plan_for(x.shape().rows());
  const Tensor placed = p.in ? ops::to_memory_config(x, *p.in) : x;
  const Tensor* bias = plan_.bias ? &plan_.bias.get() : nullptr;
  ops::LinearOptions options{.bias = bias,
                             .activation = plan_.activation,
                             .dtype = plan_.out_dtype,
                             .memory_config = p.product,
                             .program_config = p.program_config,
                             .compute_kernel_config = plan_.compute_kernel_config};
  if (plan_.reduce_axis < 0)
    return ops::to_memory_config(ops::linear(placed, plan_.weight.get(), options), p.out);
  // What is not linear waits for the sum.
  options.bias = nullptr;
  options.activation = {};
  Tensor y = ops::all_reduce(ops::to_memory_config(ops::linear(placed, plan_.weight.get(), options), p.out),
                             plan_.reduce_axis);
  if (bias != nullptr)
    return ops::add(std::move(y), *bias, {.activation = plan_.activation, .dtype = plan_.out_dtype});
  return plan_.activation.op == UnaryOp::identity ? y : ops::unary(std::move(y), plan_.activation);
}

}  // namespace ttt::inline v2

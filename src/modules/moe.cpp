#include "ttt/modules/moe.h"

#include <limits>

#include "modules/parallel.h"
#include "modules/print.h"
#include "ttt/hw/choose_kernels.h"

namespace ttt::inline v2 {

RouterPlan resolve(const RouterConfig& config, const Target& target) {
  const RouterSpec& s = config.spec;
  if (config.experts <= 0 || config.top_k <= 0 || config.top_k > config.experts) {
    throw Error("top " + std::to_string(config.top_k) + " of " + std::to_string(config.experts) + " experts",
                config.name.path, "top_k must be from 1 to the number of experts");
  }
  if (s.groups < 1 || config.experts % s.groups != 0 || s.top_groups < 1 || s.top_groups > s.groups) {
    throw Error(std::to_string(s.top_groups) + " of " + std::to_string(s.groups) + " groups of " +
                    std::to_string(config.experts) + " experts",
                config.name.path, "groups must divide the experts, top_groups must be from 1 to groups");
  }
  return {.spec = s,
          .experts = config.experts,
          .top_k = config.top_k,
          .linear = resolve(LinearConfig{.weight = config.weight,
                                         .bias = config.bias,
                                         .name = config.name,
                                         .out_dtype = DataType::f32,
                                         .parallel = Parallel::stream},
                            target),
          .correction_bias = config.correction_bias,
          .name = config.name};
}

void print(const RouterPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "router",
      "top " + std::to_string(plan.top_k) + " of " + std::to_string(plan.experts) +
          (plan.spec.score == RouterScore::softmax ? ", softmax" : ", sigmoid") +
          (plan.spec.order == RouterOrder::score_then_top_k ? " before" : " after") + " the choice" +
          (plan.spec.groups > 1 ? ", " + std::to_string(plan.spec.top_groups) + " of " +
                                      std::to_string(plan.spec.groups) + " groups"
                                : ""));
  print(plan.linear, rows);
}

Router::Router(RouterPlan plan, const Home& home) : plan_(std::move(plan)), linear_(plan_.linear, home) {
  plan_.correction_bias = home.bind(plan_.correction_bias, vector_dtype);
}
Router Router::from_config(const RouterConfig& config, const Target& target, const Home& home) {
  return Router(resolve(config, target), home);
}

// Scores with all but the best groups' experts pushed out of the choice.
static Tensor keep_best_groups(const Tensor& scores, const RouterPlan& plan) {
  const RouterSpec& s = plan.spec;
  const std::int64_t tokens = scores.dim(2), size = plan.experts / s.groups;
  const Tensor grouped = scores.reshape({1, tokens, s.groups, size});
  const Tensor group_scores =
      ops::sum(ops::topk(grouped, s.group_score_top).values, -1).reshape({1, 1, tokens, s.groups});
  const Tensor best = ops::topk(group_scores, s.top_groups).indices;
  const Tensor nothing = ops::mul(group_scores, 0.0f);
  const Tensor ones = ops::add(ops::mul(ops::slice(group_scores, -1, 0, s.top_groups), 0.0f), 1.0f);
  const Tensor kept = ops::scatter(nothing, -1, best, ones).reshape({1, tokens, s.groups, 1});
  const Tensor excluded = ops::add(ops::mul(grouped, 0.0f), std::numeric_limits<float>::lowest());
  return ops::where(kept, grouped, excluded).reshape({1, 1, tokens, plan.experts});
}

Router::Choice Router::forward(const Tensor& x, Mode mode) const {
  const ModuleScope scope(plan_.name);
  const RouterSpec& s = plan_.spec;
  const auto score = [&](Tensor logits) {
    return s.score == RouterScore::softmax ? ops::softmax(std::move(logits))
                                           : ops::unary(std::move(logits), {UnaryOp::sigmoid});
  };
  Tensor logits = linear_.forward(x, mode);
  tap(logits, plan_.name);
  Choice choice;
  if (s.order == RouterOrder::top_k_then_score) {
    auto [values, experts] = ops::topk(logits, plan_.top_k);
    choice = {score(std::move(values)), std::move(experts)};
  } else {
    const Tensor scores = score(std::move(logits));
    Tensor ranking = plan_.correction_bias ? ops::add(scores, plan_.correction_bias.get()) : scores;
    if (s.groups > 1) ranking = keep_best_groups(ranking, plan_);
    Tensor experts = ops::topk(ranking, plan_.top_k).indices;
    choice = {ops::gather(scores, -1, experts), experts};
  }
  if (s.renormalize) {
    Tensor total = ops::sum(choice.weights, -1);
    if (s.renormalize_eps != 0) total = ops::add(std::move(total), s.renormalize_eps);
    choice.weights = ops::div(std::move(choice.weights), std::move(total));
  }
  if (s.scale != 1) choice.weights = ops::mul(std::move(choice.weights), s.scale);
  return choice;
}

// Hidden units of every expert, up to `width`: rows of gate and up, columns of down and of biases. What comes
// out of them meets zeros.
static LazyWeight pad_units(const LazyWeight& weight, std::int64_t experts, std::int64_t width) {
  const std::int64_t own = weight.rows() / experts, zeros = weight.rows();
  std::vector<std::int64_t> order;
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    for (std::int64_t row = 0; row < width; ++row) order.push_back(row < own ? expert * own + row : zeros);
  }
  const WeightSourcePtr row =
      make_source(std::vector<float>(static_cast<std::size_t>(weight.cols())), 1, weight.cols(), "padding");
  return LazyWeight(gather_rows(concat_rows({weight.source(), row}), std::move(order)), weight.role(),
                    weight.name())
      .experts(experts);
}
static LazyWeight pad_inputs(const LazyWeight& weight, std::int64_t width) {
  return {pad_cols(weight.source(), width), weight.role(), weight.name()};
}

static void pad_experts(MoePlan& plan, const Target& target) {
  const MoeSpec& s = plan.spec;
  const std::int64_t parts = plan.up_sharding.rows.parts,
                     width = parts * hw::choose_expert_width(target.sku, s.hidden / parts);
  if (width == s.hidden) return;
  for (LazyWeight* w : {&plan.gate, &plan.up})
    if (*w) *w = pad_units(*w, s.experts, width);
  plan.down = pad_inputs(plan.down, width).experts(s.experts);
  for (LazyWeight* b : {&plan.gate_bias, &plan.up_bias})
    if (*b) *b = pad_inputs(*b, width);
}

MoePlan resolve(const MoeConfig& config, const Target& target) {
  const MoeSpec& s = config.spec;
  MoePlan plan;
  plan.spec = s;
  plan.name = config.name;
  if (config.router.weight) plan.router = resolve(config.router, target);
  const auto experts = [&](const LazyWeight& weight, const char* name) {
    if (!weight)
      throw Error(std::string("no weight experts.") + name, config.name.path, "check the weight map");
    if (weight.rows() % s.experts != 0)
      throw Error(std::string("experts.") + name + " has " + std::to_string(weight.rows()) + " rows for " +
                      std::to_string(s.experts) + " experts",
                  config.name.path, "check the weight map");
    return weight.experts(s.experts);
  };
  if (s.gated) plan.gate = experts(config.gate, "gate");
  plan.up = experts(config.up, "up");
  plan.down = experts(config.down, "down");
  plan.gate_bias = config.gate_bias;
  plan.up_bias = config.up_bias;
  plan.down_bias = config.down_bias;
  const ModuleName name = config.name / "experts";
  plan.gate_dtype = target.weight_dtype((name / "gate").path);
  plan.up_dtype = target.weight_dtype((name / "up").path);
  plan.down_dtype = target.weight_dtype((name / "down").path);
  const ShardAxis stream = over(target.mesh, stream_axis), units = over(target.mesh, unit_axis);
  plan.up_sharding.cols = plan.down_sharding.rows = stream;
  if (s.experts % units.parts == 0) {
    plan.up_sharding.experts = plan.down_sharding.experts = units;
  } else {
    plan.up_sharding.rows = plan.down_sharding.cols = units;
  }
  pad_experts(plan, target);
  if (config.shared) plan.shared = resolve(*config.shared, target);
  if (config.shared_gate)
    plan.shared_gate = resolve(
        LinearConfig{
            .weight = config.shared_gate, .name = config.name / "shared_gate", .parallel = Parallel::stream},
        target);
  return plan;
}

void print(const MoePlan& plan, PlanRows& rows) {
  if (plan.router) print(*plan.router, rows);
  const ModuleName name = plan.name / "experts";
  const auto weight = [&](const char* part, const LazyWeight& w, DataType dtype) {
    if (w)
      row(rows, name / part, "weight",
          std::to_string(plan.spec.experts) + " x [" + std::to_string(w.cols()) + ", " +
              std::to_string(w.rows() / plan.spec.experts) + "] " + std::string(ttt::name(dtype)));
  };
  weight("gate", plan.gate, plan.gate_dtype);
  weight("up", plan.up, plan.up_dtype);
  weight("down", plan.down, plan.down_dtype);
  if (plan.up_sharding.experts.parts > 1)
    row(rows, name, "division",
        "experts over mesh axis " + std::to_string(plan.up_sharding.experts.mesh_axis));
  if (plan.up_sharding.rows.parts > 1)
    row(rows, name, "division",
        "hidden units over mesh axis " + std::to_string(plan.up_sharding.rows.mesh_axis));
  if (plan.shared) print(*plan.shared, rows);
  if (plan.shared_gate) print(*plan.shared_gate, rows);
}

Moe::Moe(MoePlan plan, const Home& home) : plan_(std::move(plan)) {
  if (plan_.router) router_.emplace(*plan_.router, home);
  const Sharding &up = plan_.up_sharding, &down = plan_.down_sharding;
  plan_.gate = home.bind(plan_.gate, plan_.gate_dtype, {}, up);
  plan_.up = home.bind(plan_.up, plan_.up_dtype, {}, up);
  plan_.down = home.bind(plan_.down, plan_.down_dtype, {}, down);
  // A bias has a row for each expert and a column for each output.
  plan_.gate_bias = home.bind(plan_.gate_bias, vector_dtype, {}, {.rows = up.experts, .cols = up.rows});
  plan_.up_bias = home.bind(plan_.up_bias, vector_dtype, {}, {.rows = up.experts, .cols = up.rows});
  plan_.down_bias = home.bind(plan_.down_bias, vector_dtype, {}, {.rows = down.experts, .cols = down.rows});
  if (up.experts.mesh_axis >= 0)
    first_expert_ = first_of_parts(home.backend(), plan_.spec.experts, up.experts);
  if (plan_.shared) shared_.emplace(*plan_.shared, home);
  if (plan_.shared_gate) shared_gate_.emplace(*plan_.shared_gate, home);
}
Moe Moe::from_config(const MoeConfig& config, const Target& target, const Home& home) {
  return Moe(resolve(config, target), home);
}

// Each token times its experts. Where the products are parts of sums over a mesh axis, the bias waits for the
// sum.
static Tensor expert_linear(const Tensor& x, const LazyWeight& w, const LazyWeight& bias,
                            const Tensor& experts, int reduce_axis) {
  const Tensor* b = bias ? &bias.get() : nullptr;
  if (reduce_axis < 0) return ops::sparse_matmul(x, w.get(), experts, b);
  Tensor y = ops::all_reduce(ops::sparse_matmul(x, w.get(), experts), reduce_axis);
  if (b == nullptr) return y;
  const Tensor ids = experts.reshape({1, 1, 1, experts.shape().elements()});
  return ops::add(std::move(y), ops::embedding(ids, *b).reshape(y.shape()), {.dtype = x.dtype()});
}

Tensor Moe::experts(const Tensor& x, const Router::Choice& choice) const {
  const auto& weights = choice.weights;
  // Those of other devices are outside of the own ones and give zeros.
  const Tensor experts = first_expert_
                             ? ops::subtract(ops::typecast(choice.experts, DataType::i32), first_expert_)
                             : choice.experts;
  const int over_inputs = plan_.up_sharding.cols.mesh_axis, over_units = plan_.down_sharding.cols.mesh_axis;
  Tensor hidden = expert_linear(x, plan_.up, plan_.up_bias, experts, over_inputs);
  if (plan_.gate) {
    Tensor gate = expert_linear(x, plan_.gate, plan_.gate_bias, experts, over_inputs);
    hidden = gated_product(std::move(gate), std::move(hidden), plan_.spec.act, plan_.spec.limit);
  } else {
    hidden = ops::unary(std::move(hidden), plan_.spec.act);
  }
  const Tensor each =
      expert_linear(hidden, plan_.down, plan_.down_bias, experts, over_units);  // [1, tokens, top_k, dim]
  // The weighted sum as one product per token, so that it is rounded once.
  const Tensor row = ops::typecast(weights, each.dtype()).reshape({1, x.dim(2), 1, weights.dim(3)});
  Tensor y = ops::matmul(row, each).reshape({1, 1, x.dim(2), each.dim(3)});
  return first_expert_ ? ops::all_reduce(std::move(y), plan_.down_sharding.experts.mesh_axis) : y;
}

Tensor Moe::forward(const Tensor& x, const Router::Choice& choice, Mode mode) const {
  Tensor y = experts(x, choice);
  if (shared_) {
    Tensor shared = shared_->forward(x, mode);
    if (shared_gate_)
      shared =
          ops::mul(std::move(shared), shared_gate_->forward(x, mode), {.rhs_activation = {UnaryOp::sigmoid}});
    y = ops::add(std::move(y), std::move(shared));
  }
  tap(y, plan_.name);
  return y;
}

}  // namespace ttt::inline v2

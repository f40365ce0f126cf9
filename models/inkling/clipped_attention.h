// The second generation's attention: queries and keys of bounded length, a sink of its own for every token.
#pragma once

#include "relative_attention.h"
#include "ttt/modules/token_shift.h"

namespace ttt::models {

// x shortened to at most `longest`, each vector of the last axis.
inline Tensor clip_length(const Tensor& x, float longest) {
  const Tensor length =
      ops::unary(ops::sum(ops::unary(x, {UnaryOp::square}, DataType::f32)), {UnaryOp::sqrt});
  const Tensor inverse = ops::unary(ops::add(length, 1e-6f), {UnaryOp::reciprocal});
  return ops::mul(x, ops::clamp(ops::mul(inverse, longest), 0, 1), {.dtype = x.dtype()});
}

// y = (x + conv(x)) / sqrt(2 kernel + 1), where each token adds to the weights: static + input W for each
// head and tap.
class DynamicConv {
 public:
  DynamicConv(const BuildContext& c, const std::string& part, std::int64_t heads)
      : state_(part),
        layer_(c.name.layer),
        heads_(heads),
        weights_(c.linear(part + ".dynamic", {}, DataType::f32)),
        taps_(c.vector(part)),
        shift_(taps_.cols(), c.home) {}
  Tensor forward(const Tensor& x, const Tensor& input, const Step& step) const {
    const std::int64_t kernel = taps_.rows(), d = taps_.cols() / heads_;
    const Shape by_head{1, step.tokens, heads_, d};
    const Tensor dynamic = weights_.forward(input, step.mode).reshape({1, step.tokens, heads_, kernel});
    Tensor before = ops::typecast(x, DataType::f32), sum = before.reshape(by_head);
    for (std::int64_t i = 0; i < kernel; ++i) {
      const std::string state = state_ + "." + std::to_string(i);
      if (i > 0) before = shift_.forward(before, step.state->slots_of(layer_, state, step.iteration), step);
      const Tensor tap = ops::slice(taps_.get(), 2, i, i + 1).reshape({1, 1, heads_, d});
      const Tensor weight = ops::add(tap, ops::slice(dynamic, 3, i, i + 1));
      sum = ops::add(std::move(sum), ops::mul(before.reshape(by_head), weight));
    }
    sum = ops::mul(std::move(sum), 1 / std::sqrt(2 * static_cast<float>(kernel) + 1));
    return ops::typecast(std::move(sum), x.dtype()).reshape(x.shape());
  }

 private:
  std::string state_;
  int layer_;
  std::int64_t heads_;
  Linear weights_;
  LazyWeight taps_;  // [kernel, channels], the token itself first
  TokenShift shift_;
};

// q, r, gate, sink = x_q W;  k, v = conv(x_k W_k), norm(conv(x_v W_v))
// y = (softmax([t clip(q) clip(k)^T / sqrt(d) + bias(t clip(r)), sink]) v * sigmoid(gate)) W_o
class ClippedAttention {
 public:
  ClippedAttention(const BuildContext& c, const HfConfig& p)
      : spec_(std::get<AttentionSpec>(parse_mixer(p.json("attention")))),
        name_(c.name / "attn"),
        longest_(p.get<float>("longest")),
        longest_relative_(p.get<float>("longest_relative")),
        alpha_(p.get<float>("alpha")),
        floor_(spec_.window ? 0 : p.get<float>("floor")),
        eps_(c.spec.norm.eps),
        bias_(RelativeBias::from_config({.profiles = c.weight("attn.profiles"), .name = name_ / "bias"},
                                        c.target, c.home)),
        q_scale_(c.vector("attn.q_scale")),
        r_scale_(c.vector("attn.r_scale")),
        zeros_(from_host(c.home.backend(), std::vector<float>(static_cast<std::size_t>(spec_.heads)),
                         {1, 1, 1, spec_.heads}, DataType::f32)) {
    for (const char* part : {"q", "k", "v", "r", "o"})
      linears_.emplace(part, c.linear("attn." + std::string(part)));
    linears_.emplace("gate", c.linear("attn.gate", {UnaryOp::sigmoid}));
    linears_.emplace("sink", c.linear("attn.sink", {}, DataType::f32));
    for (const std::string part : {"attn.k_conv", "attn.v_conv"}) {
      const float scale = 1 / std::sqrt(static_cast<float>(c.weight(part).cols()) + 1);
      if (spec_.window) convs_.emplace_back(c, part, scale);
      if (!spec_.window) dynamic_convs_.emplace_back(c, part, spec_.kv_heads);
    }
  }

  Tensor forward(const Tensor& x, const Tensor& x_k, const Tensor& x_v, const Step& step) const {
    const auto linear = [&](const char* part, const Tensor& in) {
      return linears_.at(part).forward(in, step.mode);
    };
    const auto clipped = [&](const char* part, const LazyWeight& scale, float longest) {
      const Tensor t = by_head(linear(part, x), spec_.heads);
      const Tensor s =
          ops::mul(t, scale.get().reshape({1, spec_.heads, 1, t.dim(3)}), {.dtype = DataType::f32});
      return ops::mul(clip_length(s, longest), temperatures(step, alpha_, floor_), {.dtype = x.dtype()});
    };
    const auto convolved = [&](const char* part, const Tensor& in, std::size_t i) {
      const Tensor t = linear(part, in);
      return by_head(spec_.window ? convs_[i].forward(t, step) : dynamic_convs_[i].forward(t, in, step),
                     spec_.kv_heads);
    };
    const Tensor q = clipped("q", q_scale_, longest_), r = clipped("r", r_scale_, longest_relative_);
    const Tensor k = clip_length(convolved("k", x_k, 0), longest_),
                 v = ops::rms_norm(convolved("v", x_v, 1), {.epsilon = eps_});
    // A token's own sink is a sink of zero once its other scores are smaller by it.
    const Tensor sinks = by_head(linear("sink", x), spec_.heads);
    const Tensor context = attend(
        q, k, v, step.state->cache(name_.layer, step.iteration), step,
        {.attributes = {.sliding_window_size = spec_.window.value_or(0)},
         .sinks = zeros_,
         .mask = [&](const SequenceRows& rows) {
           return ops::subtract(bias_.forward(r, rows), sinks.narrow(2, rows.first, rows.first + rows.count));
         }});
    tap(context, name_, "context");
    Tensor y = linear("o", ops::mul(context, linear("gate", x)));
    tap(y, name_);
    return y;
  }
  void print(PlanRows& rows) const {
    for (const auto& [part, linear] : linears_) ttt::print(linear.plan(), rows);
    ttt::print(bias_.plan(), rows);
  }

 private:
  AttentionSpec spec_;
  ModuleName name_;
  float longest_, longest_relative_, alpha_, floor_, eps_;
  RelativeBias bias_;
  LazyWeight q_scale_, r_scale_;
  Tensor zeros_;
  std::map<std::string, Linear> linears_;
  std::vector<ResidualConv> convs_;
  std::vector<DynamicConv> dynamic_convs_;
};

}  // namespace ttt::models

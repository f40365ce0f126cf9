// RWKV 4 (Peng et al. 2023): token shifts and a weighted average of all earlier values in place of attention.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/token_shift.h"

namespace ttt::models {

// h = x + time_mix(ln1(x));  y = scale (h + channel_mix(ln2(h))).
// time_mix:    k, v, r from shifted inputs; wkv = sum_i e^(k_i - (t-1-i) w) v_i + e^(u + k_t) v_t over the
// same sum of
//              weights; (sigmoid(r) * wkv) W_o.  Sums are kept relative to the largest exponent so far.
// channel_mix: sigmoid(r) * (relu(k)^2 W_v)
class RwkvBlock final : public Block {
 public:
  RwkvBlock(const BuildContext& c, const HfConfig& p)
      : name_(c.name),
        scale_(p.get<float>("scale")),
        ln1_(norm(c, "ln1")),
        ln2_(norm(c, "ln2")),
        key_(linear(c, "att.k", {}, DataType::f32)),
        value_(linear(c, "att.v", {}, DataType::f32)),
        receptance_(linear(c, "att.r", {UnaryOp::sigmoid})),
        output_(linear(c, "att.o", {})),
        ffn_key_(linear(c, "ffn.k", {UnaryOp::relu2})),
        ffn_receptance_(linear(c, "ffn.r", {UnaryOp::sigmoid})),
        ffn_value_(linear(c, "ffn.v", {})),
        shift_(c.spec.dim, c.home) {
    for (const char* part :
         {"att.decay", "att.first", "att.mix_k", "att.mix_v", "att.mix_r", "ffn.mix_k", "ffn.mix_r"})
      vectors_[part] = c.home.bind(c.weight(part), vector_dtype);
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor h = ops::add(x, time_mix(ln1_.forward(x), step));
    return ops::add(h, channel_mix(ln2_.forward(h), step), {.activation = {UnaryOp::mul_scalar, scale_}});
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part :
         {&key_, &value_, &receptance_, &output_, &ffn_key_, &ffn_receptance_, &ffn_value_})
      ttt::print(part->plan(), rows);
  }

 private:
  static LayerNorm norm(const BuildContext& c, const std::string& part) {
    return LayerNorm(c.weight(part), c.weight(part + ".bias"), c.spec.norm.eps, c.target, c.home);
  }
  static Linear linear(const BuildContext& c, const char* part, Activation act,
                       std::optional<DataType> out = {}) {
    return Linear::from_config(
        {.weight = c.weight(part), .name = c.name / part, .activation = act, .out_dtype = out}, c.target,
        c.home);
  }
  const Tensor& vector(const char* part) const { return vectors_.at(part).get(); }
  const Tensor& slots(const Step& step, const char* part) const {
    return step.state->slots_of(name_.layer, part, step.iteration);
  }

  // mix x + (1 - mix) before
  Tensor mixed(const Tensor& x, const Tensor& before, const char* mix) const {
    return ops::add(before, ops::mul(ops::subtract(x, before), vector(mix)));
  }

  Tensor time_mix(const Tensor& x, const Step& step) const {
    const Tensor before = shift_.forward(x, slots(step, "att"), step);
    const Tensor k = key_.forward(mixed(x, before, "att.mix_k"), step.mode),
                 v = value_.forward(mixed(x, before, "att.mix_v"), step.mode),
                 r = receptance_.forward(mixed(x, before, "att.mix_r"), step.mode);
    const Activation exp{UnaryOp::exp};
    const Tensor decay = ops::repeat(vector("att.decay"), 2, step.tokens);
    const Tensor top = ops::linear_recurrence(decay, k, slots(step, "top"), step.segments,
                                              {.max_plus = true, .exclusive = true, .initial = -1e38f});
    const Tensor decayed = ops::add(top, decay), next_top = ops::maximum(decayed, k);
    const Tensor keep = ops::subtract(decayed, next_top, {.activation = exp}),
                 enter = ops::subtract(k, next_top, {.activation = exp});
    const RecurrenceOptions before_token{.exclusive = true};
    const Tensor sum = ops::linear_recurrence(keep, ops::mul(enter, v), slots(step, "sum"), step.segments,
                                              before_token),
                 weight =
                     ops::linear_recurrence(keep, enter, slots(step, "weight"), step.segments, before_token);
    const Tensor bonus = ops::add(k, vector("att.first")), most = ops::maximum(top, bonus);
    const Tensor old = ops::subtract(top, most, {.activation = exp}),
                 now = ops::subtract(bonus, most, {.activation = exp});
    const Tensor wkv =
        ops::div(ops::add(ops::mul(old, sum), ops::mul(now, v)), ops::add(ops::mul(old, weight), now));
    tap(wkv, name_, "wkv");
    return output_.forward(ops::mul(r, ops::typecast(wkv, r.dtype())), step.mode);
  }

  Tensor channel_mix(const Tensor& x, const Step& step) const {
    const Tensor before = shift_.forward(x, slots(step, "ffn"), step);
    const Tensor k = ffn_key_.forward(mixed(x, before, "ffn.mix_k"), step.mode),
                 r = ffn_receptance_.forward(mixed(x, before, "ffn.mix_r"), step.mode);
    return ops::mul(r, ffn_value_.forward(k, step.mode));
  }

  using RecurrenceOptions = ops::RecurrenceOptions;
  ModuleName name_;
  float scale_;
  LayerNorm ln1_, ln2_;
  Linear key_, value_, receptance_, output_, ffn_key_, ffn_receptance_, ffn_value_;
  std::map<std::string, LazyWeight, std::less<>> vectors_;
  TokenShift shift_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.embed_norm = m.norm;
  const std::int64_t dim = m.dim, width = c.get_or("attention_hidden_size", m.dim),
                     hidden = c.get_or("intermediate_size", 4 * m.dim);
  CustomSpec block{.name = "rwkv_block",
                   .state = {{"att", dim}, {"ffn", dim}, {"top", width}, {"sum", width}, {"weight", width}}};
  const auto vector = [&](const char* name, std::int64_t n) {
    block.weights.push_back({.name = name, .role = WeightRole::vector, .rows = 1, .cols = n});
  };
  for (const char* name : {"ln1", "ln1.bias", "ln2", "ln2.bias", "att.mix_k", "att.mix_v", "att.mix_r",
                           "ffn.mix_k", "ffn.mix_r"})
    vector(name, dim);
  for (const char* name : {"att.decay", "att.first"}) vector(name, width);
  for (const char* name : {"att.k", "att.v", "att.r"})
    block.weights.push_back({.name = name, .rows = width, .cols = dim});
  block.weights.push_back({.name = "att.o", .rows = dim, .cols = width});
  block.weights.push_back({.name = "ffn.k", .rows = hidden, .cols = dim});
  block.weights.push_back({.name = "ffn.r", .rows = dim, .cols = dim});
  block.weights.push_back({.name = "ffn.v", .rows = dim, .cols = hidden});
  // The stream is halved after every so many layers, and what later layers add to it is scaled alike.
  const int every = c.get_or("rescale_every", 6);
  for (int i = 0; i < c.layers(); ++i) {
    const bool last = every > 0 && (i + 1) % every == 0;
    const float added = every > 0 ? std::exp2(static_cast<float>(-(i / every))) : 1.0f;
    block.parameters =
        "{\"scale\": " + std::string(last ? "0.5" : "1") + ", \"added\": " + std::to_string(added) + "}";
    m.layers.push_back({.block = block});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map;
  map.strip("rwkv.")
      .layers("blocks.{i}")
      .rename("embeddings", "embed")
      .rename("blocks.0.pre_ln", "embed_norm")
      .rename("{layer}.ln1", "{layer}.ln1")
      .rename("{layer}.ln2", "{layer}.ln2")
      .rename("{layer}.attention.time_decay", "{layer}.att.decay")
      .rename("{layer}.attention.time_first", "{layer}.att.first")
      .rename("{layer}.attention.output", "{layer}.att.o")
      .rename("ln_out", "norm")
      .rename("head", "lm_head")
      .apply("*.att.decay", unary(UnaryOp::exp))
      .apply("*.att.decay", multiply(-1));
  for (const std::string part : {"key", "value", "receptance"}) {
    map.rename("{layer}.attention." + part, "{layer}.att." + part.substr(0, 1))
        .rename("{layer}.feed_forward." + part, "{layer}.ffn." + part.substr(0, 1))
        .rename("{layer}.attention.time_mix_" + part, "{layer}.att.mix_" + part.substr(0, 1))
        .rename("{layer}.feed_forward.time_mix_" + part, "{layer}.ffn.mix_" + part.substr(0, 1));
  }
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    const float added = HfConfig::parse(m.layers[i].block->parameters).get<float>("added");
    const std::string layer = "layers." + std::to_string(i);
    if (added != 1) map.apply(layer + ".att.o", multiply(added)).apply(layer + ".ffn.v", multiply(added));
  }
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["rwkv_block"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<RwkvBlock>(c, HfConfig::parse(parameters));
  };
}

static const Family rwkv{
    "rwkv",
    {.architectures = {"RwkvForCausalLM"}, .describe = describe, .weights = weights, .modules = modules}};

}  // namespace ttt::models

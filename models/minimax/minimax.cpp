// MiniMax: lightning attention (linear, one fixed decay per head) in most layers; every residual starts from
// the normed input, weighted; experts as in Mixtral.
#include <cmath>
#include <sstream>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// q, k, v = act(x W);  S = exp(-slope) S + k v^T;  y = (sigmoid(x W_g) * norm(S^T q)) W_o
class LightningAttention final : public Mixer {
 public:
  LightningAttention(const BuildContext& c, const HfConfig& p)
      : name_(c.name),
        heads_(p.get<int>("heads")),
        q_(linear(c, "q", HfConfig::act(p.get<std::string>("act")))),
        k_(linear(c, "k", HfConfig::act(p.get<std::string>("act")))),
        v_(linear(c, "v", HfConfig::act(p.get<std::string>("act")))),
        gate_(linear(c, "gate", {UnaryOp::sigmoid})),
        norm_(c.weight("norm"), 1e-6f, c.target, c.home),
        o_(linear(c, "o", {})) {
    const double layers = static_cast<double>(c.spec.layers.size());
    const double factor = 1 - c.name.layer / (layers - 1 + 1e-5) + 1e-5;
    std::vector<float> decay;
    for (int h = 1; h <= heads_; ++h)
      decay.push_back(static_cast<float>(-std::exp2(-8.0 * h / heads_) * factor));
    decay_ = from_host(c.home.backend(), decay, {1, 1, 1, heads_}, DataType::f32);
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor state =
        ops::selective_scan(v_.forward(x, step.mode), k_.forward(x, step.mode), q_.forward(x, step.mode),
                            step.state->slots_of(name_.layer, "kv", step.iteration), step.segments, heads_,
                            heads_, {.a = &decay_});
    tap(state, name_, "context");
    return o_.forward(ops::mul(gate_.forward(x, step.mode), norm_.forward(state)), step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&q_, &k_, &v_, &gate_, &o_}) ttt::print(part->plan(), rows);
    ttt::print(norm_.plan(), rows);
  }

 private:
  static Linear linear(const BuildContext& c, const char* part, Activation act) {
    return Linear::from_config({.weight = c.weight(part), .name = c.name / part, .activation = act}, c.target,
                               c.home);
  }

  ModuleName name_;
  std::int64_t heads_;
  Linear q_, k_, v_, gate_;
  RmsNorm norm_;
  Linear o_;
  Tensor decay_;
};

// n = norm(x);  h = alpha n + beta mixer(n);  n = norm(h);  y = alpha n + beta ffn(n)
class WeightedBlock final : public Block {
 public:
  WeightedBlock(const BuildContext& c, const HfConfig& p)
      : attn_norm_(c.weight("attn_norm"), c.spec.norm.eps, c.target, c.home),
        ffn_norm_(c.weight("ffn_norm"), c.spec.norm.eps, c.target, c.home),
        mixer_(c.mixer(parse_mixer(p.json("mixer")), "attn")),
        ffn_(c.ffn(parse_ffn(p.json("ffn")), "ffn")),
        factors_(p.get<std::vector<float>>("factors")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor n = attn_norm_.forward(x);
    const Tensor h = weighted(n, mixer_->forward(n, step), factors_[0], factors_[1]);
    const Tensor m = ffn_norm_.forward(h);
    return weighted(m, ffn_->forward(m, step), factors_[2], factors_[3]);
  }
  void print(PlanRows& rows) const override { mixer_->print(rows), ffn_->print(rows); }

 private:
  static Tensor weighted(const Tensor& x, Tensor y, float alpha, float beta) {
    return ops::add(
        x, std::move(y),
        {.lhs_activation = {UnaryOp::mul_scalar, alpha}, .rhs_activation = {UnaryOp::mul_scalar, beta}});
  }

  RmsNorm attn_norm_, ffn_norm_;
  std::unique_ptr<Mixer> mixer_;
  std::unique_ptr<FeedForward> ffn_;
  std::vector<float> factors_;  // alpha and beta of the mixer, then of the feed-forward
};

static CustomSpec lightning_attention(const HfConfig& c) {
  const std::int64_t dim = c.get<int>("hidden_size"), width = std::int64_t{c.heads()} * c.head_dim();
  CustomSpec s{.name = "lightning_attention",
               .parameters = "{\"heads\": " + std::to_string(c.heads()) + ", \"act\": \"" +
                             c.get_or<std::string>("hidden_act", "silu") + "\"}",
               .state = {{"kv", width * c.head_dim()}}};
  for (const char* part : {"q", "k", "v", "gate"})
    s.weights.push_back({.name = part, .rows = width, .cols = dim});
  s.weights.push_back({.name = "norm", .role = WeightRole::vector, .rows = 1, .cols = width});
  s.weights.push_back({.name = "o", .rows = dim, .cols = width});
  return s;
}

static CustomSpec block(const HfConfig& c, int dim, const MixerSpec& mixer, const FfnSpec& ffn,
                        const char* kind) {
  const std::string prefix = std::string(kind) + "_attn_";
  std::ostringstream parameters;
  parameters.precision(9);
  parameters << "{\"mixer\": " << to_json(mixer) << ", \"ffn\": " << to_json(ffn) << ", \"factors\": ["
             << c.get_or(prefix + "alpha_factor", 1.0f) << ", " << c.get_or(prefix + "beta_factor", 1.0f)
             << ", " << c.get_or("mlp_alpha_factor", 1.0f) << ", " << c.get_or("mlp_beta_factor", 1.0f)
             << "]}";
  CustomSpec s{.name = "weighted_block", .parameters = parameters.str(), .state = state_slots(mixer, dim)};
  if (const auto* attention = std::get_if<AttentionSpec>(&mixer)) s.caches = {kv_cache(*attention)};
  for (const char* norm : {"attn_norm", "ffn_norm"})
    s.weights.push_back({.name = norm, .role = WeightRole::vector, .rows = 1, .cols = dim});
  for (WeightSlot& slot : weight_slots(mixer, dim, "attn")) s.weights.push_back(slot);
  for (WeightSlot& slot : weight_slots(ffn, dim, "ffn")) s.weights.push_back(slot);
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe{.experts = c.get<int>("num_local_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("intermediate_size"),
                    .router = {.renormalize = true},
                    .act = c.act()};
  for (int i = 0; i < c.layers(); ++i) {
    const bool linear = c.layer_type(i) == "linear_attention";
    const MixerSpec mixer = linear ? MixerSpec{lightning_attention(c)} : MixerSpec{attention(c, i)};
    m.layers.push_back({.block = block(c, m.dim, mixer, moe, linear ? "linear" : "full")});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  SplitLayout by_head{};
  for (const LayerSpec& layer : m.layers) {
    const HfConfig mixer = HfConfig::parse(HfConfig::parse(layer.block->parameters).json("mixer"));
    if (mixer.has("custom"))
      by_head.groups =
          HfConfig::parse(mixer.child("custom").get<std::string>("parameters")).get<int>("heads");
  }
  return hf_decoder_names()
      .split("{layer}.self_attn.qkv_proj", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"}, by_head)
      .rename("{layer}.self_attn.output_gate", "{layer}.attn.gate")
      .rename("{layer}.self_attn.norm", "{layer}.attn.norm")
      .rename("{layer}.self_attn.out_proj", "{layer}.attn.o")
      .rename("{layer}.block_sparse_moe.gate", "{layer}.ffn.router")
      .rename("{layer}.mlp.gate", "{layer}.ffn.router")
      .stack("{layer}.block_sparse_moe.experts.{e}.w1", "{layer}.ffn.experts.gate")
      .stack("{layer}.block_sparse_moe.experts.{e}.w3", "{layer}.ffn.experts.up")
      .stack("{layer}.block_sparse_moe.experts.{e}.w2", "{layer}.ffn.experts.down")
      .ignore("*.slope_rate")  // decays follow from the layer and the head
      .ignore("*_decay");
}

static void modules(CustomModules& m) {
  m.mixers["lightning_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<LightningAttention>(c, HfConfig::parse(p));
  };
  m.blocks["weighted_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<WeightedBlock>(c, HfConfig::parse(p));
  };
}

static const Family minimax{"minimax",
                            {.architectures = {"MiniMaxForCausalLM"},
                             .describe = describe,
                             .weights = weights,
                             .ignore = {"block_size"},
                             .modules = modules}};

}  // namespace ttt::models

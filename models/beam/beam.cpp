// Beam: windowed layers that rotate, global ones that do not and sharpen queries with their position instead;
// attention has a gate, experts come in groups; what is added to the stream counts for less the deeper it is.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/paged_attention.h"
#include "ttt/modules/rope.h"

namespace ttt::models {

// Attention with y = (context * sigmoid(x W_g + one bias per head)) W_o. Without a rotation queries are
// multiplied by (1 + (position + 1) / 2048)^0.1 (https://arxiv.org/abs/2501.19399).
class GatedAttention final : public Mixer {
 public:
  GatedAttention(const BuildContext& c, const AttentionSpec& spec)
      : spec_(spec),
        layer_(c.name.layer),
        q_(c.linear("q")),
        k_(c.linear("k")),
        v_(c.linear("v")),
        gate_(c.linear("gate")),
        o_(c.linear("o")),
        q_norm_(c.rms_norm("q_norm")),
        k_norm_(c.rms_norm("k_norm")),
        gate_bias_(c.vector("gate_bias")) {
    if (spec.rope)
      rope_.emplace(Rope::from_config(
          {.spec = *spec.rope, .head_dim = spec.head_dim, .name = c.name / "rope"}, c.target));
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    const auto heads = [&](const Linear& linear, int n) {
      return ops::nlp_create_qkv_heads(linear.forward(x, step.mode), n, 0, spec_.head_dim).q;
    };
    Tensor q = q_norm_.forward(heads(q_, spec_.heads)), k = k_norm_.forward(heads(k_, spec_.kv_heads));
    if (rope_) {
      q = rope_->forward(std::move(q), step), k = rope_->forward(std::move(k), step);
    } else {
      q = ops::mul(std::move(q), sharpness(step), {.dtype = x.dtype()});
    }
    const Tensor context = attend(q, k, heads(v_, spec_.kv_heads), step.state->cache(layer_), step,
                                  {.attributes = {.sliding_window_size = spec_.window.value_or(0)}});
    const Shape by_head{1, step.tokens, spec_.heads, spec_.head_dim};
    const Tensor gate = ops::add(gate_.forward(x, step.mode).reshape(by_head),
                                 gate_bias_.get().reshape({1, 1, spec_.heads, 1}), {.dtype = x.dtype()});
    const Tensor y = ops::mul(context.reshape(by_head), gate, {.rhs_activation = {UnaryOp::sigmoid}})
                         .reshape(context.shape());
    return o_.forward(y, step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&q_, &k_, &v_, &gate_, &o_}) ttt::print(part->plan(), rows);
  }

 private:
  static Tensor sharpness(const Step& step) {
    return step.input({1, 1, step.tokens, 1}, DataType::f32, [](const Step& s, std::span<float> factors) {
      for (std::size_t i = 0; i < factors.size(); ++i)
        factors[i] = std::exp(0.1f * std::log1p((static_cast<float>(s.positions[i]) + 1) / 2048));
    });
  }

  AttentionSpec spec_;
  int layer_;
  Linear q_, k_, v_, gate_, o_;
  RmsNorm q_norm_, k_norm_;
  LazyWeight gate_bias_;
  std::optional<Rope> rope_;
};

// h = mean_2l+2(x, norm(attention(norm(x))));  y = mean_2l+3(h, norm(ffn(norm(h)))) in layer l, where
// mean_n(x, y) = sqrt((n - 1) / n) x + sqrt(1 / n) y.
class DepthScaledBlock final : public Block {
 public:
  DepthScaledBlock(const BuildContext& c, const HfConfig& p)
      : depth_(2.0f * static_cast<float>(c.name.layer + 1)),
        attn_norm_(c.rms_norm("attn_norm")),
        attn_post_norm_(c.rms_norm("attn_post_norm")),
        ffn_norm_(c.rms_norm("ffn_norm")),
        ffn_post_norm_(c.rms_norm("ffn_post_norm")),
        attention_(c.mixer(parse_mixer(p.json("mixer")), "attn")),
        ffn_(c.ffn(parse_ffn(p.json("ffn")), "ffn")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor h =
        mean(x, attn_post_norm_.forward(attention_->forward(attn_norm_.forward(x), step)), depth_);
    return mean(h, ffn_post_norm_.forward(ffn_->forward(ffn_norm_.forward(h), step)), depth_ + 1);
  }
  void print(PlanRows& rows) const override { attention_->print(rows), ffn_->print(rows); }

 private:
  static Tensor mean(const Tensor& x, Tensor y, float n) {
    return ops::add(x, std::move(y),
                    {.lhs_activation = {UnaryOp::mul_scalar, std::sqrt((n - 1) / n)},
                     .rhs_activation = {UnaryOp::mul_scalar, std::sqrt(1 / n)}});
  }

  float depth_;
  RmsNorm attn_norm_, attn_post_norm_, ffn_norm_, ffn_post_norm_;
  std::unique_ptr<Mixer> attention_;
  std::unique_ptr<FeedForward> ffn_;
};

static CustomSpec block(const HfConfig& c, int layer, int dim, bool dense) {
  c.require("attention_bias", false);
  AttentionSpec attn{
      .heads = c.heads(), .kv_heads = c.kv_heads(), .head_dim = c.head_dim(), .window = c.window(layer)};
  if (attn.window) attn.rope = c.rope(layer);  // layers that see everything do not rotate
  attn.qk_norm = QkNorm::per_head;
  attn.qk_norm_spec.eps = c.norm_eps();
  attn.gate = AttentionGateSpec{};
  CustomSpec mixer{.name = "gated_attention",
                   .parameters = to_json(MixerSpec{attn}),
                   .weights = weight_slots(attn, dim, ""),
                   .caches = {kv_cache(attn)}};
  mixer.weights.push_back({.name = "gate_bias", .role = WeightRole::vector, .rows = 1, .cols = attn.heads});
  FfnSpec ffn = mlp(c);
  if (!dense) ffn = grouped_moe(c);
  CustomSpec s{.name = "depth_scaled_block",
               .parameters = "{\"mixer\": " + to_json(MixerSpec{mixer}) + ", \"ffn\": " + to_json(ffn) + "}",
               .weights = weight_slots(MixerSpec{mixer}, dim, "attn"),
               .caches = {kv_cache(attn)}};
  for (WeightSlot& slot : weight_slots(ffn, dim, "ffn")) s.weights.push_back(slot);
  for (const char* norm : {"attn_norm", "attn_post_norm", "ffn_norm", "ffn_post_norm"})
    s.weights.push_back({.name = norm, .role = WeightRole::vector, .rows = 1, .cols = dim});
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.block = block(c, i, m.dim, kinds.at(static_cast<std::size_t>(i)) == "dense")});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .append(hf_post_norm_names())
      .rename("{layer}.self_attn.gate_proj", "{layer}.attn.gate")
      .rename("{layer}.self_attn.gate_bias", "{layer}.attn.gate_bias");
}

static void modules(CustomModules& m) {
  m.mixers["gated_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<GatedAttention>(c, std::get<AttentionSpec>(parse_mixer(p)));
  };
  m.blocks["depth_scaled_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<DepthScaledBlock>(c, HfConfig::parse(p));
  };
}

static const Family beam{
    "beam",
    {.architectures = {"BeamForCausalLM"}, .describe = describe, .weights = weights, .modules = modules}};

}  // namespace ttt::models

// BitNet: Llama with a norm in front of the output projection and one in front of the down projection. The
// weights are taken as they are stored: checkpoints with plain (bf16) values.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/mlp.h"
#include "ttt/modules/paged_attention.h"
#include "ttt/modules/rope.h"

namespace ttt::models {

// y = norm(attention heads of x) W_o
class NormedAttention final : public Mixer {
 public:
  NormedAttention(const BuildContext& c, const AttentionSpec& spec)
      : spec_(spec),
        layer_(c.name.layer),
        q_(c.linear("q")),
        k_(c.linear("k")),
        v_(c.linear("v")),
        rope_(Rope::from_config({.spec = *spec.rope, .head_dim = spec.head_dim, .name = c.name / "rope"},
                                c.target)),
        norm_(c.rms_norm("sub_norm")),
        o_(c.linear("o")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const auto heads = [&](const Linear& linear, int n) {
      return ops::nlp_create_qkv_heads(linear.forward(x, step.mode), n, 0, spec_.head_dim).q;
    };
    const Tensor context =
        attend(rope_.forward(heads(q_, spec_.heads), step), rope_.forward(heads(k_, spec_.kv_heads), step),
               heads(v_, spec_.kv_heads), step.state->cache(layer_), step, {});
    return o_.forward(norm_.forward(context), step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&q_, &k_, &v_, &o_}) ttt::print(part->plan(), rows);
  }

 private:
  AttentionSpec spec_;
  int layer_;
  Linear q_, k_, v_;
  Rope rope_;
  RmsNorm norm_;
  Linear o_;
};

// y = norm(act(x W_gate) * (x W_up)) W_down
class NormedMlp final : public FeedForward {
 public:
  NormedMlp(const BuildContext& c, const MlpSpec& spec)
      : act_(spec.act),
        gate_(c.linear("gate")),
        up_(c.linear("up")),
        norm_(c.rms_norm("sub_norm")),
        down_(c.linear("down")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor hidden =
        gated_product(gate_.forward(x, step.mode), up_.forward(x, step.mode), act_, std::nullopt);
    return down_.forward(norm_.forward(hidden), step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&gate_, &up_, &down_}) ttt::print(part->plan(), rows);
  }

 private:
  Activation act_;
  Linear gate_, up_;
  RmsNorm norm_;
  Linear down_;
};

static ModelSpec describe(const HfConfig& c) {
  if (c.has("quantization_config"))
    throw Error("packed ternary weights", c.source(), "take the checkpoint with bf16 weights");
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    const AttentionSpec attn = attention(c, i);
    const MlpSpec ffn = mlp(c);
    CustomSpec mixer{.name = "normed_attention",
                     .parameters = to_json(MixerSpec{attn}),
                     .weights = weight_slots(attn, m.dim, ""),
                     .caches = {kv_cache(attn)}};
    mixer.weights.push_back(
        {.name = "sub_norm", .role = WeightRole::vector, .rows = 1, .cols = attn.heads * attn.head_dim});
    CustomSpec feed{
        .name = "normed_mlp", .parameters = to_json(FfnSpec{ffn}), .weights = weight_slots(ffn, m.dim, "")};
    feed.weights.push_back({.name = "sub_norm", .role = WeightRole::vector, .rows = 1, .cols = ffn.hidden});
    m.layers.push_back({.mixer = mixer, .ffn = feed});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.self_attn.attn_sub_norm", "{layer}.attn.sub_norm")
      .rename("{layer}.mlp.ffn_sub_norm", "{layer}.ffn.sub_norm");
}

static void modules(CustomModules& m) {
  m.mixers["normed_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<NormedAttention>(c, std::get<AttentionSpec>(parse_mixer(p)));
  };
  m.feed_forwards["normed_mlp"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<NormedMlp>(c, std::get<MlpSpec>(parse_ffn(p)));
  };
}

static const Family bitnet{
    "bitnet",
    {.architectures = {"BitNetForCausalLM"}, .describe = describe, .weights = weights, .modules = modules}};

}  // namespace ttt::models

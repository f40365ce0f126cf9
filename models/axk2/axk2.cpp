// A.X K2: latent attention to the keys that an indexer chooses, whose queries and gate see the query latent
// both before and after its norm; norms with a gate of low rank; experts by sigmoid among groups after a
// dense layer.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/latent_attention.h"

namespace ttt::models {

static Linear linear(const BuildContext& c, const char* part, UnaryOp act = UnaryOp::identity) {
  return Linear::from_config({.weight = c.weight(part), .name = c.name / part, .activation = Activation{act}},
                             c.target, c.home);
}

// y sigmoid(up(silu(down(y)))): stands behind the norm of the block.
class NormGate {
 public:
  explicit NormGate(const BuildContext& c)
      : down_(linear(c, "norm_gate.down", UnaryOp::silu)), up_(linear(c, "norm_gate.up", UnaryOp::sigmoid)) {}
  Tensor forward(const Tensor& y, Mode mode) const {
    return ops::mul(y, up_.forward(down_.forward(y, mode), mode));
  }
  void print(PlanRows& rows) const { ttt::print(down_.plan(), rows), ttt::print(up_.plan(), rows); }

 private:
  Linear down_, up_;
};

// c = [norm(c_q), c_q];  attention with q = c W_q;  its result times sigmoid(c W_gate)
class GatedLatentAttention final : public Mixer {
 public:
  GatedLatentAttention(const BuildContext& c, std::string_view spec)
      : norm_gate_(c),
        attention_(LatentAttention::from_config(config(c, spec), c.target, c.home)),
        q_(linear(c, "q")),
        gate_(linear(c, "gate", UnaryOp::sigmoid)) {}
  Tensor forward(const Tensor& normed, const Step& step) const override {
    const Tensor x = norm_gate_.forward(normed, step.mode);
    const LatentAttention::Latents l = attention_.latents(x, step);
    const Tensor both[] = {l.q, l.q_raw}, c = ops::concat(both, 3);
    const Tensor context =
        attention_.attend(q_.forward(c, step.mode), l, attention_.selection(x, l, step), step);
    return attention_.output(ops::mul(context, gate_.forward(c, step.mode)), x, step);
  }
  void print(PlanRows& rows) const override {
    norm_gate_.print(rows), ttt::print(attention_.plan(), rows);
    ttt::print(q_.plan(), rows), ttt::print(gate_.plan(), rows);
  }

 private:
  static LatentAttentionConfig config(const BuildContext& c, std::string_view spec) {
    LatentAttentionConfig config =
        latent_attention_config(std::get<LatentAttentionSpec>(parse_mixer(spec)), c.name, c.weight);
    config.q = config.gate = {};
    return config;
  }

  NormGate norm_gate_;
  LatentAttention attention_;
  Linear q_, gate_;
};

class GatedNormMoe final : public FeedForward {
 public:
  GatedNormMoe(const BuildContext& c, std::string_view moe)
      : norm_gate_(c), moe_(c.ffn(parse_ffn(moe), "moe")) {}
  Tensor forward(const Tensor& normed, const Step& step) const override {
    return moe_->forward(norm_gate_.forward(normed, step.mode), step);
  }
  void print(PlanRows& rows) const override { norm_gate_.print(rows), moe_->print(rows); }

 private:
  NormGate norm_gate_;
  std::unique_ptr<FeedForward> moe_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const int rank = c.get_or("gated_norm_rank", 16);
  const std::vector<WeightSlot> gate{{.name = "norm_gate.down", .rows = rank, .cols = m.dim},
                                     {.name = "norm_gate.up", .rows = m.dim, .cols = rank}};
  const FfnSpec moe = grouped_moe(c);
  CustomSpec sparse{.name = "gated_norm_moe", .parameters = to_json(moe), .weights = gate};
  for (const WeightSlot& slot : weight_slots(moe, m.dim, "moe")) sparse.weights.push_back(slot);
  for (int i = 0; i < c.layers(); ++i) {
    LatentAttentionSpec attn = latent_attention(c, i);
    attn.indexer = indexer(c, attn);
    CustomSpec mixer{.name = "gated_latent_attention",
                     .parameters = to_json(MixerSpec{attn}),
                     .weights = gate,
                     .caches = {kv_cache(attn)}};
    for (WeightSlot slot : weight_slots(MixerSpec{attn}, m.dim, "")) {
      if (slot.name == "q") slot.cols *= 2;
      mixer.weights.push_back(slot);
    }
    mixer.weights.push_back(
        {.name = "gate", .rows = attn.heads * attn.v_head_dim, .cols = 2 * attn.q_lora_rank});
    m.layers.push_back({.mixer = mixer, .ffn = feed_forward(c, i, sparse)});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const auto attn =
      std::get<LatentAttentionSpec>(parse_mixer(std::get<CustomSpec>(m.layers.front().mixer).parameters));
  WeightMap map = hf_decoder_names();
  map.append(hf_moe_names("{layer}.ffn.moe")).append(hf_latent_attention_names(attn.heads));
  for (const std::string proj : {"q_b_proj", "q_gate_proj"})
    map.split("{layer}.self_attn." + proj, {"{layer}.attn.q", "{layer}.attn.gate"}, {.groups = attn.heads});
  for (const auto& [norm, part] :
       {std::pair{std::string("input_layernorm"), std::string("attn")}, {"post_attention_layernorm", "ffn"}})
    map.rename("{layer}." + norm + ".norm", "{layer}." + part + "_norm")
        .rename("{layer}." + norm + ".W_down", "{layer}." + part + ".norm_gate.down")
        .rename("{layer}." + norm + ".W_up", "{layer}." + part + ".norm_gate.up");
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["gated_latent_attention"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<GatedLatentAttention>(c, parameters);
  };
  m.feed_forwards["gated_norm_moe"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<GatedNormMoe>(c, parameters);
  };
}

static const Family axk2{
    "axk2",
    {.architectures = {"AXK2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"qk_head_dim", "head_dim", "num_key_value_heads", "layer_types", "*aux_loss*",
                "first_k_dense_replace", "moe_layer_freq", "ep_size", "scoring_func", "topk_method"},
     .modules = modules}};

}  // namespace ttt::models

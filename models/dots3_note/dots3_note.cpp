// Dots 3 Note: latent attention of other dimensions in layers with a window, an indexer in the others; the
// rotated key has a norm of its own, each head a gate; experts by sigmoid among groups.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/latent_attention.h"

namespace ttt::models {

// Latent attention with k_rope = norm(k_rope) before it is rotated.
class NormedRopeAttention final : public Mixer {
 public:
  NormedRopeAttention(const BuildContext& c, std::string_view spec)
      : attention_(LatentAttention::from_config(
            latent_attention_config(std::get<LatentAttentionSpec>(parse_mixer(spec)), c.name, c.weight),
            c.target, c.home)),
        k_norm_(c.weight("k_norm"), c.spec.norm.eps, c.target, c.home) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    LatentAttention::Latents l = attention_.latents(x, step);
    l.k_rope = k_norm_.forward(l.k_rope);
    const Tensor context =
        attention_.attend(attention_.queries(l, step), l, attention_.selection(x, l, step), step);
    return attention_.output(context, x, step);
  }
  void print(PlanRows& rows) const override {
    ttt::print(attention_.plan(), rows), ttt::print(k_norm_.plan(), rows);
  }

 private:
  LatentAttention attention_;
  RmsNorm k_norm_;
};

static LatentAttentionSpec attention_of(const HfConfig& c, int i) {
  LatentAttentionSpec s = latent_attention(c, i);
  const bool slides = c.slides(i);
  // Layers with a window say their dimensions one by one (entries have as many digits as the last layer), or
  // all under swa_ as the published checkpoint does.
  std::string entry = std::to_string(i);
  entry.insert(0, std::to_string(c.layers() - 1).size() - entry.size(), '0');
  const auto own = [&](const std::string& key, int& value) {
    value = c.get_or("per_layer_config." + entry + "." + key, slides ? c.get_or("swa_" + key, value) : value);
  };
  own("num_attention_heads", s.heads);
  own("q_lora_rank", s.q_lora_rank);
  own("kv_lora_rank", s.kv_lora_rank);
  own("qk_nope_head_dim", s.nope_dim);
  own("qk_rope_head_dim", s.rope_dim);
  own("v_head_dim", s.v_head_dim);
  s.norm_eps = c.norm_eps();
  s.gate = AttentionGateSpec{.per_head = true};
  if (c.layer_type(i) == "indexed_attention") {
    s.indexer = indexer(c, s);
    s.indexer->rope->interleaved = true;
  }
  return s;
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  MoeSpec moe = grouped_moe(c);
  moe.shared->hidden =
      c.get_or("shared_experts_intermediate_size", moe.hidden) * c.get_or("n_shared_experts", 1);
  for (int i = 0; i < c.layers(); ++i) {
    const LatentAttentionSpec attn = attention_of(c, i);
    CustomSpec mixer{.name = "normed_rope_attention",
                     .parameters = to_json(MixerSpec{attn}),
                     .weights = weight_slots(MixerSpec{attn}, m.dim, ""),
                     .caches = {kv_cache(attn)}};
    mixer.weights.push_back({.name = "k_norm", .role = WeightRole::vector, .rows = 1, .cols = attn.rope_dim});
    m.layers.push_back({.mixer = mixer, .ffn = feed_forward(c, i, moe)});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names();
  map.strip("language_model.")
      .append(hf_moe_names())
      .rename("{layer}.self_attn.g_proj", "{layer}.attn.gate")
      .rename("{layer}.self_attn.k_rope_only_layernorm", "{layer}.attn.k_norm")
      .ignore(next_token_layer(m))
      .ignore("mtp.*")
      .ignore("vision_*")
      .ignore("audio_*");
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    const std::string layer = "layers." + std::to_string(i);
    const auto attn =
        std::get<LatentAttentionSpec>(parse_mixer(std::get<CustomSpec>(m.layers[i].mixer).parameters));
    map.append(hf_latent_attention_names(attn.heads, layer + ".self_attn", layer + ".attn"));
    // The latents are multiplied by (dim / rank)^1/2, here in their norms.
    const auto scale = [&](int rank) { return multiply(std::sqrt(static_cast<float>(m.dim) / rank)); };
    map.apply(layer + ".attn.q_a_norm", scale(attn.q_lora_rank))
        .apply(layer + ".attn.kv_a_norm", scale(attn.kv_lora_rank));
  }
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["normed_rope_attention"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<NormedRopeAttention>(c, parameters);
  };
}

static const Family dots3_note{
    "dots3_note",
    {.architectures = {"Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration"},
     .describe = describe,
     .weights = weights,
     .ignore = {"qk_head_dim", "head_dim", "num_key_value_heads", "per_layer_config.*.num_key_value_heads",
                "per_layer_config.*.head_dim", "swa_num_key_value_heads", "swa_head_dim", "swa_rope_theta",
                "use_dsa", "use_sliding_window", "moe_layer_freq", "partial_rotary_factor"},
     .modules = modules}};

}  // namespace ttt::models

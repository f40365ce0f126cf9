// Ling 3 (Bailing): gated delta nets with a decay per channel (Kimi delta attention) in most layers, gated
// latent attention in the others; experts by sigmoid among groups.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const int heads = c.heads(), width = c.get_or("linear_head_dim", c.head_dim());
  GatedDeltaNetSpec delta{.heads = heads,
                          .key_heads = heads,
                          .key_dim = width,
                          .value_dim = width,
                          .conv_kernel = c.get_or("short_conv_kernel_size", 4),
                          .decay_per_channel = true,
                          .gate_act = UnaryOp::sigmoid,
                          .norm_eps = m.norm.eps};
  if (c.get_or("kda_safe_gate", true)) delta.decay_bound = c.get_or("kda_lower_bound", -5.0f);
  for (int i = 0; i < c.layers(); ++i) {
    LatentAttentionSpec attn = latent_attention(c, i);
    attn.gate = AttentionGateSpec{.per_head = true};
    m.layers.push_back({.mixer = c.layer_type(i) == "full_attention" ? MixerSpec{attn} : delta,
                        .ffn = feed_forward(c, i, grouped_moe(c))});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names();
  map.append(hf_moe_names())
      .append(hf_delta_net_names("{layer}.attention"))
      .rename("word_embeddings", "embed")
      .rename("{layer}.mlp.gate.expert_bias", "{layer}.ffn.router.correction_bias")
      .rename("{layer}.attention.", "{layer}.attn.", {{"f_proj", "a"}, {"dense", "o"}})
      .ignore(next_token_layer(m));
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    const auto* attn = std::get_if<LatentAttentionSpec>(&m.layers[i].mixer);
    if (attn == nullptr) continue;
    const std::string layer = "layers." + std::to_string(i);
    map.append(hf_latent_attention_names(attn->heads, layer + ".attention", layer + ".attn"))
        .rename(layer + ".attention.g_proj", layer + ".attn.gate");
  }
  return map;
}

static const Family bailing_hybrid("bailing_hybrid", {"BailingHybridForCausalLM", "BailingMoeV3ForCausalLM"},
                                   describe, weights,
                                   {"qk_head_dim", "num_key_value_heads", "first_k_dense_replace",
                                    "layer_group_size", "linear_num_heads", "linear_conv_kernel_dim"});

}  // namespace ttt::models

// Persimmon: layer norms, also of each head of q and k, half of which rotates; a plain squared-ReLU MLP.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = attn.out_bias = true;
    if (c.get_or("qk_layernorm", true)) attn.qk_norm = QkNorm::per_head, attn.qk_norm_spec = m.norm;
    m.layers.push_back({.mixer = attn, .ffn = plain_mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names()
      .append(hf_megatron_names(first_attention(m).heads, "{layer}.self_attn"))
      .rename("{layer}.self_attn.", "{layer}.attn.", {{"q_layernorm", "q_norm"}, {"k_layernorm", "k_norm"}})
      .rename("final_layernorm", "norm");
}

static const Family persimmon("persimmon", {"PersimmonForCausalLM"}, describe, weights);

}  // namespace ttt::models

// Phi 1 and 2: attention and a plain MLP side by side under one layer norm, biases everywhere, part of each
// head rotates.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c);
  m.lm_head_bias = true;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = attn.out_bias = true;
    if (c.get_or("qk_layernorm", false)) attn.qk_norm = QkNorm::per_head, attn.qk_norm_spec = m.norm;
    m.layers.push_back({.mixer = attn, .ffn = plain_mlp(c), .residual = Residual::parallel_shared});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.self_attn.", "{layer}.attn.",
              {{"dense", "o"}, {"q_layernorm", "q_norm"}, {"k_layernorm", "k_norm"}})
      .rename("{layer}.mlp.", "{layer}.ffn.", {{"fc1", "up"}, {"fc2", "down"}})
      .rename("final_layernorm", "norm");
}

static const Family phi("phi", {"PhiForCausalLM"}, describe, weights);

}  // namespace ttt::models

// GLM-4 9B of 2024: interleaved rotation of half of each head, biases on q, k and v, gate and up in one
// matrix.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.out_bias = false;
    attn.rope->interleaved = true;
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names().split_gate_up("{layer}.mlp.gate_up_proj");
}

static const Family glm("glm", {"GlmForCausalLM"}, describe, weights);

}  // namespace ttt::models

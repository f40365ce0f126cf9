// GLM-4: norms before and after, interleaved rotation of half of each head, biases on q, k and v, gate and up
// in one matrix.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.out_bias = false;
    attn.rope->interleaved = true;
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::sandwich});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.post_self_attn_layernorm", "{layer}.attn_post_norm")
      .rename("{layer}.post_mlp_layernorm", "{layer}.ffn_post_norm")
      .split_gate_up("{layer}.mlp.gate_up_proj");
}

static WeightMap gguf(const ModelSpec&) { return gguf_decoder_names().split_gate_up("{layer}.ffn_up"); }

static const Family glm4{"glm4",
                         {.architectures = {"Glm4ForCausalLM"},
                          .describe = describe,
                          .weights = weights,
                          .gguf = {{.architecture = "glm4", .weights = gguf}}}};

}  // namespace ttt::models

// Phi-3 and Phi-4: q, k and v in one matrix, gate and up in another; longrope on part of each head.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = mlp(c)});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names().split_qkv("{layer}.self_attn.qkv_proj").split_gate_up("{layer}.mlp.gate_up_proj");
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names().split_qkv("{layer}.attn_qkv").split_gate_up("{layer}.ffn_up");
}

static const Family phi3{"phi3",
                         {.architectures = {"Phi3ForCausalLM"},
                          .describe = describe,
                          .weights = weights,
                          .gguf = {{.architecture = "phi3", .weights = gguf}},
                          .ignore = {"original_max_position_embeddings"}}};

}  // namespace ttt::models

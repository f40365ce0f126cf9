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
  return hf_decoder_names()
      .split("{layer}.self_attn.qkv_proj", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"})
      .split("{layer}.mlp.gate_up_proj", {"{layer}.ffn.gate", "{layer}.ffn.up"});
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names()
      .split("{layer}.attn_qkv", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"})
      .split("{layer}.ffn_up", {"{layer}.ffn.gate", "{layer}.ffn.up"});
}

static const Family phi3{"phi3",
                         {.architectures = {"Phi3ForCausalLM"},
                          .describe = describe,
                          .weights = weights,
                          .gguf = {{.architecture = "phi3", .weights = gguf}},
                          .ignore = {"original_max_position_embeddings", "auto_map"}}};

}  // namespace ttt::models

// Qwen 3: every head of q and k is normalised before it rotates.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names(); }
static WeightMap gguf(const ModelSpec&) { return gguf_decoder_names(); }

static const Family qwen3{
    "qwen3",
    {.architectures = {"Qwen3ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "qwen3", .constants = R"({"model_type": "qwen3"})", .weights = gguf}}}};

}  // namespace ttt::models

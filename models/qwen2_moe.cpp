// Qwen 2 MoE: Qwen 2 whose experts stand beside a gated one that every token
// passes.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  MoeSpec moe = softmax_moe(c);
  moe.shared_gate = true;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = c.get_or("qkv_bias", true);
    attn.out_bias = false;  // GGUF files show biases of some kind only
    m.layers.push_back({.mixer = attn, .ffn = feed_forward(c, i, moe)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family qwen2_moe{
    "qwen2_moe",
    {.architectures = {"Qwen2MoeForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "qwen2moe", .constants = R"({"model_type": "qwen2_moe"})"}}}};

}  // namespace ttt::models

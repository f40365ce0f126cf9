// Qwen 3 MoE: Qwen 3 with experts in most layers; softmax over all, then the best. Mellum has windows, and a
// rotation of its own for either kind of layer.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe = softmax_moe(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.mixer = attention(c, i, QkNorm::per_head), .ffn = feed_forward(c, i, moe)});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family qwen3_moe{
    "qwen3_moe",
    {.architectures = {"Qwen3MoeForCausalLM", "MellumForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "qwen3moe",
               .constants = R"({"model_type": "qwen3_moe", "norm_topk_prob": true})"}},
     .ignore = {"intermediate_size", "rope_parameters.sliding_attention"}}};

}  // namespace ttt::models

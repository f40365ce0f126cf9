// StarCoder 2: layer norms and a plain GELU MLP with biases in an otherwise Llama-like decoder; a window.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c, true);
  const bool bias = c.get_or("use_bias", true);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = attn.out_bias = bias;
    m.layers.push_back({.mixer = attn, .ffn = plain_mlp(c, bias)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names().rename("{layer}.mlp.", "{layer}.ffn.", {{"c_fc", "up"}, {"c_proj", "down"}});
}

static const Family starcoder2{
    "starcoder2",
    {.architectures = {"Starcoder2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "starcoder2", .constants = R"({"model_type": "starcoder2"})"}},
     .ignore = {"mlp_type", "norm_type"}}};

}  // namespace ttt::models

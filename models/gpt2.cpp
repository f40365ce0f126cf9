// GPT-2: learned positions, layer norms, a plain GELU MLP, biases everywhere, matrices stored [in, out].
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  c.require("add_cross_attention", false);
  ModelSpec m = layer_norm_decoder(c, true);
  m.positions = PositionSpec{.entries = m.max_positions};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = plain_attention(c);
    float scale =
        c.get_or("scale_attn_weights", true) ? 1 / std::sqrt(static_cast<float>(attn.head_dim)) : 1.0f;
    if (c.get_or("scale_attn_by_inverse_layer_idx", false)) scale /= static_cast<float>(i + 1);
    attn.scale = scale;
    m.layers.push_back({.mixer = attn, .ffn = plain_mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_wte_names()
      .transpose("*.c_attn")
      .transpose("*.c_proj")
      .transpose("*.c_fc")
      .split_qkv("{layer}.attn.c_attn")
      .rename("{layer}.attn.c_proj", "{layer}.attn.o");
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names().rename("position_embd", "position_embed").split_qkv("{layer}.attn_qkv");
}

static const Family gpt2{
    "gpt2",
    {.architectures = {"GPT2LMHeadModel"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "gpt2",
               .constants = R"({"model_type": "gpt2", "activation_function": "gelu_new"})",
               .weights = gguf}},
     .ignore = {"reorder_and_upcast_attn", "n_ctx"}}};

}  // namespace ttt::models

// GPT-2: learned positions, layer norms, a plain GELU MLP, biases everywhere, matrices stored [in, out].
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  c.require("add_cross_attention", false);
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.positions = PositionSpec{.entries = m.max_positions};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const MlpSpec ffn{.hidden = c.get_or("n_inner", 4 * m.dim), .act = c.act(), .gated = false, .bias = true};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn{.heads = c.heads(),
                       .kv_heads = c.heads(),
                       .head_dim = m.dim / c.heads(),
                       .qkv_bias = true,
                       .out_bias = true};
    float scale =
        c.get_or("scale_attn_weights", true) ? 1 / std::sqrt(static_cast<float>(attn.head_dim)) : 1.0f;
    if (c.get_or("scale_attn_by_inverse_layer_idx", false)) scale /= static_cast<float>(i + 1);
    attn.scale = scale;
    m.layers.push_back({.mixer = attn, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return WeightMap()
      .strip("transformer.")
      .layers("h.{i}")
      .transpose("*.c_attn")
      .transpose("*.c_proj")
      .transpose("*.c_fc")
      .rename("wte", "embed")
      .rename("wpe", "position_embed")
      .rename("{layer}.ln_1", "{layer}.attn_norm")
      .split("{layer}.attn.c_attn", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"})
      .rename("{layer}.attn.c_proj", "{layer}.attn.o")
      .rename("{layer}.ln_2", "{layer}.ffn_norm")
      .rename("{layer}.mlp.c_fc", "{layer}.ffn.up")
      .rename("{layer}.mlp.c_proj", "{layer}.ffn.down")
      .rename("ln_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head")
      .ignore("*.attn.bias")  // causal masks of older checkpoints
      .ignore("*.attn.masked_bias");
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names()
      .rename("position_embd", "position_embed")
      .split("{layer}.attn_qkv", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"});
}

static const Family gpt2{
    "gpt2",
    {.architectures = {"GPT2LMHeadModel"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "gpt2",
               .constants = R"({"model_type": "gpt2", "activation_function": "gelu_new"})",
               .weights = gguf}},
     .ignore = {"reorder_and_upcast_attn", "n_ctx", "summary_*", "task_specific_params"}}};

}  // namespace ttt::models

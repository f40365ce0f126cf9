// GPT-Neo: learned positions, unscaled scores, every other layer through a window.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.positions = PositionSpec{.entries = m.max_positions};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const int heads = c.get<int>("num_heads"), layers = c.get<int>("num_layers");
  const auto kinds = c.get<std::vector<std::string>>("attention_layers");
  const MlpSpec ffn{
      .hidden = c.get_or("intermediate_size", 4 * m.dim), .act = c.act(), .gated = false, .bias = true};
  for (int i = 0; i < layers; ++i) {
    AttentionSpec attn{
        .heads = heads, .kv_heads = heads, .head_dim = m.dim / heads, .out_bias = true, .scale = 1.0f};
    if (kinds.at(static_cast<std::size_t>(i)) == "local") attn.window = c.get<int>("window_size");
    m.layers.push_back({.mixer = attn, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return WeightMap()
      .strip("transformer.")
      .layers("h.{i}")
      .rename("wte", "embed")
      .rename("wpe", "position_embed")
      .rename("{layer}.ln_1", "{layer}.attn_norm")
      .rename("{layer}.attn.attention.q_proj", "{layer}.attn.q")
      .rename("{layer}.attn.attention.k_proj", "{layer}.attn.k")
      .rename("{layer}.attn.attention.v_proj", "{layer}.attn.v")
      .rename("{layer}.attn.attention.out_proj", "{layer}.attn.o")
      .rename("{layer}.ln_2", "{layer}.ffn_norm")
      .rename("{layer}.mlp.c_fc", "{layer}.ffn.up")
      .rename("{layer}.mlp.c_proj", "{layer}.ffn.down")
      .rename("ln_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head")
      .ignore("*.attn.attention.bias")  // causal masks of older checkpoints
      .ignore("*.attn.attention.masked_bias");
}

static const Family gpt_neo{
    "gpt_neo",
    {.architectures = {"GPTNeoForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"attention_types", "classifier_dropout", "embed_dropout", "resid_dropout"}}};

}  // namespace ttt::models

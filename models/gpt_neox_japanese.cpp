// GPT-NeoX Japanese: no biases but one after the last attention, attention and MLP in turn.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  const MlpSpec ffn{
      .hidden = m.dim * c.get_or("intermediate_multiple_size", 4), .act = c.act(), .gated = false};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.out_bias = i == c.layers() - 1;
    m.layers.push_back({.mixer = attn, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const auto& attn = std::get<AttentionSpec>(m.layers.front().mixer);
  return WeightMap()
      .strip("gpt_neox_japanese.")
      .rename("embed_in", "embed")
      .rename("{layer}.input_layernorm", "{layer}.attn_norm")
      .split("{layer}.attention.query_key_value", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"},
             {.groups = attn.heads})
      .rename("{layer}.attention.dense", "{layer}.attn.o")
      .rename("{layer}.attention.dense_bias", "{layer}.attn.o.bias")
      .rename("{layer}.post_attention_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.mlp.dense_h_to_4h", "{layer}.ffn.up")
      .rename("{layer}.mlp.dense_4h_to_h", "{layer}.ffn.down")
      .rename("final_layer_norm", "norm")
      .rename("embed_out", "lm_head")
      .surplus("lm_head");
}

static const Family gpt_neox_japanese{"gpt_neox_japanese",
                                      {.architectures = {"GPTNeoXJapaneseForCausalLM"},
                                       .describe = describe,
                                       .weights = weights,
                                       .ignore = {"hidden_dropout", "is_decoder"}}};

}  // namespace ttt::models

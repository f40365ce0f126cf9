// GPT-NeoX Japanese: no biases but one after the last attention, attention and MLP in turn.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c);
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
  return hf_megatron_names(first_attention(m).heads, "{layer}.attention")
      .strip("gpt_neox_japanese.")
      .rename("embed_in", "embed")
      .rename("{layer}.attention.dense_bias", "{layer}.attn.o.bias")
      .rename("final_layer_norm", "norm")
      .rename("embed_out", "lm_head")
      .surplus("lm_head");
}

static const Family gpt_neox_japanese("gpt_neox_japanese", {"GPTNeoXJapaneseForCausalLM"}, describe, weights);

}  // namespace ttt::models

// GPT-BigCode (StarCoder 1, SantaCoder): GPT-2 with one key and value head, matrices stored [out, in].
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c, true);
  m.positions = PositionSpec{.entries = m.max_positions};
  AttentionSpec attn = plain_attention(c);
  if (c.get_or("multi_query", true)) attn.kv_heads = 1;
  if (!c.get_or("scale_attn_weights", true)) attn.scale = 1;
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = plain_mlp(c)});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const AttentionSpec& attn = first_attention(m);
  return hf_wte_names()
      .split_qkv("{layer}.attn.c_attn", attn.kv_heads == 1 ? 1 : attn.heads)
      .rename("{layer}.attn.c_proj", "{layer}.attn.o");
}

static const Family gpt_bigcode("gpt_bigcode", {"GPTBigCodeForCausalLM"}, describe, weights,
                                {"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32",
                                 "add_cross_attention", "num_key_value_heads"});

}  // namespace ttt::models

// GPT-BigCode (StarCoder 1, SantaCoder): GPT-2 with one key and value head, matrices stored [out, in].
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.positions = PositionSpec{.entries = m.max_positions};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const int heads = c.heads();
  AttentionSpec attn{.heads = heads,
                     .kv_heads = c.get_or("multi_query", true) ? 1 : heads,
                     .head_dim = m.dim / heads,
                     .qkv_bias = true,
                     .out_bias = true};
  if (!c.get_or("scale_attn_weights", true)) attn.scale = 1;
  const MlpSpec ffn{.hidden = c.get_or("n_inner", 4 * m.dim), .act = c.act(), .gated = false, .bias = true};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const auto& attn = std::get<AttentionSpec>(m.layers.front().mixer);
  return WeightMap()
      .strip("transformer.")
      .layers("h.{i}")
      .rename("wte", "embed")
      .rename("wpe", "position_embed")
      .rename("{layer}.ln_1", "{layer}.attn_norm")
      .split("{layer}.attn.c_attn", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"},
             {.groups = attn.kv_heads == 1 ? 1 : attn.heads})
      .rename("{layer}.attn.c_proj", "{layer}.attn.o")
      .rename("{layer}.ln_2", "{layer}.ffn_norm")
      .rename("{layer}.mlp.c_fc", "{layer}.ffn.up")
      .rename("{layer}.mlp.c_proj", "{layer}.ffn.down")
      .rename("ln_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head")
      .ignore("*.attn.bias");  // causal masks of older checkpoints
}

static const Family gpt_bigcode{"gpt_bigcode",
                                {.architectures = {"GPTBigCodeForCausalLM"},
                                 .describe = describe,
                                 .weights = weights,
                                 .ignore = {"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32",
                                            "add_cross_attention", "num_key_value_heads"}}};

}  // namespace ttt::models

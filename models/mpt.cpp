// MPT: linear position biases, no biases at all, clipped q, k and v, an own scale of the scores.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  c.require("no_bias", true);
  const HfConfig a = c.child("attn_config");
  a.require("alibi", true);
  a.require("alibi_bias_max", 8);
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps()};
  m.tied_embeddings = true;
  AttentionSpec attn = plain_attention(c, false);
  attn.scale = a.find<float>("softmax_scale");
  attn.clip_qkv = a.find<float>("clip_qkv");
  attn.alibi = 1;
  const MlpSpec ffn{.hidden = m.dim * c.get_or("expansion_ratio", 4), .act = {UnaryOp::gelu}, .gated = false};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_wte_names()
      .layers("blocks.{i}")
      .rename("{layer}.", "{layer}.", {{"norm_1", "attn_norm"}, {"norm_2", "ffn_norm"}})
      .split_qkv("{layer}.attn.Wqkv")
      .rename("{layer}.attn.out_proj", "{layer}.attn.o")
      .rename("{layer}.ffn.", "{layer}.ffn.", {{"up_proj", "up"}, {"down_proj", "down"}})
      .rename("norm_f", "norm");
}

static const Family mpt("mpt", {"MptForCausalLM"}, describe, weights,
                        {"attn_config.*", "norm_type", "learned_pos_emb", "embedding_fraction", "logit_scale",
                         "tie_word_embeddings"});

}  // namespace ttt::models

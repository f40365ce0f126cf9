// MPT: linear position biases, no biases at all, clipped q, k and v, an own scale of the scores.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  c.require("no_bias", true);
  const HfConfig a = c.child("attn_config");
  a.require("alibi", true);
  a.require("alibi_bias_max", 8);
  const int heads = c.get<int>("n_heads");
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("d_model"),
              .max_positions = c.get<int>("max_seq_len")};
  m.norm = {.kind = NormKind::layer, .eps = c.get_or("layer_norm_epsilon", 1e-5f)};
  m.tied_embeddings = true;
  const AttentionSpec attn{.heads = heads,
                           .kv_heads = heads,
                           .head_dim = m.dim / heads,
                           .scale = a.find<float>("softmax_scale"),
                           .clip_qkv = a.find<float>("clip_qkv"),
                           .alibi = 1};
  const MlpSpec ffn{.hidden = m.dim * c.get_or("expansion_ratio", 4), .act = {UnaryOp::gelu}, .gated = false};
  m.layers.assign(static_cast<std::size_t>(c.get<int>("n_layers")), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return WeightMap()
      .strip("transformer.")
      .layers("blocks.{i}")
      .rename("wte", "embed")
      .rename("{layer}.norm_1", "{layer}.attn_norm")
      .split("{layer}.attn.Wqkv", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"})
      .rename("{layer}.attn.out_proj", "{layer}.attn.o")
      .rename("{layer}.norm_2", "{layer}.ffn_norm")
      .rename("{layer}.ffn.up_proj", "{layer}.ffn.up")
      .rename("{layer}.ffn.down_proj", "{layer}.ffn.down")
      .rename("norm_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static const Family mpt{"mpt",
                        {.architectures = {"MptForCausalLM"},
                         .describe = describe,
                         .weights = weights,
                         .ignore = {"attn_config.*", "init_device", "norm_type", "learned_pos_emb",
                                    "embedding_fraction", "logit_scale", "tie_word_embeddings"}}};

}  // namespace ttt::models

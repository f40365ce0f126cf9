// OPT: learned positions that start at 2, ReLU; the 350M normalises after the addition.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  c.require("word_embed_proj_dim", m.dim);
  const bool bias = c.get_or("enable_bias", true), before = c.get_or("do_layer_norm_before", true);
  const bool affine = c.get_or("layer_norm_elementwise_affine", true);
  m.norm = {.kind = NormKind::layer, .eps = 1e-5f, .weight = affine, .bias = affine};
  m.final_norm = before && !c.get_or("_remove_final_layer_norm", false);
  m.positions = PositionSpec{.entries = m.max_positions + 2, .offset = 2};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const int heads = c.heads();
  const AttentionSpec attn{
      .heads = heads, .kv_heads = heads, .head_dim = m.dim / heads, .qkv_bias = bias, .out_bias = bias};
  const MlpSpec ffn{.hidden = c.get<int>("ffn_dim"), .act = c.act(), .gated = false, .bias = bias};
  m.layers.assign(
      static_cast<std::size_t>(c.layers()),
      {.mixer = attn, .ffn = ffn, .residual = before ? Residual::pre_norm : Residual::norm_after_add});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const std::string when = m.layers.front().residual == Residual::pre_norm ? "_norm" : "_post_norm";
  return WeightMap()
      .strip("model.")
      .strip("decoder.")
      .rename("embed_tokens", "embed")
      .rename("embed_positions", "position_embed")
      .rename("{layer}.self_attn_layer_norm", "{layer}.attn" + when)
      .rename("{layer}.self_attn.q_proj", "{layer}.attn.q")
      .rename("{layer}.self_attn.k_proj", "{layer}.attn.k")
      .rename("{layer}.self_attn.v_proj", "{layer}.attn.v")
      .rename("{layer}.self_attn.out_proj", "{layer}.attn.o")
      .rename("{layer}.final_layer_norm", "{layer}.ffn" + when)
      .rename("{layer}.fc1", "{layer}.ffn.up")
      .rename("{layer}.fc2", "{layer}.ffn.down")
      .rename("final_layer_norm", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static const Family opt{"opt",
                        {.architectures = {"OPTForCausalLM"},
                         .describe = describe,
                         .weights = weights,
                         .ignore = {"init_std", "layerdrop", "dropout"}}};

}  // namespace ttt::models

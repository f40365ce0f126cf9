// EXAONE MoE: normalised heads, only windowed layers rotate, experts by sigmoid among groups after some dense
// layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe = grouped_moe(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    if (!attn.window && c.find<int>("sliding_window")) attn.rope.reset();
    m.layers.push_back({.mixer = attn, .ffn = feed_forward(c, i, moe)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.mlp.e_score_correction_bias", "{layer}.ffn.router.correction_bias");
}

static const Family exaone_moe("exaone_moe", {"ExaoneMoeForCausalLM"}, describe, weights,
                               {"first_k_dense_replace", "sliding_window_pattern"});

}  // namespace ttt::models

// EXAONE 4: norms after attention and MLP instead of before, normalised heads; where some layers have
// windows, only those rotate.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    if (!attn.window && c.find<int>("sliding_window")) attn.rope.reset();
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::post_norm});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_post_norm_names()); }

static const Family exaone4("exaone4", {"Exaone4ForCausalLM"}, describe, weights, {"sliding_window_pattern"});

}  // namespace ttt::models

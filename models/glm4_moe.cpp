// GLM-4.5: partial rotation, biases on q, k and v, normalised heads, experts by sigmoid among groups after
// some dense layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const QkNorm norm = c.get_or("use_qk_norm", false) ? QkNorm::per_head : QkNorm::none;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, norm);
    attn.out_bias = false;
    m.layers.push_back({.mixer = attn, .ffn = feed_forward(c, i, grouped_moe(c))});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .ignore(next_token_layer(m));  // the head that predicts the token after next
}

static const Family glm4_moe("glm4_moe", {"Glm4MoeForCausalLM"}, describe, weights);

}  // namespace ttt::models

// Hunyuan dense: Llama whose heads of q and k are normalised after they rotate; the base of the rotation is
// stretched.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    attn.qk_norm_after_rope = true;
    const auto alpha = c.rope_parameters().find<float>("alpha");
    if (alpha && attn.rope->scaling.kind == RopeScalingKind::dynamic) {
      const auto d = static_cast<float>(attn.head_dim);
      attn.rope->theta *= std::pow(*alpha, d / (d - 2));
      attn.rope->scaling = {};
    }
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.self_attn.query_layernorm", "{layer}.attn.q_norm")
      .rename("{layer}.self_attn.key_layernorm", "{layer}.attn.k_norm");
}

static const Family hunyuan("hunyuan", {"HunYuanDenseV1ForCausalLM"}, describe, weights, {"eod_token_id"});

}  // namespace ttt::models

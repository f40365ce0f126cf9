// Hunyuan V3: normalised heads, experts by sigmoid with a correction bias after a dense layer, a shared one.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe = grouped_moe(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.mixer = attention(c, i, QkNorm::per_head), .ffn = feed_forward(c, i, moe)});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.mlp.router.gate", "{layer}.ffn.router")
      .rename("{layer}.mlp.expert_bias", "{layer}.ffn.router.correction_bias")
      .rename("{layer}.mlp.shared_mlp.", "{layer}.ffn.shared.",
              {{"gate_proj", "gate"}, {"up_proj", "up"}, {"down_proj", "down"}});
}

static const Family hy_v3("hy_v3", {"HYV3ForCausalLM"}, describe, weights, {"enable_moe_fp32_combine"});

}  // namespace ttt::models

// AFMoE (Trinity): four norms, gated attention with normalised heads, only windowed layers rotate, experts by
// sigmoid after some dense layers.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  if (c.get_or("mup_enabled", false)) m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    attn.gate = AttentionGateSpec{};
    if (!attn.window) attn.rope.reset();
    m.layers.push_back(
        {.mixer = attn, .ffn = feed_forward(c, i, grouped_moe(c)), .residual = Residual::sandwich});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.", "{layer}.",
              {{"self_attn.gate_proj", "attn.gate"},
               {"mlp.router.gate", "ffn.router"},
               {"mlp.expert_bias", "ffn.router.correction_bias"},
               {"post_attention_layernorm", "attn_post_norm"},
               {"pre_mlp_layernorm", "ffn_norm"},
               {"post_mlp_layernorm", "ffn_post_norm"}});
}

static const Family afmoe("afmoe", {"AfmoeForCausalLM"}, describe, weights);

}  // namespace ttt::models

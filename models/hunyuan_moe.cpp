// Hunyuan MoE: experts beside an MLP that every token passes; heads of q and k are normalised after they
// rotate.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  MoeSpec moe = softmax_moe(c, true);
  moe.shared = MlpSpec{.hidden = moe.hidden, .act = moe.act};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    attn.qk_norm_after_rope = true;
    m.layers.push_back({.mixer = attn, .ffn = moe});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.self_attn.", "{layer}.attn.",
              {{"query_layernorm", "q_norm"}, {"key_layernorm", "k_norm"}})
      .rename("{layer}.mlp.gate.wg", "{layer}.ffn.router")
      .rename("{layer}.mlp.shared_mlp.", "{layer}.ffn.shared.",
              {{"gate_proj", "gate"}, {"up_proj", "up"}, {"down_proj", "down"}});
}

static const Family hunyuan_moe("hunyuan_moe", {"HunYuanMoEV1ForCausalLM"}, describe, weights,
                                {"eod_token_id"});

}  // namespace ttt::models

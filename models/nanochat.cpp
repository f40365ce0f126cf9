// nanochat: norms without parameters, also after the embedding and of rotated q and k; rotation the other way
// round.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.eps = c.norm_eps(), .weight = false};
  m.embed_norm = m.norm;
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  MlpSpec ffn = mlp(c);
  ffn.gated = false;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec = m.norm;
    attn.qk_norm_after_rope = true;
    attn.rope->scaling = {.kind = RopeScalingKind::linear, .factor = -1};
    m.layers.push_back({.mixer = attn, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.mlp.fc1", "{layer}.ffn.up")
      .rename("{layer}.mlp.fc2", "{layer}.ffn.down");
}

static const Family nanochat("nanochat", {"NanoChatForCausalLM"}, describe, weights);

}  // namespace ttt::models

// OLMo 1: layer norms without parameters; q, k and v may be clipped.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = 1e-5f, .weight = false};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.clip_qkv = c.find<float>("clip_qkv");
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static const Family olmo("olmo", {"OlmoForCausalLM"}, describe, nullptr, {"rms_norm_eps"});

}  // namespace ttt::models

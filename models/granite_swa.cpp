// Granite SWA: Granite with windows, sinks and a rotation per layer.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c, true);
  m.embed_scale = c.get_or("embedding_multiplier", 1.0f);
  m.logit_scale = 1 / c.get_or("logits_scaling", 1.0f);
  const auto thetas = c.get_or("layer_rope_theta", std::vector<float>{});
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.scale = c.get_or("attention_multiplier", 1.0f);
    attn.sinks = true;
    if (!thetas.empty()) attn.rope->theta = thetas.at(static_cast<std::size_t>(i));
    if (attn.rope->theta == 0) attn.rope.reset();
    m.layers.push_back(
        {.mixer = attn, .ffn = mlp(c), .residual_scale = c.get_or("residual_multiplier", 1.0f)});
  }
  return m;
}

static const Family granite_swa("granite_swa", {"GraniteSWAForCausalLM"}, describe);

}  // namespace ttt::models

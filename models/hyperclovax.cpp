// HyperCLOVA X: the four multipliers of Granite, and norms after attention and MLP too.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.embed_scale = c.get_or("embedding_multiplier", 1.0f);
  m.logit_scale = c.get_or("logits_scaling", 1.0f);  // multiplies, unlike Granite's
  const Residual residual = c.get_or("use_post_norm", false) ? Residual::sandwich : Residual::pre_norm;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.scale = c.find<float>("attention_multiplier");
    m.layers.push_back({.mixer = attn,
                        .ffn = mlp(c),
                        .residual = residual,
                        .residual_scale = c.get_or("residual_multiplier", 1.0f)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.post_norm1", "{layer}.attn_post_norm")
      .rename("{layer}.post_norm2", "{layer}.ffn_post_norm");
}

static const Family hyperclovax("hyperclovax", {"HyperCLOVAXForCausalLM"}, describe, weights);

}  // namespace ttt::models

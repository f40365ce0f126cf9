// MiniCPM 3: latent attention that rotates in halves; factors on embedding, residuals and logits.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c, true);
  const auto layers = static_cast<float>(c.layers());
  m.embed_scale = c.get_or("scale_emb", 1.0f);
  m.logit_scale = c.get_or("dim_model_base", static_cast<float>(m.dim)) / static_cast<float>(m.dim);
  const float residual = c.get_or("scale_depth", std::sqrt(layers)) / std::sqrt(layers);
  for (int i = 0; i < c.layers(); ++i) {
    LatentAttentionSpec attn = latent_attention(c, i);
    if (attn.rope) attn.rope->interleaved = false;
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual_scale = residual});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names().append(
      hf_latent_attention_names(std::get<LatentAttentionSpec>(m.layers.front().mixer).heads));
}

static const Family minicpm3("minicpm3", {"MiniCPM3ForCausalLM"}, describe, weights);

}  // namespace ttt::models

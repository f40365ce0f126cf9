// Youtu: latent attention with a dense MLP.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c, true);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = latent_attention(c, i), .ffn = mlp(c)});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names().append(
      hf_latent_attention_names(std::get<LatentAttentionSpec>(m.layers.front().mixer).heads));
}

static const Family youtu("youtu", {"YoutuForCausalLM"}, describe, weights);

}  // namespace ttt::models

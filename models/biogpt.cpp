// BioGPT: learned positions that start at 2, a scaled embedding, layer norms and biases.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c, true);
  m.norm.eps = 1e-5f;  // the config's value changes nothing in the reference
  m.positions = PositionSpec{.entries = m.max_positions + 2, .offset = 2};
  if (c.get_or("scale_embedding", true)) m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = plain_attention(c), .ffn = plain_mlp(c)});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_fairseq_names().strip("biogpt.").rename("output_projection", "lm_head");
}

static const Family biogpt("biogpt", {"BioGptForCausalLM"}, describe, weights);

}  // namespace ttt::models

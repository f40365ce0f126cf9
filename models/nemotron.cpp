// Nemotron: layer norms that multiply by 1 + w, a plain squared-ReLU MLP, rotation of half of each head.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c);
  MlpSpec ffn = mlp(c);
  ffn.gated = false;
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().apply("*norm", add(1)); }

static const Family nemotron("nemotron", {"NemotronForCausalLM"}, describe, weights);

}  // namespace ttt::models

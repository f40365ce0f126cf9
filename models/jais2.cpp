// Jais 2: layer norms, a plain squared-ReLU MLP, biases.
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

static const Family jais2("jais2", {"Jais2ForCausalLM"}, describe);

}  // namespace ttt::models

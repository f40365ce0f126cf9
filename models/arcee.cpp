// Arcee: Llama with a plain squared-ReLU MLP.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  MlpSpec ffn = mlp(c);
  ffn.gated = false;
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = ffn});
  return m;
}

static const Family arcee("arcee", {"ArceeForCausalLM"}, describe);

}  // namespace ttt::models

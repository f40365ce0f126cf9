// Helium: Llama with interleaved rotation.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.out_bias = false;
    attn.rope->interleaved = true;
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static const Family helium("helium", {"HeliumForCausalLM"}, describe);

}  // namespace ttt::models

// Seed-OSS: biases on q, k and v; the one behind attention has a key of its own.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.out_bias = c.get_or("attention_out_bias", false);
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static const Family seed_oss("seed_oss", {"SeedOssForCausalLM"}, describe);

}  // namespace ttt::models

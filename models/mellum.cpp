// Mellum: Qwen 3 MoE with windows, and a rotation of its own for either kind of layer.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe = softmax_moe(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.mixer = attention(c, i, QkNorm::per_head), .ffn = feed_forward(c, i, moe)});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family mellum("mellum", {"MellumForCausalLM"}, describe, weights);

}  // namespace ttt::models

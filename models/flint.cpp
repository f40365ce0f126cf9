// Flint: normalised heads, sinks, only windowed layers rotate, experts by plain sigmoid with a shared one.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  MoeSpec moe = softmax_moe(c, true);
  moe.router.score = RouterScore::sigmoid;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    attn.sinks = true;
    if (!attn.window) attn.rope.reset();
    m.layers.push_back({.mixer = attn, .ffn = feed_forward(c, i, moe)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.self_attn.softmax_offset", "{layer}.attn.sinks");
}

static const Family flint("flint", {"FlintForCausalLM"}, describe, weights);

}  // namespace ttt::models

// dots.llm1: Qwen 3 heads, a window in the upper layers, experts by sigmoid among groups after some dense
// layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back(
        {.mixer = attention(c, i, QkNorm::per_head), .ffn = feed_forward(c, i, grouped_moe(c))});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family dots1("dots1", {"Dots1ForCausalLM"}, describe, weights);

}  // namespace ttt::models

// FlexOLMo: OLMo 2 with experts.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe = softmax_moe(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back(
        {.mixer = attention(c, i, QkNorm::full_width), .ffn = moe, .residual = Residual::post_norm});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names().append(hf_moe_names()).append(hf_post_norm_names());
}

static const Family flex_olmo("flex_olmo", {"FlexOlmoForCausalLM"}, describe, weights);

}  // namespace ttt::models

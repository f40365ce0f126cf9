// OLMoE: experts chosen by softmax, q and k normalised over their full width.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  if (c.has("clip_qkv")) throw Error("clip_qkv behind norms of q and k", c.source(), "no network has it");
  ModelSpec m = decoder(c);
  const MoeSpec moe = softmax_moe(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.mixer = attention(c, i, QkNorm::full_width), .ffn = moe});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family olmoe("olmoe", {"OlmoeForCausalLM"}, describe, weights);

}  // namespace ttt::models

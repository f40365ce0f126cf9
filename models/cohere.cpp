// Command R (Cohere): attention and MLP side by side under one layer norm, interleaved rotation; the larger
// one normalises each head.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c, true);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps()};
  m.logit_scale = c.get_or("logit_scale", 0.0625f);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.rope->interleaved = true;
    if (c.get_or("use_qk_norm", false)) {
      attn.qk_norm = QkNorm::per_head_weights;
      attn.qk_norm_spec = m.norm;
    }
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::parallel_shared});
  }
  return m;
}

static const Family cohere("cohere", {"CohereForCausalLM"}, describe);

}  // namespace ttt::models

// Granite 3: four multipliers: embedding, attention scores, residuals, logits.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.embed_scale = c.get_or("embedding_multiplier", 1.0f);
  m.logit_scale = 1 / c.get_or("logits_scaling", 1.0f);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.scale = c.get_or("attention_multiplier", 1.0f);
    m.layers.push_back(
        {.mixer = attn, .ffn = mlp(c), .residual_scale = c.get_or("residual_multiplier", 1.0f)});
  }
  return m;
}

static const Family granite{"granite",
                            {.architectures = {"GraniteForCausalLM"},
                             .describe = describe,
                             .gguf = {{.architecture = "granite",
                                       .constants = R"({"model_type": "granite"})",
                                       .weights = gguf_permuted_names}}}};

}  // namespace ttt::models

// Command R7B (Cohere 2): attention and MLP side by side under one layer norm; only windowed layers rotate.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps()};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.logit_scale = c.get_or("logit_scale", 0.0625f);
  const bool compass =
      root.architecture() == "CohereCompassForCausalLM";  // rotates in every layer, in halves
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.window = c.window(i, 4);
    if (!attn.window && !compass) attn.rope.reset();
    if (attn.rope) attn.rope->interleaved = !compass;
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::parallel_shared});
  }
  return m;
}

static const Family cohere2("cohere2", {"Cohere2ForCausalLM", "CohereCompassForCausalLM"}, describe, nullptr,
                            {"pooling", "rope_parameters.*"});

}  // namespace ttt::models

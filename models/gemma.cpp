// Gemma 1: the embedding is scaled by sqrt(dim), norms multiply by 1 + w, a GELU MLP.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-6f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  MlpSpec ffn = mlp(c);
  ffn.act = {UnaryOp::gelu_tanh};  // also where older configs say "gelu"
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().apply("*norm", add(1)); }

static const Family gemma{"gemma",
                          {.architectures = {"GemmaForCausalLM"},
                           .describe = describe,
                           .weights = weights,
                           .gguf = {{.architecture = "gemma", .constants = R"({"model_type": "gemma"})"}}}};

}  // namespace ttt::models

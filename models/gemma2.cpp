// Gemma 2: norms before and after, soft caps on scores and logits, every other layer through a window.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-6f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.window = c.window(i, 2);
    attn.scale = 1 / std::sqrt(c.get_or("query_pre_attn_scalar", static_cast<float>(attn.head_dim)));
    attn.softcap = c.find<float>("attn_logit_softcapping");
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::sandwich});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names().append(hf_post_norm_names()).apply("*norm", add(1));
}

static const Family gemma2{
    "gemma2",
    {.architectures = {"Gemma2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "gemma2",
               .constants = R"({"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh"})"}},
     .ignore = {"use_bidirectional_attention", "cache_implementation"}}};

}  // namespace ttt::models

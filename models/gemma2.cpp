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
  return hf_decoder_names()
      .rename("{layer}.post_attention_layernorm", "{layer}.attn_post_norm")  // Llama's name for another norm
      .rename("{layer}.pre_feedforward_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.post_feedforward_layernorm", "{layer}.ffn_post_norm")
      .apply("*norm", add(1));
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names()
      .rename("{layer}.post_attention_norm", "{layer}.attn_post_norm")
      .rename("{layer}.post_ffw_norm", "{layer}.ffn_post_norm");
}

static const Family gemma2{
    "gemma2",
    {.architectures = {"Gemma2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "gemma2",
               .config = {{"attn_logit_softcapping", "{arch}.attn_logit_softcapping"},
                          {"final_logit_softcapping", "{arch}.final_logit_softcapping"}},
               .constants = R"({"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh"})",
               .weights = gguf}},
     .ignore = {"use_bidirectional_attention", "cache_implementation"}}};

}  // namespace ttt::models

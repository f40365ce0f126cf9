// Gemma 3: Gemma 2 with normalised q and k in place of soft caps, five windows to one global layer, and a
// rotation for each kind.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();  // the larger checkpoints keep the decoder beside a vision tower
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-6f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.window = c.window(i, 6);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = m.norm.eps;
    attn.scale = 1 / std::sqrt(c.get_or("query_pre_attn_scalar", static_cast<float>(attn.head_dim)));
    attn.softcap = c.find<float>("attn_logit_softcapping");
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::sandwich});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .strip("language_model.")
      .append(hf_post_norm_names())
      .apply("*norm", add(1))
      .ignore("vision_tower.*")
      .ignore("multi_modal_projector.*");
}

static const Family gemma3{
    "gemma3",
    {.architectures = {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
     .describe = describe,
     .weights = weights,
     .gguf =
         {{.architecture = "gemma3",
           .constants =
               R"({"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window_pattern": 6, "rope_local_base_freq": 10000.0})"}},
     .ignore = {"use_bidirectional_attention", "cache_implementation"}}};

}  // namespace ttt::models

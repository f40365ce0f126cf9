// VaultGemma: Gemma 2 without the norms after attention and MLP.
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
    attn.scale = 1 / std::sqrt(c.get<float>("query_pre_attn_scalar"));
    attn.softcap = c.find<float>("attn_logit_softcapping");
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.pre_feedforward_layernorm", "{layer}.ffn_norm")
      .apply("*norm", add(1));
}

static const Family vaultgemma("vaultgemma", {"VaultGemmaForCausalLM"}, describe, weights);

}  // namespace ttt::models

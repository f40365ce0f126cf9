// StableLM 2: layer norms, partial rotation; the 12B normalises each head and has attention and MLP side by
// side.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c);
  const auto residual =
      c.get_or("use_parallel_residual", false) ? Residual::parallel_shared : Residual::pre_norm;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = c.get_or("use_qkv_bias", false);
    if (c.get_or("qk_layernorm", false)) attn.qk_norm = QkNorm::per_head_weights;
    attn.qk_norm_spec = {.kind = NormKind::layer, .eps = c.norm_eps()};
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = residual});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .stack("{layer}.self_attn.q_layernorm.norms.{e}", "{layer}.attn.q_norm")
      .stack("{layer}.self_attn.k_layernorm.norms.{e}", "{layer}.attn.k_norm");
}

static const Family stablelm("stablelm", {"StableLmForCausalLM"}, describe, weights);

}  // namespace ttt::models

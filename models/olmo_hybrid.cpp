// OLMo Hybrid: gated delta nets whose transitions may have negative eigenvalues, between OLMo 2's attention
// layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  GatedDeltaNetSpec delta = gated_delta_net(c);
  delta.norm_eps = 1e-5f;
  if (c.get_or("linear_allow_neg_eigval", true)) delta.beta_scale = 2;
  for (int i = 0; i < c.layers(); ++i) {
    if (c.layer_type(i) == "linear_attention") {
      m.layers.push_back({.mixer = delta, .ffn = mlp(c)});
      continue;
    }
    AttentionSpec attn = attention(c, i, QkNorm::full_width);
    if (!c.has("rope_parameters") && !c.has("rope_theta")) attn.rope.reset();
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::post_norm});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names();
  map.append(hf_delta_net_names())
      .rename("{layer}.attention_layer_norm", "{layer}.attn_norm")
      .rename("{layer}.feedforward_layer_norm", "{layer}.ffn_norm")
      .rename("{layer}.post_feedforward_layernorm", "{layer}.ffn_post_norm")
      .rename("{layer}.linear_attn.conv1d", "{layer}.attn.conv");
  // The norms of an attention layer stand behind its parts, the first of them under the name of the other
  // kind's last.
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    if (m.layers[i].residual != Residual::post_norm) continue;
    const std::string layer = "layers." + std::to_string(i);
    map.rename(layer + ".post_attention_layernorm", layer + ".attn_post_norm")
        .rename(layer + ".feedforward_layer_norm", layer + ".attn_post_norm");
  }
  return map;
}

static const Family olmo_hybrid("olmo_hybrid", {"OlmoHybridForCausalLM"}, describe, weights,
                                {"linear_a_log_*", "linear_dt_*"});

}  // namespace ttt::models

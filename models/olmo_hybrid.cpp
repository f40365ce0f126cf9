// OLMo Hybrid: gated delta nets whose transitions may have negative eigenvalues, between OLMo 2's attention
// layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const GatedDeltaNetSpec delta{.heads = c.get<int>("linear_num_value_heads"),
                                .key_heads = c.get<int>("linear_num_key_heads"),
                                .key_dim = c.get<int>("linear_key_head_dim"),
                                .value_dim = c.get<int>("linear_value_head_dim"),
                                .conv_kernel = c.get_or("linear_conv_kernel_dim", 4),
                                .act = c.act(),
                                .beta_scale = c.get_or("linear_allow_neg_eigval", true) ? 2.0f : 1.0f,
                                .norm_eps = 1e-5f};
  for (int i = 0; i < c.layers(); ++i) {
    if (c.layer_type(i) == "linear_attention") {
      m.layers.push_back({.mixer = delta, .ffn = mlp(c)});
      continue;
    }
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::full_width;
    attn.qk_norm_spec.eps = m.norm.eps;
    if (!c.has("rope_parameters") && !c.has("rope_theta")) attn.rope.reset();
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::post_norm});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names();
  map.rename("{layer}.attention_layer_norm", "{layer}.attn_norm")
      .rename("{layer}.feedforward_layer_norm", "{layer}.ffn_norm")
      .rename("{layer}.post_feedforward_layernorm", "{layer}.ffn_post_norm")
      .concat(
          {"{layer}.linear_attn.q_conv1d", "{layer}.linear_attn.k_conv1d", "{layer}.linear_attn.v_conv1d"},
          "{layer}.attn.conv")
      .rename("{layer}.linear_attn.conv1d", "{layer}.attn.conv")
      .rename("{layer}.linear_attn.g_proj", "{layer}.attn.z")
      .rename("{layer}.linear_attn.dt_bias", "{layer}.attn.dt_bias")
      .rename("{layer}.linear_attn.A_log", "{layer}.attn.rate")
      .rename("{layer}.linear_attn.o_norm", "{layer}.attn.norm")
      .apply("*.attn.rate", unary(UnaryOp::exp));
  for (const std::string part : {"q", "k", "v", "a", "b", "o"})
    map.rename("{layer}.linear_attn." + part + "_proj", "{layer}.attn." + part);
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

static const Family olmo_hybrid{"olmo_hybrid",
                                {.architectures = {"OlmoHybridForCausalLM"},
                                 .describe = describe,
                                 .weights = weights,
                                 .ignore = {"linear_a_log_*", "linear_dt_*"}}};

}  // namespace ttt::models

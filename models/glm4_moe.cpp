// GLM-4.5: partial rotation, biases on q, k and v, normalised heads, experts by sigmoid among groups after
// some dense layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const int dense = c.get_or("first_k_dense_replace", 0);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.out_bias = false;
    if (c.get_or("use_qk_norm", false)) attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    m.layers.push_back({.mixer = attn, .ffn = i < dense ? FfnSpec{mlp(c)} : FfnSpec{grouped_moe(c)}});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .ignore("layers." + std::to_string(m.layers.size()) +
              ".*");  // the head that predicts the token after next
}

static const Family glm4_moe{
    "glm4_moe",
    {.architectures = {"Glm4MoeForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"output_router_logits", "router_aux_loss_coef", "num_nextn_predict_layers"}}};

}  // namespace ttt::models

// dots.llm1: Qwen 3 heads, a window in the upper layers, experts by sigmoid among groups after some dense
// layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const int dense = c.get_or("first_k_dense_replace", 0);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    m.layers.push_back({.mixer = attn, .ffn = i < dense ? FfnSpec{mlp(c)} : FfnSpec{grouped_moe(c)}});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family dots1{"dots1",
                          {.architectures = {"Dots1ForCausalLM"},
                           .describe = describe,
                           .weights = weights,
                           .ignore = {"output_router_logits", "router_aux_loss_coef"}}};

}  // namespace ttt::models

// FlexOLMo: OLMo 2 with experts.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe{.experts = c.get<int>("num_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("intermediate_size"),
                    .router = {.renormalize = c.get_or("norm_topk_prob", false)},
                    .act = c.act()};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::full_width;
    attn.qk_norm_spec.eps = c.norm_eps();
    m.layers.push_back({.mixer = attn, .ffn = moe, .residual = Residual::post_norm});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.post_attention_layernorm", "{layer}.attn_post_norm")  // Llama's name for another norm
      .rename("{layer}.post_feedforward_layernorm", "{layer}.ffn_post_norm");
}

static const Family flex_olmo{"flex_olmo",
                              {.architectures = {"FlexOlmoForCausalLM"},
                               .describe = describe,
                               .weights = weights,
                               .ignore = {"output_router_logits", "router_aux_loss_coef"}}};

}  // namespace ttt::models

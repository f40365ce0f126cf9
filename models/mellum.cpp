// Mellum: Qwen 3 MoE with windows, and a rotation of its own for either kind of layer.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  const MoeSpec moe{.experts = c.get<int>("num_local_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("moe_intermediate_size"),
                    .router = {.renormalize = c.get_or("norm_topk_prob", false)},
                    .act = c.act()};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    const bool dense = kinds.at(static_cast<std::size_t>(i)) == "dense";
    m.layers.push_back({.mixer = attn, .ffn = dense ? FfnSpec{mlp(c)} : FfnSpec{moe}});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family mellum{"mellum",
                           {.architectures = {"MellumForCausalLM"},
                            .describe = describe,
                            .weights = weights,
                            .ignore = {"output_router_logits", "router_aux_loss_coef", "mtp_layer_types",
                                       "mtp_mlp_layer_types", "num_nextn_predict_layers"}}};

}  // namespace ttt::models

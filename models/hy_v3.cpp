// Hunyuan V3: normalised heads, experts by sigmoid with a correction bias after a dense layer, a shared one.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  const int hidden = c.get<int>("moe_intermediate_size");
  const MoeSpec moe{.experts = c.get<int>("num_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = hidden,
                    .router = {.score = RouterScore::sigmoid,
                               .renormalize = true,
                               .renormalize_eps = 1e-20f,
                               .scale = c.get_or("router_scaling_factor", 1.0f),
                               .correction_bias = true},
                    .act = c.act(),
                    .shared = MlpSpec{.hidden = hidden * c.get_or("num_shared_experts", 1), .act = c.act()}};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    const bool dense = kinds.at(static_cast<std::size_t>(i)) == "dense";
    m.layers.push_back({.mixer = attn, .ffn = dense ? FfnSpec{mlp(c)} : FfnSpec{moe}});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.mlp.router.gate", "{layer}.ffn.router")
      .rename("{layer}.mlp.expert_bias", "{layer}.ffn.router.correction_bias")
      .rename("{layer}.mlp.shared_mlp.gate_proj", "{layer}.ffn.shared.gate")
      .rename("{layer}.mlp.shared_mlp.up_proj", "{layer}.ffn.shared.up")
      .rename("{layer}.mlp.shared_mlp.down_proj", "{layer}.ffn.shared.down");
}

static const Family hy_v3{
    "hy_v3",
    {.architectures = {"HYV3ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"output_router_logits", "router_aux_loss_coef", "enable_moe_fp32_combine"}}};

}  // namespace ttt::models

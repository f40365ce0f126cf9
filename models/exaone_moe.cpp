// EXAONE MoE: normalised heads, only windowed layers rotate, experts by sigmoid among groups after some dense
// layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  MoeSpec moe = grouped_moe(c);
  moe.shared = MlpSpec{.hidden = c.get_or("num_shared_experts", 1) * moe.hidden, .act = c.act()};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    if (!attn.window && c.find<int>("sliding_window")) attn.rope.reset();
    const bool dense = kinds.at(static_cast<std::size_t>(i)) == "dense";
    m.layers.push_back({.mixer = attn, .ffn = dense ? FfnSpec{mlp(c)} : FfnSpec{moe}});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.mlp.e_score_correction_bias", "{layer}.ffn.router.correction_bias");
}

static const Family exaone_moe{"exaone_moe",
                               {.architectures = {"ExaoneMoeForCausalLM"},
                                .describe = describe,
                                .weights = weights,
                                .ignore = {"output_router_logits", "router_aux_loss_coef",
                                           "first_k_dense_replace", "sliding_window_pattern"}}};

}  // namespace ttt::models

// Flint: normalised heads, sinks, only windowed layers rotate, experts by plain sigmoid with a shared one.
#include <algorithm>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe{
      .experts = c.get<int>("num_experts"),
      .top_k = c.get<int>("num_experts_per_tok"),
      .hidden = c.get<int>("moe_intermediate_size"),
      .router = {.score = RouterScore::sigmoid, .renormalize = c.get_or("norm_topk_prob", true)},
      .act = c.act(),
      .shared = MlpSpec{.hidden = c.get<int>("shared_expert_intermediate_size"), .act = c.act()}};
  const auto dense_layers = c.get_or("mlp_only_layers", std::vector<int>{});
  const int step = c.get_or("decoder_sparse_step", 1);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    attn.sinks = true;
    if (!attn.window) attn.rope.reset();
    const bool dense = std::ranges::count(dense_layers, i) > 0 || (i + 1) % step != 0;
    m.layers.push_back({.mixer = attn, .ffn = dense ? FfnSpec{mlp(c)} : FfnSpec{moe}});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.self_attn.softmax_offset", "{layer}.attn.sinks");
}

static const Family flint{"flint",
                          {.architectures = {"FlintForCausalLM"},
                           .describe = describe,
                           .weights = weights,
                           .ignore = {"output_router_logits", "router_aux_loss_coef"}}};

}  // namespace ttt::models

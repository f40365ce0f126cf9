// Qwen 3 MoE: Qwen 3 with experts in most layers; softmax over all, then the best.
#include <algorithm>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe{.experts = c.get<int>("num_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("moe_intermediate_size"),
                    .router = {.renormalize = c.get_or("norm_topk_prob", false)},
                    .act = c.act()};
  const auto dense_layers = c.get_or("mlp_only_layers", std::vector<int>{});
  const int step = c.get_or("decoder_sparse_step", 1);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    const bool dense = std::ranges::count(dense_layers, i) > 0 || (i + 1) % step != 0;
    m.layers.push_back({.mixer = attn, .ffn = dense ? FfnSpec{mlp(c)} : FfnSpec{moe}});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.mlp.gate", "{layer}.ffn.router")
      .stack("{layer}.mlp.experts.{e}.gate_proj", "{layer}.ffn.experts.gate")
      .stack("{layer}.mlp.experts.{e}.up_proj", "{layer}.ffn.experts.up")
      .stack("{layer}.mlp.experts.{e}.down_proj", "{layer}.ffn.experts.down");
}

static WeightMap gguf(const ModelSpec&) { return gguf_decoder_names(); }

static const Family qwen3_moe{
    "qwen3_moe",
    {.architectures = {"Qwen3MoeForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "qwen3moe",
               .config = {{"num_experts", "{arch}.expert_count"},
                          {"num_experts_per_tok", "{arch}.expert_used_count"},
                          {"moe_intermediate_size", "{arch}.expert_feed_forward_length"}},
               .constants = R"({"model_type": "qwen3_moe", "norm_topk_prob": true})",
               .weights = gguf}},
     .ignore = {"output_router_logits", "router_aux_loss_coef"}}};

}  // namespace ttt::models

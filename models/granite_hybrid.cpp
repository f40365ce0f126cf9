// Granite 4: Granite's multipliers over Mamba 2 layers with some attention between them; experts beside a
// shared MLP.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static SsdSpec mamba2(const HfConfig& c) {
  SsdSpec s{.heads = c.get<int>("mamba_n_heads"),
            .head_dim = c.get_or("mamba_expand", 2) * c.get<int>("hidden_size") / c.get<int>("mamba_n_heads"),
            .state = c.get<int>("mamba_d_state"),
            .groups = c.get_or("mamba_n_groups", 1),
            .conv_kernel = c.get_or("mamba_d_conv", 4),
            .bias = c.get_or("mamba_proj_bias", false),
            .conv_bias = c.get_or("mamba_conv_bias", true),
            .act = c.act(),
            .norm_eps = c.norm_eps()};
  if (const auto limit = c.find<std::vector<float>>("time_step_limit"); limit && limit->size() == 2) {
    if ((*limit)[0] > 0) s.dt_min = (*limit)[0];
    if (std::isfinite((*limit)[1])) s.dt_max = (*limit)[1];
  }
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.embed_scale = c.get_or("embedding_multiplier", 1.0f);
  m.logit_scale = 1 / c.get_or("logits_scaling", 1.0f);
  const MlpSpec shared{.hidden = c.get<int>("shared_intermediate_size"), .act = c.act()};
  FfnSpec ffn = shared;
  if (const int experts = c.get_or("num_local_experts", 0); experts > 0)
    ffn = MoeSpec{.experts = experts,
                  .top_k = c.get<int>("num_experts_per_tok"),
                  .hidden = c.get<int>("intermediate_size"),
                  .router = {.order = RouterOrder::top_k_then_score},
                  .act = c.act(),
                  .shared = shared};
  const bool rotates = c.get_or<std::string>("position_embedding_type", "") == "rope";
  for (int i = 0; i < c.layers(); ++i) {
    LayerSpec layer{.ffn = ffn, .residual_scale = c.get_or("residual_multiplier", 1.0f)};
    if (const std::string type = c.layer_type(i); type == "attention" || type == "full_attention") {
      AttentionSpec attn = attention(c, i);
      attn.scale = c.get_or("attention_multiplier", 1.0f);
      if (!rotates) attn.rope.reset();
      layer.mixer = attn;
    } else {
      layer.mixer = mamba2(c);
    }
    m.layers.push_back(layer);
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const bool moe = std::holds_alternative<MoeSpec>(m.layers.front().ffn);
  const std::string shared = moe ? "{layer}.ffn.shared." : "{layer}.ffn.";
  return hf_decoder_names()
      .append(hf_ssd_names({"{layer}.mamba"}))
      .rename("{layer}.block_sparse_moe.router.layer", "{layer}.ffn.router")
      .split("{layer}.block_sparse_moe.input_linear", {"{layer}.ffn.experts.gate", "{layer}.ffn.experts.up"})
      .rename("{layer}.block_sparse_moe.output_linear", "{layer}.ffn.experts.down")
      .split("{layer}.shared_mlp.input_linear", {shared + "gate", shared + "up"})
      .rename("{layer}.shared_mlp.output_linear", shared + "down");
}

static const Family granite_hybrid{
    "granite_hybrid",
    {.architectures = {"GraniteMoeHybridForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"mamba_chunk_size", "mamba_d_head", "output_router_logits", "router_aux_loss_coef",
                "normalization_function", "init_method", "intermediate_size", "num_experts_per_tok"}}};

}  // namespace ttt::models

// Qwen 3 Next and 3.5: gated delta nets in most layers, gated attention in the others; norms multiply by 1 +
// w. Next has experts with a gated shared one.
#include <algorithm>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  const GatedDeltaNetSpec delta{.heads = c.get<int>("linear_num_value_heads"),
                                .key_heads = c.get<int>("linear_num_key_heads"),
                                .key_dim = c.get<int>("linear_key_head_dim"),
                                .value_dim = c.get<int>("linear_value_head_dim"),
                                .conv_kernel = c.get_or("linear_conv_kernel_dim", 4),
                                .act = c.act(),
                                .norm_eps = m.norm.eps};
  std::optional<MoeSpec> moe;
  if (const int experts = c.get_or("num_experts", 0); experts > 0)
    moe = MoeSpec{.experts = experts,
                  .top_k = c.get<int>("num_experts_per_tok"),
                  .hidden = c.get<int>("moe_intermediate_size"),
                  .router = {.renormalize = c.get_or("norm_topk_prob", true)},
                  .act = c.act(),
                  .shared = MlpSpec{.hidden = c.get<int>("shared_expert_intermediate_size"), .act = c.act()},
                  .shared_gate = true};
  const auto dense = c.get_or("mlp_only_layers", std::vector<int>{});
  const int step = c.get_or("decoder_sparse_step", 1), interval = c.get_or("full_attention_interval", 4);
  for (int i = 0; i < c.layers(); ++i) {
    LayerSpec layer;
    if (moe && std::ranges::count(dense, i) == 0 && (i + 1) % step == 0) {
      layer.ffn = *moe;
    } else {
      layer.ffn = mlp(c);
    }
    const std::string type = c.layer_type(i);
    if (type.empty() ? (i + 1) % interval != 0 : type == "linear_attention") {
      layer.mixer = delta;
    } else {
      AttentionSpec attn = attention(c, i);
      attn.qk_norm = QkNorm::per_head;
      attn.qk_norm_spec.eps = m.norm.eps;
      attn.gate = AttentionGateSpec{};
      layer.mixer = attn;
    }
    m.layers.push_back(layer);
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  SplitLayout by_head{}, by_key_head{};
  for (const LayerSpec& layer : m.layers) {
    if (const auto* attn = std::get_if<AttentionSpec>(&layer.mixer)) by_head.groups = attn->heads;
    if (const auto* delta = std::get_if<GatedDeltaNetSpec>(&layer.mixer))
      by_key_head.groups = delta->key_heads;
  }
  const std::string q = "{layer}.attn.q", k = "{layer}.attn.k", v = "{layer}.attn.v", z = "{layer}.attn.z",
                    a = "{layer}.attn.a", b = "{layer}.attn.b";
  return hf_decoder_names()
      .strip("language_model.")
      .append(hf_moe_names())
      .split("{layer}.self_attn.q_proj", {q, "{layer}.attn.gate"}, by_head)
      .split("{layer}.linear_attn.in_proj_qkvz", {q, k, v, z}, by_key_head)
      .split("{layer}.linear_attn.in_proj_ba", {b, a}, by_key_head)
      .split("{layer}.linear_attn.in_proj_qkv", {q, k, v})
      .rename("{layer}.linear_attn.in_proj_z", z)
      .rename("{layer}.linear_attn.in_proj_b", b)
      .rename("{layer}.linear_attn.in_proj_a", a)
      .rename("{layer}.linear_attn.conv1d", "{layer}.attn.conv")
      .rename("{layer}.linear_attn.dt_bias", "{layer}.attn.dt_bias")
      .rename("{layer}.linear_attn.A_log", "{layer}.attn.rate")
      .rename("{layer}.linear_attn.norm", "{layer}.attn.norm")
      .rename("{layer}.linear_attn.out_proj", "{layer}.attn.o")
      .apply("*.attn.rate", unary(UnaryOp::exp))
      .apply("*_norm", add(1))
      .apply("norm", add(1))
      .ignore("mtp.*")
      .ignore("visual.*");
}

static const Family qwen3_next{
    "qwen3_next",
    {.architectures = {"Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"},
     .describe = describe,
     .weights = weights,
     .ignore = {"output_router_logits", "router_aux_loss_coef", "*mrope_section", "*mrope_interleaved",
                "intermediate_size", "mamba_ssm_dtype", "mtp_*"}}};

}  // namespace ttt::models

// Qwen 3 Next and 3.5: gated delta nets in most layers, gated attention in the others; norms multiply by 1 +
// w. Next has experts with a gated shared one.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  const int interval = c.get_or("full_attention_interval", 4);
  std::optional<MoeSpec> moe;
  if (c.get_or("num_experts", 0) > 0) {
    moe = softmax_moe(c, true);
    moe->shared_gate = true;
  }
  for (int i = 0; i < c.layers(); ++i) {
    LayerSpec layer{.ffn = moe ? feed_forward(c, i, *moe) : mlp(c)};
    const std::string type = c.layer_type(i);
    if (type.empty() ? (i + 1) % interval != 0 : type == "linear_attention") {
      layer.mixer = gated_delta_net(c);
    } else {
      AttentionSpec attn = attention(c, i, QkNorm::per_head);
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
      .append(hf_fused_delta_net_names())
      .apply("*_norm", add(1))
      .apply("norm", add(1))
      .ignore("mtp.*")
      .ignore("visual.*");
}

static const Family qwen3_next(
    "qwen3_next", {"Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"}, describe,
    weights, {"*mrope_section", "*mrope_interleaved", "intermediate_size", "mamba_ssm_dtype"});

}  // namespace ttt::models

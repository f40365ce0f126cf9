// Granite MoE: Granite whose experts are chosen before their scores are normalised, with or without shared
// ones; SWA adds windows, sinks and a rotation per layer.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.embed_scale = c.get_or("embedding_multiplier", 1.0f);
  m.logit_scale = 1 / c.get_or("logits_scaling", 1.0f);
  MoeSpec moe = softmax_moe(c);
  moe.router = {.order = RouterOrder::top_k_then_score};
  if (const int shared = c.get_or("shared_intermediate_size", 0); shared > 0)
    moe.shared = MlpSpec{.hidden = shared, .act = c.act()};
  const auto thetas = c.get_or("layer_rope_theta", std::vector<float>{});
  const bool sinks = c.architecture() == "GraniteMoeSWAForCausalLM";
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.scale = c.get_or("attention_multiplier", 1.0f);
    attn.sinks = sinks;
    if (!thetas.empty()) attn.rope->theta = thetas.at(static_cast<std::size_t>(i));
    if (attn.rope && attn.rope->theta == 0) attn.rope.reset();
    m.layers.push_back({.mixer = attn, .ffn = moe, .residual_scale = c.get_or("residual_multiplier", 1.0f)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.block_sparse_moe.router.layer", "{layer}.ffn.router")
      .rename("{layer}.block_sparse_moe.router", "{layer}.ffn.router")
      .split_gate_up("{layer}.block_sparse_moe.input_linear", "{layer}.ffn.experts")
      .split_gate_up("{layer}.block_sparse_moe.experts.gate_up_proj", "{layer}.ffn.experts")
      .rename("{layer}.block_sparse_moe.output_linear", "{layer}.ffn.experts.down")
      .rename("{layer}.block_sparse_moe.experts.down_proj", "{layer}.ffn.experts.down")
      .split_gate_up("{layer}.shared_mlp.input_linear", "{layer}.ffn.shared")
      .rename("{layer}.shared_mlp.output_linear", "{layer}.ffn.shared.down");
}

static const Family granite_moe("granite_moe",
                                {"GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM",
                                 "GraniteMoeSWAForCausalLM"},
                                describe, weights);

}  // namespace ttt::models

// Granite 4: Granite's multipliers over Mamba 2 layers with some attention between them; experts beside a
// shared MLP.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.embed_scale = c.get_or("embedding_multiplier", 1.0f);
  m.logit_scale = 1 / c.get_or("logits_scaling", 1.0f);
  const MlpSpec shared{.hidden = c.get<int>("shared_intermediate_size"), .act = c.act()};
  FfnSpec ffn = shared;
  if (c.get_or("num_local_experts", 0) > 0) {
    MoeSpec moe = softmax_moe(c);
    moe.router = {.order = RouterOrder::top_k_then_score};
    moe.shared = shared;
    ffn = moe;
  }
  const bool rotates = c.get_or<std::string>("position_embedding_type", "") == "rope";
  for (int i = 0; i < c.layers(); ++i) {
    LayerSpec layer{.ffn = ffn, .residual_scale = c.get_or("residual_multiplier", 1.0f)};
    if (const std::string type = c.layer_type(i); type == "attention" || type == "full_attention") {
      AttentionSpec attn = attention(c, i);
      attn.scale = c.get_or("attention_multiplier", 1.0f);
      if (!rotates) attn.rope.reset();
      layer.mixer = attn;
    } else {
      layer.mixer = ssd(c);
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
      .split_gate_up("{layer}.block_sparse_moe.input_linear", "{layer}.ffn.experts")
      .rename("{layer}.block_sparse_moe.output_linear", "{layer}.ffn.experts.down")
      .split("{layer}.shared_mlp.input_linear", {shared + "gate", shared + "up"})
      .rename("{layer}.shared_mlp.output_linear", shared + "down");
}

static const Family granite_hybrid("granite_hybrid", {"GraniteMoeHybridForCausalLM"}, describe, weights,
                                   {"mamba_chunk_size", "normalization_function", "intermediate_size",
                                    "num_experts_per_tok", "num_attention_heads", "num_key_value_heads",
                                    "rope_parameters", "attention_bias", "attention_multiplier",
                                    "mamba_expand"});

}  // namespace ttt::models

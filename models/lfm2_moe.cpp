// LFM2 MoE: LFM2 with experts by sigmoid with a correction bias after some dense layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c, true);
  MoeSpec moe = softmax_moe(c, true);
  moe.router = {.score = RouterScore::sigmoid,
                .renormalize = moe.router.renormalize,
                .renormalize_eps = 1e-6f,
                .scale = c.get_or("routed_scaling_factor", 1.0f),
                .correction_bias = c.get_or("use_expert_bias", true)};
  const ShortConvSpec conv{.kernel = c.get<int>("conv_L_cache"), .bias = c.get_or("conv_bias", false)};
  for (int i = 0; i < c.layers(); ++i) {
    const bool attends = c.layer_type(i) != "conv";
    m.layers.push_back({.mixer = attends ? MixerSpec{attention(c, i, QkNorm::per_head)} : conv,
                        .ffn = feed_forward(c, i, moe)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  const std::initializer_list<std::pair<std::string_view, std::string_view>> matrices{
      {"w1", "gate"}, {"w3", "up"}, {"w2", "down"}};
  return hf_decoder_names()
      .rename("embedding_norm", "norm")
      .rename("{layer}.", "{layer}.", {{"operator_norm", "attn_norm"}, {"ffn_norm", "ffn_norm"}})
      .split("{layer}.conv.in_proj", {"{layer}.attn.b", "{layer}.attn.c", "{layer}.attn.x"})
      .rename("{layer}.conv.", "{layer}.attn.", {{"conv", "conv"}, {"out_proj", "o"}})
      .rename("{layer}.self_attn.", "{layer}.attn.",
              {{"q_layernorm", "q_norm"}, {"k_layernorm", "k_norm"}, {"out_proj", "o"}})
      .rename("{layer}.feed_forward.", "{layer}.ffn.", matrices)
      .rename("{layer}.feed_forward.experts.{e}.", "{layer}.ffn.experts.", matrices)
      .rename("{layer}.feed_forward.", "{layer}.ffn.",
              {{"gate", "router"}, {"expert_bias", "router.correction_bias"}});
}

static const Family lfm2_moe("lfm2_moe", {"Lfm2MoeForCausalLM"}, describe, weights);

}  // namespace ttt::models

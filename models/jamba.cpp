// Jamba: Mamba layers with some attention without rotation between them; every other MLP is a mixture of
// experts.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const SelectiveSsmSpec mamba{.inner = c.get_or("mamba_expand", 2) * m.dim,
                               .state = c.get_or("mamba_d_state", 16),
                               .dt_rank = c.get<int>("mamba_dt_rank"),
                               .conv_kernel = c.get_or("mamba_d_conv", 4),
                               .bias = c.get_or("mamba_proj_bias", false),
                               .conv_bias = c.get_or("mamba_conv_bias", true),
                               .act = c.act(),
                               .ssm_norm = NormSpec{.eps = c.norm_eps()}};
  const auto every = [&](int i, const char* period, const char* offset) {
    return i % c.get<int>(period) == c.get<int>(offset);
  };
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.rope.reset();
    m.layers.push_back(
        {.mixer = every(i, "attn_layer_period", "attn_layer_offset") ? MixerSpec{attn} : mamba,
         .ffn = every(i, "expert_layer_period", "expert_layer_offset") ? FfnSpec{softmax_moe(c)} : mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .append(hf_selective_ssm_names("{layer}.mamba"))
      .rename("{layer}.mamba.", "{layer}.attn.",
              {{"dt_layernorm", "dt_norm"}, {"b_layernorm", "b_norm"}, {"c_layernorm", "c_norm"}})
      .rename("{layer}.pre_ff_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.feed_forward.router", "{layer}.ffn.router")
      .rename("{layer}.feed_forward.", "{layer}.ffn.",
              {{"gate_proj", "gate"}, {"up_proj", "up"}, {"down_proj", "down"}})
      .rename("{layer}.feed_forward.experts.{e}.", "{layer}.ffn.experts.",
              {{"gate_proj", "gate"}, {"up_proj", "up"}, {"down_proj", "down"}})
      .rename("final_layernorm", "norm");
}

static const Family jamba("jamba", {"JambaForCausalLM"}, describe, weights,
                          {"use_mambapy", "layers_block_type", "layer_types"});

}  // namespace ttt::models

// Mamba: every layer is one selective state space, no attention and no MLP. Falcon Mamba normalises dt, b and
// c.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = 1 << 20,  // the state has one size at every length
              .norm = {.eps = c.norm_eps()},
              .tied_embeddings = c.get_or("tie_word_embeddings", true)};
  SelectiveSsmSpec mamba{.inner = c.get_or("intermediate_size", c.get_or("expand", 2) * m.dim),
                         .state = c.get_or("state_size", 16),
                         .dt_rank = c.get_or("time_step_rank", (m.dim + 15) / 16),
                         .conv_kernel = c.get_or("conv_kernel", 4),
                         .bias = c.get_or("use_bias", false),
                         .conv_bias = c.get_or("use_conv_bias", true),
                         .act = c.act()};
  if (const auto eps = c.find<float>("mixer_rms_eps"))
    mamba.ssm_norm = NormSpec{.eps = *eps, .weight = false};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = mamba, .ffn = Absent{}});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_selective_ssm_names("{layer}.mixer")
      .strip("backbone.")
      .rename("embedding", "embed")
      .rename("embeddings", "embed")
      .rename("{layer}.norm", "{layer}.attn_norm")
      .rename("norm_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names()
      .split("{layer}.ssm_in", {"{layer}.attn.x", "{layer}.attn.z"})
      .rename("{layer}.ssm_conv1d", "{layer}.attn.conv")
      .split("{layer}.ssm_x", {"{layer}.attn.dt_in", "{layer}.attn.b", "{layer}.attn.c"})
      .rename("{layer}.ssm_dt", "{layer}.attn.dt")
      .rename("{layer}.ssm_a", "{layer}.attn.a")  // -exp(A_log) already
      .rename("{layer}.ssm_d", "{layer}.attn.d")
      .rename("{layer}.ssm_out", "{layer}.attn.o");
}

static const Family mamba{
    "mamba",
    {.architectures = {"MambaForCausalLM", "FalconMambaForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "mamba",
               .config = {{"conv_kernel", "{arch}.ssm.conv_kernel"},
                          {"intermediate_size", "{arch}.ssm.inner_size"},
                          {"state_size", "{arch}.ssm.state_size"},
                          {"time_step_rank", "{arch}.ssm.time_step_rank"}},
               .constants = R"({"model_type": "mamba"})",
               .weights = gguf}},
     .ignore = {"expand", "rescale_prenorm_residual", "time_step_*", "use_mambapy", "use_falcon_mambapy",
                "use_bcdt_rms", "fused_add_norm", "d_inner", "ssm_cfg", "rms_norm", "layer_types"}}};

}  // namespace ttt::models

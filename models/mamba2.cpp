// Mamba 2: every layer is one state space with a step per head.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = 1 << 20,  // the state has one size at every length
              .norm = {.eps = c.norm_eps()},
              .tied_embeddings = c.get_or("tie_word_embeddings", false)};
  SsdSpec mamba{.heads = c.get<int>("num_heads"),
                .head_dim = c.get<int>("head_dim"),
                .state = c.get<int>("state_size"),
                .groups = c.get<int>("n_groups"),
                .conv_kernel = c.get_or("conv_kernel", 4),
                .bias = c.get_or("use_bias", false),
                .conv_bias = c.get_or("use_conv_bias", true),
                .act = c.act(),
                .norm_eps = m.norm.eps};
  if (const auto limit = c.find<std::vector<float>>("time_step_limit"); limit && limit->size() == 2) {
    if ((*limit)[0] > 0) mamba.dt_min = (*limit)[0];
    if (std::isfinite((*limit)[1])) mamba.dt_max = (*limit)[1];
  }
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = mamba, .ffn = Absent{}});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return WeightMap()
      .strip("backbone.")
      .rename("embeddings", "embed")
      .rename("embedding", "embed")
      .rename("{layer}.norm", "{layer}.attn_norm")
      .append(hf_ssd_names({"{layer}.mixer"}))
      .rename("norm_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static const Family mamba2{"mamba2",
                           {.architectures = {"Mamba2ForCausalLM"},
                            .describe = describe,
                            .weights = weights,
                            .ignore = {"chunk_size", "expand", "residual_in_fp32", "rescale_prenorm_residual",
                                       "rms_norm", "time_step_*", "layer_types"}}};

}  // namespace ttt::models

// Mamba 2: every layer is one state space with a step per head.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = 1 << 20,  // the state has one size at every length
              .norm = {.eps = c.norm_eps()},
              .tied_embeddings = c.get_or("tie_word_embeddings", false)};
  SsdSpec mamba = ssd(c);
  mamba.head_dim = c.get<int>("head_dim");
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

static const Family mamba2("mamba2", {"Mamba2ForCausalLM"}, describe, weights,
                           {"chunk_size", "expand", "rescale_prenorm_residual", "rms_norm", "time_step_*",
                            "layer_types"});

}  // namespace ttt::models

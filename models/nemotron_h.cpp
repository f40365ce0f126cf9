// Nemotron H: every layer is one thing: a Mamba 2 mixer, attention without rotation, an MLP or experts with
// relu2.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static Mamba2Spec mamba2(const HfConfig& c) {
  Mamba2Spec s{.heads = c.get<int>("mamba_num_heads"),
               .head_dim = c.get<int>("mamba_head_dim"),
               .state = c.get<int>("ssm_state_size"),
               .groups = c.get<int>("n_groups"),
               .conv_kernel = c.get_or("conv_kernel", 4),
               .bias = c.get_or("use_bias", c.get_or("mamba_proj_bias", false)),
               .conv_bias = c.get_or("use_conv_bias", true),
               .act = HfConfig::act(c.get_or<std::string>("mamba_hidden_act", "silu")),
               .norm_eps = c.norm_eps()};
  if (const auto limit = c.find<std::vector<float>>("time_step_limit"); limit && limit->size() == 2) {
    if ((*limit)[0] > 0) s.dt_min = (*limit)[0];
    if (std::isfinite((*limit)[1])) s.dt_max = (*limit)[1];
  }
  return s;
}

static MoeSpec moe(const HfConfig& c, const MlpSpec& mlp) {
  MlpSpec shared = mlp;
  shared.hidden = c.get<int>("moe_shared_expert_intermediate_size");
  return {.experts = c.get<int>("n_routed_experts"),
          .top_k = c.get<int>("num_experts_per_tok"),
          .hidden = c.get<int>("moe_intermediate_size"),
          .router = {.score = RouterScore::sigmoid,
                     .renormalize = c.get_or("norm_topk_prob", true),
                     .renormalize_eps = 1e-20f,
                     .scale = c.get_or("routed_scaling_factor", 1.0f),
                     .correction_bias = true,
                     .groups = c.get_or("n_group", 1),
                     .top_groups = c.get_or("topk_group", 1)},
          .act = mlp.act,
          .gated = false,
          .shared = shared};
}

// The layers' kinds: words, or in older checkpoints letters: M mamba, * attention, - MLP, E experts.
static std::vector<std::string> kinds(const HfConfig& c) {
  if (const auto words = c.find<std::vector<std::string>>("layers_block_type")) return *words;
  std::vector<std::string> words;
  for (const char letter : c.get<std::string>("hybrid_override_pattern"))
    words.emplace_back(letter == '*' ? "attention" : letter == '-' ? "mlp" : letter == 'E' ? "moe" : "mamba");
  return words;
}

static ModelSpec describe(const HfConfig& c) {
  if (c.find<int>("moe_latent_size")) c.require("moe_latent_size", 0);
  ModelSpec m = decoder(c);
  const MlpSpec mlp{.hidden = c.get<int>("intermediate_size"),
                    .act = c.act(),
                    .gated = false,
                    .bias = c.get_or("mlp_bias", false)};
  for (const std::string& kind : kinds(c)) {
    LayerSpec layer{.mixer = Absent{}, .ffn = Absent{}};
    if (kind == "moe") {
      layer.ffn = moe(c, mlp);
    } else if (kind == "mlp") {
      layer.ffn = mlp;
    } else if (kind == "attention" || kind == "full_attention") {
      const bool bias = c.get_or("attention_bias", false);
      layer.mixer = AttentionSpec{.heads = c.heads(),
                                  .kv_heads = c.kv_heads(),
                                  .head_dim = c.head_dim(),
                                  .qkv_bias = bias,
                                  .out_bias = bias,
                                  .window = c.find<int>("sliding_window")};
    } else {
      layer.mixer = mamba2(c);
    }
    m.layers.push_back(layer);
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map;
  map.strip("backbone.")
      .strip("model.")
      .rename("embeddings", "embed")
      .rename("norm_f", "norm")
      .rename("lm_head", "lm_head");
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    const bool mixes = !std::holds_alternative<Absent>(m.layers[i].mixer);
    const std::string layer = "layers." + std::to_string(i);
    map.rename(layer + ".norm", layer + (mixes ? ".attn_norm" : ".ffn_norm"));
  }
  for (const std::string part : {"q", "k", "v", "o"})
    map.rename("{layer}.mixer." + part + "_proj", "{layer}.attn." + part);
  for (const std::string part : {"up", "down"}) {
    map.rename("{layer}.mixer." + part + "_proj", "{layer}.ffn." + part)
        .stack("{layer}.mixer.experts.{e}." + part + "_proj", "{layer}.ffn.experts." + part)
        .rename("{layer}.mixer.shared_experts." + part + "_proj", "{layer}.ffn.shared." + part);
  }
  return map.rename("{layer}.mixer.gate", "{layer}.ffn.router")
      .rename("{layer}.mixer.gate.e_score_correction_bias", "{layer}.ffn.router.correction_bias")
      .split("{layer}.mixer.in_proj",
             {"{layer}.attn.z", "{layer}.attn.x", "{layer}.attn.b", "{layer}.attn.c", "{layer}.attn.dt"})
      .rename("{layer}.mixer.conv1d", "{layer}.attn.conv")
      .rename("{layer}.mixer.dt_bias", "{layer}.attn.dt_bias")
      .rename("{layer}.mixer.A_log", "{layer}.attn.a")
      .rename("{layer}.mixer.D", "{layer}.attn.d")
      .rename("{layer}.mixer.norm", "{layer}.attn.norm")
      .rename("{layer}.mixer.out_proj", "{layer}.attn.o")
      .apply("*.attn.a", unary(UnaryOp::exp))
      .apply("*.attn.a", multiply(-1))
      .ignore("mtp.*");
}

static const Family nemotron_h{
    "nemotron_h",
    {.architectures = {"NemotronHForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"chunk_size", "expand", "time_step_*", "mamba_ssm_cache_dtype", "moe_shared_expert_overlap",
                "mtp_*", "num_logits_to_keep", "num_nextn_predict_layers", "output_router_logits",
                "rescale_prenorm_residual", "residual_in_fp32", "use_mamba_kernels", "hidden_dropout",
                "num_hidden_layers", "mamba_proj_bias"}}};

}  // namespace ttt::models

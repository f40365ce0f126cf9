// Nemotron H: every layer is one thing: Mamba 2, attention without rotation, an MLP or experts with relu2.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static SsdSpec mamba2(const HfConfig& c) {
  SsdSpec s = ssd(c);
  s.bias = c.get_or("use_bias", c.get_or("mamba_proj_bias", false));
  s.act = HfConfig::act(c.get_or<std::string>("mamba_hidden_act", "silu"));
  // The reference bounds the step in prompts only; here always.
  s.dt_min = c.get_or("time_step_min", 0.001f), s.dt_max.reset();
  return s;
}

static MoeSpec moe(const HfConfig& c) {
  MoeSpec moe = grouped_moe(c);
  moe.gated = false;
  moe.shared =
      MlpSpec{.hidden = c.get<int>("moe_shared_expert_intermediate_size"), .act = moe.act, .gated = false};
  return moe;
}

// Words, or in older checkpoints letters.
static std::vector<std::string> kinds(const HfConfig& c) {
  if (const auto words = c.find<std::vector<std::string>>("layers_block_type")) return *words;
  std::vector<std::string> words;
  for (const char letter : c.get<std::string>("hybrid_override_pattern"))
    words.emplace_back(letter == '*' ? "attention" : letter == '-' ? "mlp" : letter == 'E' ? "moe" : "mamba");
  return words;
}

static ModelSpec describe(const HfConfig& c) {
  c.require("moe_latent_size", 0);
  ModelSpec m = decoder(c);
  MlpSpec dense = mlp(c);
  dense.gated = false;
  for (const std::string& kind : kinds(c)) {
    LayerSpec layer{.mixer = Absent{}, .ffn = Absent{}};
    if (kind == "moe") {
      layer.ffn = moe(c);
    } else if (kind == "mlp") {
      layer.ffn = dense;
    } else if (kind == "attention" || kind == "full_attention") {
      AttentionSpec attn = attention(c);
      attn.rope.reset();
      layer.mixer = attn;
    } else {
      layer.mixer = mamba2(c);
    }
    m.layers.push_back(layer);
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map;
  map.strip("backbone.").strip("model.").append(hf_ssd_names({"{layer}.mixer"})).ignore("mtp.*");
  map.rename("embeddings", "embed").rename("norm_f", "norm").rename("lm_head", "lm_head");
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    const std::string layer = "layers." + std::to_string(i);
    map.rename(layer + ".norm",
               layer + (std::holds_alternative<Absent>(m.layers[i].mixer) ? ".ffn_norm" : ".attn_norm"));
  }
  const std::string from = "{layer}.mixer.", ffn = "{layer}.ffn.";
  for (const std::string part : {"q", "k", "v", "o"})
    map.rename(from + part + "_proj", "{layer}.attn." + part);
  for (const std::string part : {"up", "down"}) {
    map.rename(from + part + "_proj", ffn + part)
        .stack(from + "experts.{e}." + part + "_proj", ffn + "experts." + part)
        .rename(from + "shared_experts." + part + "_proj", ffn + "shared." + part);
  }
  return map.rename(from + "gate", ffn + "router")
      .rename(from + "gate.e_score_correction_bias", ffn + "router.correction_bias");
}

static const Family nemotron_h("nemotron_h", {"NemotronHForCausalLM"}, describe, weights,
                               {"chunk_size", "expand", "mamba_proj_bias", "mamba_ssm_cache_dtype",
                                "num_*_layers", "moe_shared_expert_overlap", "res*_residual", "time_step_*"});

}  // namespace ttt::models

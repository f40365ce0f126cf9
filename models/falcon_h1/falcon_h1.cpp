// Falcon H1: attention and a Mamba 2 mixer side by side on the same input. Its many multipliers stand on
// linear maps, so the weights take them.
#include <cmath>
#include <sstream>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"

namespace ttt::models {

// y = attention(x) + mamba(x)
class SideBySide final : public Mixer {
 public:
  SideBySide(std::unique_ptr<Mixer> attention, std::unique_ptr<Mixer> mamba)
      : attention_(std::move(attention)), mamba_(std::move(mamba)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    return ops::add(attention_->forward(x, step), mamba_->forward(x, step));
  }
  void print(PlanRows& rows) const override { attention_->print(rows), mamba_->print(rows); }

 private:
  std::unique_ptr<Mixer> attention_, mamba_;
};

static SsdSpec mamba2(const HfConfig& c) {
  const bool norm = c.get_or("mamba_rms_norm", false), before = c.get_or("mamba_norm_before_gate", true);
  SsdSpec s{.heads = c.get<int>("mamba_n_heads"),
            .state = c.get<int>("mamba_d_state"),
            .groups = c.get_or("mamba_n_groups", 1),
            .conv_kernel = c.get_or("mamba_d_conv", 4),
            .conv_bias = c.get_or("mamba_conv_bias", true),
            .act = c.act(),
            .norm = !norm    ? SsmNorm::none
                    : before ? SsmNorm::before_gate
                             : SsmNorm::after_gate,
            .norm_eps = c.norm_eps()};
  s.head_dim = c.get_or("mamba_d_ssm", c.get_or("mamba_expand", 2) * c.get<int>("hidden_size")) / s.heads;
  if (const auto limit = c.find<std::vector<float>>("time_step_limit"); limit && limit->size() == 2) {
    if ((*limit)[0] > 0) s.dt_min = (*limit)[0];
    if (std::isfinite((*limit)[1])) s.dt_max = (*limit)[1];
  }
  return s;
}

// What the module is built from, and what multiplies the weights of a layer's slots.
static std::string parameters(const HfConfig& c, const MixerSpec& attention, const MixerSpec& mamba) {
  const auto ssm = c.get_or("ssm_multipliers", std::vector<float>(5, 1)),
             mlp = c.get_or("mlp_multipliers", std::vector<float>(2, 1));
  if (ssm.size() != 5 || mlp.size() != 2)
    throw Error("not 5 ssm_multipliers and 2 mlp_multipliers", "config.json", "check the config");
  const float attn_in = c.get_or("attention_in_multiplier", 1.0f),
              ssm_in = c.get_or("ssm_in_multiplier", 1.0f);
  std::ostringstream json;
  json.precision(9);
  json << "{\"attention\": " << to_json(attention) << ", \"mamba\": " << to_json(mamba)
       << ", \"multipliers\": {";
  const char* parts[] = {"z", "x", "b", "c", "dt"};
  for (std::size_t i = 0; i < 5; ++i)
    json << "\"attn.mamba." << parts[i] << "\": " << ssm_in * ssm[i] << ", ";
  json << "\"attn.mamba.o\": " << c.get_or("ssm_out_multiplier", 1.0f)  //
       << ", \"attn.attention.q\": " << attn_in
       << ", \"attn.attention.k\": " << attn_in * c.get_or("key_multiplier", 1.0f)
       << ", \"attn.attention.v\": " << attn_in
       << ", \"attn.attention.o\": " << c.get_or("attention_out_multiplier", 1.0f)
       << ", \"ffn.gate\": " << mlp[0] << ", \"ffn.down\": " << mlp[1] << "}}";
  return json.str();
}

static ModelSpec describe(const HfConfig& c) {
  for (const char* bias : {"attention_bias", "mlp_bias", "mamba_proj_bias", "projectors_bias"})
    c.require(bias, false);
  ModelSpec m = decoder(c);
  m.embed_scale = c.get_or("embedding_multiplier", 1.0f);
  m.logit_scale = c.get_or("lm_head_multiplier", 1.0f);
  for (int i = 0; i < c.layers(); ++i) {
    const MixerSpec mamba = mamba2(c), attn = attention(c, i);
    CustomSpec both{.name = "side_by_side",
                    .parameters = parameters(c, attn, mamba),
                    .weights = weight_slots(attn, m.dim, "attention"),
                    .state = state_slots(mamba, m.dim),
                    .caches = {kv_cache(std::get<AttentionSpec>(attn))}};
    for (WeightSlot& slot : weight_slots(mamba, m.dim, "mamba")) both.weights.push_back(slot);
    m.layers.push_back({.mixer = both, .ffn = mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names();
  map.rename("final_layernorm", "norm")
      .rename("{layer}.pre_ff_layernorm", "{layer}.ffn_norm")
      .append(hf_ssd_names({"{layer}.mamba"}, "{layer}.attn.mamba"));
  for (const std::string part : {"q", "k", "v", "o"})
    map.rename("{layer}.self_attn." + part + "_proj", "{layer}.attn.attention." + part);
  for (const std::string part : {"gate", "up", "down"})
    map.rename("{layer}.feed_forward." + part + "_proj", "{layer}.ffn." + part);
  const HfConfig factors =
      HfConfig::parse(std::get<CustomSpec>(m.layers.front().mixer).parameters).child("multipliers");
  for (const std::string& slot : factors.keys())
    map.apply("{layer}." + slot, multiply(factors.get<float>(slot)));
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["side_by_side"] = [](const BuildContext& c,
                                std::string_view parameters) -> std::unique_ptr<Mixer> {
    const HfConfig p = HfConfig::parse(parameters);
    return std::make_unique<SideBySide>(c.mixer(parse_mixer(p.json("attention")), "attention"),
                                        c.mixer(parse_mixer(p.json("mamba")), "mamba"));
  };
}

static const Family falcon_h1{
    "falcon_h1",
    {.architectures = {"FalconH1ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"mamba_chunk_size", "mamba_d_head", "mamba_use_mlp", "mamba_expand"},
     .modules = modules}};

}  // namespace ttt::models

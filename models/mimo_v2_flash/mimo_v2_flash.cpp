// MiMo V2 Flash: experts in groups; windowed layers have sinks and twice the kv heads; values are narrower
// than keys, and scaled.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"

namespace ttt::models {

// y = scale * attention(x): scaled values, as the output projection has no bias.
class ScaledAttention final : public Mixer {
 public:
  ScaledAttention(std::unique_ptr<Mixer> attention, float scale)
      : attention_(std::move(attention)), scale_(scale) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    return ops::mul(attention_->forward(x, step), scale_);
  }
  void print(PlanRows& rows) const override { attention_->print(rows); }

 private:
  std::unique_ptr<Mixer> attention_;
  float scale_;
};

static AttentionSpec attention_of(const HfConfig& c, int layer) {
  AttentionSpec attn = attention(c, layer);
  attn.v_head_dim = c.get<int>("v_head_dim");
  attn.out_bias = false;
  if (attn.window) {
    attn.kv_heads *= 2;
    attn.sinks = true;
    if (const auto before = c.find<int>("sliding_window_size")) attn.window = *before + 1;
  }
  return attn;
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    const AttentionSpec attn = attention_of(c, i);
    const CustomSpec mixer{.name = "scaled_attention",
                           .parameters = "{\"attention\": " + to_json(MixerSpec{attn}) +
                                         ", \"scale\": " + c.json("attention_value_scale") + "}",
                           .weights = weight_slots(attn, m.dim, "attention"),
                           .caches = {kv_cache(attn)}};
    m.layers.push_back({.mixer = mixer, .ffn = feed_forward(c, i, grouped_moe(c))});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  WeightMap map = hf_decoder_names().append(hf_moe_names());
  for (const std::string part : {"q", "k", "v", "o"})
    map.rename("{layer}.self_attn." + part + "_proj", "{layer}.attn.attention." + part);
  return map.rename("{layer}.self_attn.attention_sink_bias", "{layer}.attn.attention.sinks").ignore("mtp.*");
}

static void modules(CustomModules& m) {
  m.mixers["scaled_attention"] = [](const BuildContext& c, std::string_view parameters) {
    const HfConfig p = HfConfig::parse(parameters);
    return std::make_unique<ScaledAttention>(c.mixer(parse_mixer(p.json("attention")), "attention"),
                                             p.get_or("scale", 1.0f));
  };
}

static const Family mimo_v2_flash{"mimo_v2_flash",
                                  {.architectures = {"MiMoV2FlashForCausalLM"},
                                   .describe = describe,
                                   .weights = weights,
                                   .ignore = {"swa_num_key_value_heads"},
                                   .modules = modules}};

}  // namespace ttt::models

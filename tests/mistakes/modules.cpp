// Modules with mistakes, of which the middle layer of a plain decoder gets one: what debug_test.cpp finds.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/attention.h"
#include "ttt/modules/mlp.h"

namespace ttt::models {

namespace {

// A gated feed-forward that forgets what `mistake` says.
class MistakenMlp final : public FeedForward {
 public:
  MistakenMlp(const BuildContext& c, std::string_view parameters)
      : ungated_(parameters.find("ungated") != std::string_view::npos),
        name_(c.name),
        gate_(c.linear("gate")),
        up_(c.linear("up")),
        down_(c.linear("down")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    Tensor up = up_.forward(x, step.mode), gate = gate_.forward(x, step.mode);
    tap(up, name_, "up");
    tap(gate, name_, "gate");
    const Tensor hidden = ungated_ ? ops::unary(up, {UnaryOp::silu}) : ops::mul(gate, up);
    tap(hidden, name_, "hidden");
    Tensor y = down_.forward(hidden, step.mode);
    tap(y, name_);
    return y;
  }
  void print(PlanRows& rows) const override { ttt::print(up_.plan(), rows); }

 private:
  bool ungated_;
  ModuleName name_;
  Linear gate_, up_, down_;
};

// An attention that normalises what is normalised already.
class TwiceNormed final : public Mixer {
 public:
  TwiceNormed(const BuildContext& c, std::string_view parameters)
      : attention_(c.mixer(parse_mixer(parameters), "")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    return attention_->forward(ops::rms_norm(x, {}), step);
  }
  void print(PlanRows& rows) const override { attention_->print(rows); }

 private:
  std::unique_ptr<Mixer> attention_;
};

template <class Change>
ModelSpec with_middle(const HfConfig& c, Change change) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = mlp(c)});
  change(m, m.layers[m.layers.size() / 2]);
  return m;
}
WeightMap weights(const ModelSpec&) { return hf_decoder_names(); }

void mistaken_mlp(ModelSpec& m, LayerSpec& layer, const char* mistake) {
  layer.ffn = CustomSpec{.name = "mistaken_mlp",
                         .parameters = std::string(R"({"mistake": ")") + mistake + R"("})",
                         .weights = weight_slots(std::get<MlpSpec>(layer.ffn), m.dim, "")};
}

ModelSpec ungated(const HfConfig& c) {
  return with_middle(c, [](ModelSpec& m, LayerSpec& l) { mistaken_mlp(m, l, "ungated"); });
}
ModelSpec inactive(const HfConfig& c) {
  return with_middle(c, [](ModelSpec& m, LayerSpec& l) { mistaken_mlp(m, l, "inactive"); });
}
ModelSpec twice(const HfConfig& c) {
  return with_middle(c, [](ModelSpec& m, LayerSpec& l) {
    const AttentionSpec attn = std::get<AttentionSpec>(l.mixer);
    l.mixer = CustomSpec{.name = "twice_normed",
                         .parameters = to_json(MixerSpec{attn}),
                         .weights = weight_slots(attn, m.dim, ""),
                         .caches = {kv_cache(attn)}};
  });
}

void modules(CustomModules& m) {
  m.mixers["twice_normed"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<TwiceNormed>(c, p);
  };
  m.feed_forwards["mistaken_mlp"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<MistakenMlp>(c, p);
  };
}

ModelEntry entry(const char* architecture, ModelSpec (*describe)(const HfConfig&)) {
  return {.architectures = {architecture},
          .describe = describe,
          .weights = weights,
          .ignore = {"pretraining_tp"},
          .modules = modules};
}
const Family family_ungated{"ungated", entry("UngatedMlp", ungated)};
const Family family_inactive{"inactive", entry("MlpWithoutActivation", inactive)};
const Family family_twice{"twice", entry("AttentionNormedTwice", twice)};

}  // namespace

}  // namespace ttt::models

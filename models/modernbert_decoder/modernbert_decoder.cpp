// ModernBERT decoder: layer norms, none in front of the first attention but one behind the embedding; the
// head has a layer of its own in front.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// h = x + attention(x);  y = h + mlp(norm(h))
class FirstBlock final : public Block {
 public:
  FirstBlock(const BuildContext& c, const HfConfig& p)
      : attention_(c.mixer(parse_mixer(p.json("attention")), "attn")),
        norm_(Norm::from_config({.spec = c.spec.norm,
                                 .weight = c.weight("ffn_norm"),
                                 .bias = c.weight("ffn_norm.bias"),
                                 .name = c.name / "ffn_norm"},
                                c.target, c.home)),
        mlp_(c.ffn(parse_ffn(p.json("mlp")), "ffn")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor h = ops::add(x, attention_->forward(x, step));
    return ops::add(h, mlp_->forward(norm_.forward(h), step));
  }
  void print(PlanRows& rows) const override { attention_->print(rows), mlp_->print(rows); }

 private:
  std::unique_ptr<Mixer> attention_;
  Norm norm_;
  std::unique_ptr<FeedForward> mlp_;
};

// y = act(norm(x) W): what stands between the last layer and the norm of the head.
class HeadBlock final : public Block {
 public:
  HeadBlock(const BuildContext& c, const HfConfig& p)
      : norm_(Norm::from_config({.spec = c.spec.norm,
                                 .weight = c.weight("norm"),
                                 .bias = c.weight("norm.bias"),
                                 .name = c.name / "norm"},
                                c.target, c.home)),
        dense_(Linear::from_config({.weight = c.weight("dense"),
                                    .bias = c.weight("dense.bias"),
                                    .name = c.name / "dense",
                                    .activation = HfConfig::act(p.get<std::string>("act"))},
                                   c.target, c.home)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    return dense_.forward(norm_.forward(x), step.mode);
  }
  void print(PlanRows& rows) const override { ttt::print(dense_.plan(), rows); }

 private:
  Norm norm_;
  Linear dense_;
};

static void add_vector(CustomSpec& s, const std::string& name, std::int64_t n, bool bias) {
  const WeightSlot slot{.name = name, .role = WeightRole::vector, .rows = 1, .cols = n};
  s.weights.push_back(slot);
  if (bias) s.weights.push_back({.name = name + ".bias", .role = slot.role, .rows = 1, .cols = n});
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = c.get_or("norm_bias", false)};
  m.embed_norm = m.norm;
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.lm_head_bias = c.get_or("decoder_bias", true);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = mlp(c)});

  const MixerSpec mixer = m.layers.front().mixer;
  const FfnSpec ffn = m.layers.front().ffn;
  CustomSpec first{.name = "first_block",
                   .parameters = "{\"attention\": " + to_json(mixer) + ", \"mlp\": " + to_json(ffn) + "}",
                   .weights = weight_slots(mixer, m.dim, "attn"),
                   .caches = {kv_cache(std::get<AttentionSpec>(mixer))}};
  add_vector(first, "ffn_norm", m.dim, m.norm.bias);
  for (WeightSlot& slot : weight_slots(ffn, m.dim, "ffn")) first.weights.push_back(slot);
  m.layers.front().block = first;

  CustomSpec head{
      .name = "head_block",
      .parameters = "{\"act\": \"" + c.get_or<std::string>("classifier_activation", "gelu") + "\"}",
      .weights = {{.name = "dense", .rows = m.dim, .cols = m.dim}}};
  if (c.get_or("classifier_bias", false))
    head.weights.push_back({.name = "dense.bias", .role = WeightRole::vector, .rows = 1, .cols = m.dim});
  add_vector(head, "norm", m.dim, m.norm.bias);
  m.layers.push_back({.block = head});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const std::string head = "layers." + std::to_string(m.layers.size() - 1);
  WeightMap map = hf_decoder_names()
                      .rename("embeddings.tok_embeddings", "embed")
                      .rename("embeddings.norm", "embed_norm")
                      .rename("{layer}.attn_norm", "{layer}.attn_norm")
                      .rename("{layer}.attn.Wo", "{layer}.attn.o")
                      .rename("{layer}.mlp_norm", "{layer}.ffn_norm")
                      .split_gate_up("{layer}.mlp.Wi")
                      .rename("{layer}.mlp.Wo", "{layer}.ffn.down")
                      .rename("final_norm", head + ".norm")
                      .rename("lm_head.dense", head + ".dense")
                      .rename("lm_head.norm", "norm")
                      .rename("decoder", "lm_head");
  for (const std::string part : {"q", "k", "v"})
    map.rename("{layer}.attn." + part + "_proj", "{layer}.attn." + part);
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["first_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<FirstBlock>(c, HfConfig::parse(p));
  };
  m.blocks["head_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<HeadBlock>(c, HfConfig::parse(p));
  };
}

static const Family modernbert_decoder{
    "modernbert_decoder",
    {.architectures = {"ModernBertDecoderForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"classifier_*", "cls_token_id", "sep_token_id", "local_attention", "mlp_dropout",
                "initializer_cutoff_factor"},
     .modules = modules}};

}  // namespace ttt::models

// Apertus: normalised heads of q and k; a plain MLP whose activation, xIELU, has learned slopes.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/mlp.h"

namespace ttt::models {

// y = xielu(x W_up) W_down;  xielu(h) = p h^2 + h / 2 for h > 0, else n (expm1(h) - h) + h / 2
// (https://arxiv.org/abs/2411.13010). p and n are one number each.
class XieluMlp final : public FeedForward {
 public:
  explicit XieluMlp(const BuildContext& c)
      : mlp_(Mlp::from_config({.up = c.weight("up"),
                               .down = c.weight("down"),
                               .name = c.name,
                               .act = Activation{UnaryOp::xielu, value(c, "p"), value(c, "n")}},
                              c.target, c.home)) {}
  Tensor forward(const Tensor& x, const Step& step) const override { return mlp_.forward(x, step.mode); }
  void print(PlanRows& rows) const override { ttt::print(mlp_.plan(), rows); }

 private:
  static float value(const BuildContext& c, const char* part) {
    float number = 0;
    c.weight(part).source()->read(0, 1, &number);
    return number;
  }

  Mlp mlp_;
};

static ModelSpec describe(const HfConfig& c) {
  c.require("hidden_act", "xielu");
  ModelSpec m = decoder(c);
  const int hidden = c.get<int>("intermediate_size");
  CustomSpec ffn{.name = "xielu_mlp",
                 .weights = {{.name = "up", .rows = hidden, .cols = m.dim, .shard_axis = 0},
                             {.name = "down", .rows = m.dim, .cols = hidden, .shard_axis = 1}}};
  for (const char* slope : {"p", "n"})
    ffn.weights.push_back({.name = slope, .role = WeightRole::vector, .rows = 1, .cols = 1});
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    m.layers.push_back({.mixer = attn, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.attention_layernorm", "{layer}.attn_norm")
      .rename("{layer}.feedforward_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.mlp.act_fn.alpha_p", "{layer}.ffn.p")
      .rename("{layer}.mlp.act_fn.alpha_n", "{layer}.ffn.n")
      .apply("{layer}.ffn.p", unary(UnaryOp::softplus))
      .apply("{layer}.ffn.n", unary(UnaryOp::softplus))
      .apply("{layer}.ffn.n", add(0.5f))
      .ignore("*.act_fn.beta")  // 0.5 and -1e-6: constants, as the op has them
      .ignore("*.act_fn.eps");
}

static void modules(CustomModules& m) {
  m.feed_forwards["xielu_mlp"] = [](const BuildContext& c, std::string_view) {
    return std::make_unique<XieluMlp>(c);
  };
}

static const Family apertus{
    "apertus",
    {.architectures = {"ApertusForCausalLM"}, .describe = describe, .weights = weights, .modules = modules}};

}  // namespace ttt::models

// Laguna: attention under a softplus gate, with more heads in windowed layers; experts scored by sigmoids of
// soft-capped logits.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/moe.h"

namespace ttt::models {

// Experts chosen by s = sigmoid(cap tanh(x W_r / cap)) + bias, weighted by s.
class SoftcappedMoe final : public FeedForward {
 public:
  SoftcappedMoe(const BuildContext& c, const HfConfig& p)
      : cap_(p.get<float>("cap")),
        spec_(std::get<MoeSpec>(parse_ffn(p.json("moe")))),
        router_(c.linear("router", {}, DataType::f32)),
        bias_(c.vector("router.correction_bias")),
        experts_(Moe::from_config({.spec = spec_,
                                   .router = {.spec = spec_.router,
                                              .experts = spec_.experts,
                                              .top_k = spec_.top_k,
                                              .weight = c.weight("router"),
                                              .name = c.name / "router"},
                                   .gate = c.weight("experts.gate"),
                                   .up = c.weight("experts.up"),
                                   .down = c.weight("experts.down"),
                                   .name = c.name},
                                  c.target, c.home)),
        shared_(c.ffn(*spec_.shared, "shared")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor logits = router_.forward(x, step.mode);
    tap(logits, router_.plan().name);
    const Tensor capped = ops::unary(ops::mul(logits, 1 / cap_), {UnaryOp::tanh});
    const Tensor scores = ops::unary(ops::mul(capped, cap_), {UnaryOp::sigmoid});
    const Tensor chosen = ops::topk(ops::add(scores, bias_.get()), spec_.top_k).indices;
    const Tensor picked = ops::gather(scores, -1, chosen);
    const Tensor weights = ops::mul(ops::div(picked, ops::sum(picked, -1)), spec_.router.scale);
    return ops::add(experts_.experts(x, {weights, chosen}), shared_->forward(x, step));
  }
  void print(PlanRows& rows) const override {
    ttt::print(router_.plan(), rows), ttt::print(experts_.plan(), rows);
  }

 private:
  float cap_;
  MoeSpec spec_;
  Linear router_;
  LazyWeight bias_;
  Moe experts_;
  std::unique_ptr<FeedForward> shared_;
};

static FfnSpec experts(const HfConfig& c, int dim) {
  MoeSpec moe = softmax_moe(c);
  moe.router = {.score = RouterScore::sigmoid,
                .renormalize = true,
                .scale = c.get_or("moe_routed_scaling_factor", 1.0f),
                .correction_bias = true};
  const float cap = c.get_or("moe_router_logit_softcapping", 0.0f);
  if (cap <= 0) return moe;
  return CustomSpec{.name = "softcapped_moe",
                    .parameters = "{\"cap\": " + c.json("moe_router_logit_softcapping") +
                                  ", \"moe\": " + to_json(FfnSpec{moe}) + "}",
                    .weights = weight_slots(moe, dim, "")};
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  c.require("moe_apply_router_weight_on_input", false);
  const auto heads = c.find<std::vector<int>>("num_attention_heads_per_layer");
  const std::string gating = c.has("gating") ? c.json("gating") : "true";
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    if (heads) attn.heads = heads->at(static_cast<std::size_t>(i));
    attn.gate =
        AttentionGateSpec{.per_head = gating == "true" || gating == "\"per-head\"", .act = UnaryOp::softplus};
    m.layers.push_back({.mixer = attn, .ffn = feed_forward(c, i, experts(c, m.dim))});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .rename("{layer}.self_attn.g_proj", "{layer}.attn.gate")
      .rename("{layer}.mlp.experts.e_score_correction_bias", "{layer}.ffn.router.correction_bias");
}

static void modules(CustomModules& m) {
  m.feed_forwards["softcapped_moe"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<SoftcappedMoe>(c, HfConfig::parse(p));
  };
}

static const Family laguna{"laguna",
                           {.architectures = {"LagunaForCausalLM"},
                            .describe = describe,
                            .weights = weights,
                            .ignore = {"rope_parameters.*"},
                            .modules = modules}};

}  // namespace ttt::models

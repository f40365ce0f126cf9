// Phi 3.5 MoE: layer norms, biases, and two experts per token by SparseMixer's rule.
#include <limits>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/moe.h"

namespace ttt::models {

// The two best experts. The first one's weight is the softmax over the scores that are about as large (within
// 2 jitter, relatively); the second one's is that among the scores without the first (Liu et al. 2024,
// https://arxiv.org/abs/2409.12136).
class SparseMixer final : public FeedForward {
 public:
  SparseMixer(const BuildContext& c, const MoeSpec& spec, float jitter)
      : router_(c.linear("router", {}, DataType::f32)),
        experts_(Moe::from_config({.spec = spec,
                                   .router = {.spec = spec.router,
                                              .experts = spec.experts,
                                              .top_k = spec.top_k,
                                              .weight = c.weight("router"),
                                              .name = c.name / "router"},
                                   .gate = c.weight("experts.gate"),
                                   .up = c.weight("experts.up"),
                                   .down = c.weight("experts.down"),
                                   .name = c.name},
                                  c.target, c.home)) {
    const auto number = [&](float value) {
      return from_host(c.home.backend(), std::vector<float>{value}, {1, 1, 1, 1}, DataType::f32);
    };
    near_ = number(2 * jitter);
    nothing_ = number(std::numeric_limits<float>::lowest());
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor scores = router_.forward(x, step.mode);
    tap(scores, router_.plan().name);
    const ops::TopK best = ops::topk(scores, 2);
    const auto part = [](const Tensor& t, std::int64_t i) { return ops::slice(t, -1, i, i + 1); };
    const Tensor first = part(best.indices, 0);
    const Tensor gone = ops::add(ops::mul(part(best.values, 0), 0.0f), std::numeric_limits<float>::lowest());
    const Tensor rest = ops::scatter(scores, -1, first, gone);
    const Tensor weights[] = {weight(scores, scores, part(best.values, 0), first),
                              weight(rest, scores, part(best.values, 1), part(best.indices, 1))};
    return experts_.experts(x, {ops::concat(weights, -1), best.indices});
  }
  void print(PlanRows& rows) const override {
    ttt::print(router_.plan(), rows), ttt::print(experts_.plan(), rows);
  }

 private:
  // softmax over those of `candidates` whose score is near the largest, at `expert`.
  Tensor weight(const Tensor& candidates, const Tensor& scores, const Tensor& largest,
                const Tensor& expert) const {
    const Tensor size = ops::maximum(ops::unary(scores, {UnaryOp::abs}), largest);
    const Tensor far = ops::compare(BinaryOp::gt, ops::div(ops::subtract(largest, scores), size), near_);
    return ops::gather(ops::softmax(ops::where(far, nothing_, candidates)), -1, expert);
  }

  Linear router_;
  Moe experts_;
  Tensor near_, nothing_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.lm_head_bias = c.get_or("lm_head_bias", false);
  c.require("num_experts_per_tok", 2);
  const MoeSpec moe{.experts = c.get<int>("num_local_experts"),
                    .top_k = 2,
                    .hidden = c.get<int>("intermediate_size"),
                    .act = c.act()};
  const CustomSpec ffn{
      .name = "sparse_mixer",
      .parameters = "{\"jitter\": " + std::to_string(c.get_or("router_jitter_noise", 0.01f)) +
                    ", \"moe\": " + to_json(FfnSpec{moe}) + "}",
      .weights = weight_slots(moe, m.dim, "")};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    const HfConfig rope = c.rope_parameters(i);
    if (attn.rope->scaling.kind ==
        RopeScalingKind::longrope) {  // scaled by lengths, and here by a number each
      attn.rope->scaling.attention_factor = rope.get<float>("short_mscale");
      if (rope.get<float>("long_mscale") != rope.get<float>("short_mscale"))
        throw Error("short_mscale and long_mscale differ", c.source(), "only equal ones are known");
    }
    m.layers.push_back({.mixer = attn, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.block_sparse_moe.gate", "{layer}.ffn.router")
      .stack("{layer}.block_sparse_moe.experts.{e}.w1", "{layer}.ffn.experts.gate")
      .stack("{layer}.block_sparse_moe.experts.{e}.w3", "{layer}.ffn.experts.up")
      .stack("{layer}.block_sparse_moe.experts.{e}.w2", "{layer}.ffn.experts.down");
}

static void modules(CustomModules& m) {
  m.feed_forwards["sparse_mixer"] = [](const BuildContext& c, std::string_view p) {
    const HfConfig parameters = HfConfig::parse(p);
    return std::make_unique<SparseMixer>(c, std::get<MoeSpec>(parse_ffn(parameters.json("moe"))),
                                         parameters.get<float>("jitter"));
  };
}

static const Family phimoe{"phimoe",
                           {.architectures = {"PhimoeForCausalLM"},
                            .describe = describe,
                            .weights = weights,
                            .ignore = {"input_jitter_noise"},
                            .modules = modules}};

}  // namespace ttt::models

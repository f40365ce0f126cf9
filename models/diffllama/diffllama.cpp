// DiffLlama: differential attention (Ye et al. 2024): half of the heads are subtracted from the other half,
// and every head sees the values of two.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/paged_attention.h"
#include "ttt/modules/rope.h"

namespace ttt::models {

// c_h = softmax(q_h k_h^T) [v_p, v_(p + n/2)], p = h mod n/2, of n heads;
// y = concat over h < n/2 of ((1 - l) norm(c_h - lambda c_(h + n/2))) W_o,
// lambda = exp(q1 . k1) - exp(q2 . k2) + l;  l = 0.8 - 0.6 exp(-0.3 layer)
class DifferentialAttention final : public Mixer {
 public:
  DifferentialAttention(const BuildContext& c, const AttentionSpec& spec)
      : spec_(spec),
        layer_(c.name.layer),
        initial_(static_cast<float>(0.8 - 0.6 * std::exp(-0.3 * layer_))),
        lambda_(std::exp(product(c, "lambda_q1", "lambda_k1")) -
                std::exp(product(c, "lambda_q2", "lambda_k2")) + initial_),
        q_(c.linear("q")),
        k_(c.linear("k")),
        v_(c.linear("v")),
        o_(c.linear("o")),
        rope_(Rope::from_config({.spec = *spec.rope, .head_dim = spec.head_dim, .name = c.name / "rope"},
                                c.target)),
        norm_(RmsNorm::from_config({.name = c.name / "norm", .eps = c.spec.norm.eps}, c.target, c.home)) {}

  Tensor forward(const Tensor& x, const Step& step) const override {
    const auto heads = [&](const Linear& linear, int n) {
      return ops::nlp_create_qkv_heads(linear.forward(x, step.mode), n, 0, spec_.head_dim).q;
    };
    const Tensor v = heads(v_, spec_.kv_heads);
    const int half = spec_.kv_heads / 2;
    const Tensor halves[] = {ops::slice(v, 1, 0, half), ops::slice(v, 1, half, spec_.kv_heads)};
    const Tensor context =
        attend(rope_.forward(heads(q_, spec_.heads), step), rope_.forward(heads(k_, spec_.kv_heads), step),
               ops::repeat(ops::concat(halves, 3), 1, 2), step.state->cache(layer_), step, {});
    const Tensor by_head = context.reshape({1, step.tokens, spec_.heads, 2 * spec_.head_dim});
    const Tensor difference = ops::subtract(ops::slice(by_head, 2, 0, spec_.heads / 2),
                                            ops::slice(by_head, 2, spec_.heads / 2, spec_.heads),
                                            {.rhs_activation = {UnaryOp::mul_scalar, lambda_}});
    const Tensor y = ops::mul(norm_.forward(difference), 1 - initial_);
    return o_.forward(y.reshape({1, 1, step.tokens, spec_.heads * spec_.head_dim}), step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&q_, &k_, &v_, &o_}) ttt::print(part->plan(), rows);
  }

 private:
  static float product(const BuildContext& c, const char* a, const char* b) {
    const WeightSourcePtr left = c.weight(a).source(), right = c.weight(b).source();
    std::vector<float> x(static_cast<std::size_t>(left->cols())), y(x.size());
    left->read(0, 1, x.data()), right->read(0, 1, y.data());
    float sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
    return sum;
  }

  AttentionSpec spec_;
  int layer_;
  float initial_, lambda_;
  Linear q_, k_, v_, o_;
  Rope rope_;
  RmsNorm norm_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    const AttentionSpec attn = attention(c, i);
    if (attn.heads % 2 != 0 || attn.kv_heads % 2 != 0)
      throw Error(std::to_string(attn.heads) + " heads, " + std::to_string(attn.kv_heads) + " kv heads",
                  c.source(), "differential attention takes them in pairs");
    KvCacheSpec cache = kv_cache(attn);
    cache.v_head_dim = 2 * attn.head_dim;
    CustomSpec mixer{.name = "differential_attention",
                     .parameters = to_json(MixerSpec{attn}),
                     .weights = weight_slots(attn, m.dim, ""),
                     .caches = {cache}};
    for (const char* name : {"lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"})
      mixer.weights.push_back({.name = name, .role = WeightRole::vector, .rows = 1, .cols = attn.head_dim});
    m.layers.push_back({.mixer = mixer, .ffn = mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  WeightMap map = hf_decoder_names();
  for (const std::string name : {"lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"})
    map.rename("{layer}.self_attn." + name, "{layer}.attn." + name);
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["differential_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<DifferentialAttention>(c, std::get<AttentionSpec>(parse_mixer(p)));
  };
}

static const Family diffllama{"diffllama",
                              {.architectures = {"DiffLlamaForCausalLM"},
                               .describe = describe,
                               .weights = weights,
                               .ignore = {"lambda_std_dev"},
                               .modules = modules}};

}  // namespace ttt::models

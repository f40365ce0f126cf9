// JetMoE: experts in place of both the MLP and the query and output projections (Shen et al. 2024); keys and
// values are the same for all of them.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/moe.h"
#include "ttt/modules/paged_attention.h"
#include "ttt/modules/rope.h"

namespace ttt::models {

// Of the chosen experts e, with probabilities p_e:  q_e = x W_q,e;  y = sum_e p_e attention(q_e, k, v) W_o,e
// + b. Query head h of an expert attends to kv head h.
class MixtureOfHeads final : public Mixer {
 public:
  MixtureOfHeads(const BuildContext& c, const HfConfig& p)
      : layer_(c.name.layer),
        experts_(p.get<int>("experts")),
        spec_(std::get<AttentionSpec>(parse_mixer(p.json("attention")))),
        router_(Router::from_config({.spec = {.order = RouterOrder::top_k_then_score},
                                     .experts = experts_,
                                     .top_k = spec_.heads / spec_.kv_heads,
                                     .weight = c.weight("router"),
                                     .name = c.name / "router"},
                                    c.target, c.home)),
        k_(c.linear("k")),
        v_(c.linear("v")),
        rope_(Rope::from_config({.spec = *spec_.rope, .head_dim = spec_.head_dim, .name = c.name / "rope"},
                                c.target)),
        q_(bind(c, "experts.q")),
        o_(bind(c, "experts.o")),
        bias_(c.vector("bias")) {}

  Tensor forward(const Tensor& x, const Step& step) const override {
    const auto [weights, chosen] = router_.forward(x, step.mode);
    const std::int64_t tokens = step.tokens, kv = spec_.kv_heads, group = spec_.heads / spec_.kv_heads,
                       head = spec_.head_dim;
    const auto heads = [&](const Linear& linear) {
      return ops::nlp_create_qkv_heads(linear.forward(x, step.mode), kv, 0, head).q;
    };
    // The queries of one kv head stand beside each other: [tokens, choice, kv head] to [kv head, choice,
    // tokens].
    const int exchanged[] = {2, 1, 0, 3};
    const Tensor q =
        ops::permute(ops::sparse_matmul(x, q_.get(), chosen).reshape({tokens, group, kv, head}), exchanged)
            .reshape({1, kv * group, tokens, head});
    const Tensor context = attend(rope_.forward(q, step), rope_.forward(heads(k_), step), heads(v_),
                                  step.state->cache(layer_), step, {});
    const int back[] = {0, 2, 1, 3};
    const Tensor by_choice =
        ops::permute(context.reshape({tokens, kv, group, head}), back).reshape({1, tokens, group, kv * head});
    const Tensor each = ops::sparse_matmul(by_choice, o_.get(), chosen);
    const Tensor row = ops::typecast(weights, each.dtype()).reshape({1, tokens, 1, group});
    return ops::add(ops::matmul(row, each).reshape(x.shape()), bias_.get(), {.dtype = x.dtype()});
  }
  void print(PlanRows& rows) const override {
    ttt::print(router_.plan(), rows), ttt::print(k_.plan(), rows), ttt::print(v_.plan(), rows);
  }

 private:
  LazyWeight bind(const BuildContext& c, const char* part) const {
    return c.home.bind(c.weight(part).experts(experts_), c.target.weight_dtype((c.name / part).path));
  }

  int layer_, experts_;
  AttentionSpec spec_;
  Router router_;
  Linear k_, v_;
  Rope rope_;
  LazyWeight q_, o_, bias_;
};

// y = moe(x) + b
class BiasedMoe final : public FeedForward {
 public:
  BiasedMoe(const BuildContext& c, const FfnSpec& moe) : moe_(c.ffn(moe, "moe")), bias_(c.vector("bias")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    return ops::add(moe_->forward(x, step), bias_.get(), {.dtype = x.dtype()});
  }
  void print(PlanRows& rows) const override { moe_->print(rows); }

 private:
  std::unique_ptr<FeedForward> moe_;
  LazyWeight bias_;
};

// The last norm: the only one whose eps is the config's.
class FinalNorm final : public Block {
 public:
  FinalNorm(const BuildContext& c, const HfConfig& p)
      : norm_(c.weight("norm"), p.get<float>("eps"), c.target, c.home) {}
  Tensor forward(const Tensor& x, const Step&) const override { return norm_.forward(x); }
  void print(PlanRows& rows) const override { ttt::print(norm_.plan(), rows); }

 private:
  RmsNorm norm_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm.eps = 1e-6f;
  m.final_norm = false;
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const int experts = c.get<int>("num_local_experts"), top_k = c.get<int>("num_experts_per_tok");
  const WeightSlot bias{.name = "bias", .role = WeightRole::vector, .rows = 1, .cols = m.dim};

  AttentionSpec attn = attention(c);
  attn.heads = attn.kv_heads * top_k;
  const std::int64_t width = std::int64_t{attn.kv_heads} * attn.head_dim, n = experts;
  const CustomSpec mixer{
      .name = "mixture_of_heads",
      .parameters =
          "{\"experts\": " + std::to_string(experts) + ", \"attention\": " + to_json(MixerSpec{attn}) + "}",
      .weights =
          {{.name = "router", .rows = n, .cols = m.dim},
           {.name = "k", .rows = width, .cols = m.dim},
           {.name = "v", .rows = width, .cols = m.dim},
           {.name = "experts.q", .role = WeightRole::experts, .rows = n * width, .cols = m.dim, .experts = n},
           {.name = "experts.o", .role = WeightRole::experts, .rows = n * m.dim, .cols = width, .experts = n},
           bias},
      .caches = {kv_cache(attn)}};

  const MoeSpec moe{.experts = experts,
                    .top_k = top_k,
                    .hidden = c.get<int>("intermediate_size"),
                    .router = {.order = RouterOrder::top_k_then_score},
                    .act = c.act()};
  CustomSpec ffn{
      .name = "biased_moe", .parameters = to_json(FfnSpec{moe}), .weights = weight_slots(moe, m.dim, "moe")};
  ffn.weights.push_back(bias);
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = mixer, .ffn = ffn});
  m.layers.push_back(
      {.block =
           CustomSpec{.name = "final_norm",
                      .parameters = "{\"eps\": " + c.json("rms_norm_eps") + "}",
                      .weights = {{.name = "norm", .role = WeightRole::vector, .rows = 1, .cols = m.dim}}}});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const std::string attn = "{layer}.self_attention.";
  return hf_decoder_names()
      .split(attn + "kv_proj", {"{layer}.attn.k", "{layer}.attn.v"})
      .rename(attn + "experts.router.layer", "{layer}.attn.router")
      .rename(attn + "experts.input_linear", "{layer}.attn.experts.q")
      .rename(attn + "experts.output_linear", "{layer}.attn.experts.o")
      .rename(attn + "experts.bias", "{layer}.attn.bias")
      .rename("{layer}.mlp.router.layer", "{layer}.ffn.moe.router")
      .split("{layer}.mlp.input_linear", {"{layer}.ffn.moe.experts.gate", "{layer}.ffn.moe.experts.up"})
      .rename("{layer}.mlp.output_linear", "{layer}.ffn.moe.experts.down")
      .rename("{layer}.mlp.bias", "{layer}.ffn.bias")
      .rename("norm", "layers." + std::to_string(m.layers.size() - 1) + ".norm");
}

static void modules(CustomModules& m) {
  m.mixers["mixture_of_heads"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<MixtureOfHeads>(c, HfConfig::parse(p));
  };
  m.feed_forwards["biased_moe"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<BiasedMoe>(c, parse_ffn(p));
  };
  m.blocks["final_norm"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<FinalNorm>(c, HfConfig::parse(p));
  };
}

static const Family jetmoe{"jetmoe",
                           {.architectures = {"JetMoeForCausalLM"},
                            .describe = describe,
                            .weights = weights,
                            .ignore = {"aux_loss_coef", "num_attention_heads"},
                            .modules = modules}};

}  // namespace ttt::models

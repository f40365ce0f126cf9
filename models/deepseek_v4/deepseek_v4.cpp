// DeepSeek V4: several residual streams that are mixed; one key per position that is its value too, attended
// to through a window, beside entries that stand for several positions each; experts of the first layers by
// the token alone.
#include "compressed_attention.h"
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/hyper_block.h"
#include "ttt/modules/moe.h"

namespace ttt::models {

// p = sqrt(softplus(x W)), of the experts that a table has for the token, or of those with the largest p +
// bias.
class RootRouter final : public FeedForward {
 public:
  RootRouter(const BuildContext& c, const HfConfig& p)
      : spec_(std::get<MoeSpec>(parse_ffn(p.json("moe")))),
        router_(c.linear("router", {}, DataType::f32)),
        bias_(c.vector("router.correction_bias")),
        experts_(experts(c, spec_)) {
    if (const LazyWeight table = c.weight("experts_of_token")) table_ = c.home.bind(table, vector_dtype);
  }
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor logits = router_.forward(x, step.mode);
    tap(logits, router_.plan().name);
    const Tensor scores = ops::unary(ops::unary(logits, {UnaryOp::softplus}), {UnaryOp::sqrt});
    Router::Choice choice;
    choice.experts = table_
                         ? ops::typecast(ops::embedding(step.ids, table_.get(), DataType::f32), DataType::u32)
                         : ops::topk(ops::add(scores, bias_.get()), spec_.top_k).indices;
    const Tensor chosen = ops::gather(scores, -1, choice.experts);
    choice.weights = ops::mul(ops::div(chosen, ops::add(ops::sum(chosen), 1e-20f)), spec_.router.scale);
    return experts_.forward(x, choice, step.mode);
  }
  void print(PlanRows& rows) const override {
    ttt::print(router_.plan(), rows), ttt::print(experts_.plan(), rows);
  }

 private:
  static Moe experts(const BuildContext& c, const MoeSpec& spec) {
    MoeConfig config;
    config.spec = spec, config.name = c.name;
    config.gate = c.weight("experts.gate"), config.up = c.weight("experts.up"),
    config.down = c.weight("experts.down");
    if (spec.shared)
      config.shared = MlpConfig{.gate = c.weight("shared.gate"),
                                .up = c.weight("shared.up"),
                                .down = c.weight("shared.down"),
                                .name = c.name / "shared",
                                .act = spec.shared->act,
                                .limit = spec.shared->limit};
    return Moe::from_config(config, c.target, c.home);
  }

  MoeSpec spec_;
  Linear router_;
  LazyWeight bias_, table_;
  Moe experts_;
};

static MixerSpec mixer(const HfConfig& c, int layer, std::int64_t dim) {
  const std::string type = c.layer_type(layer);
  const bool plain = type == "sliding_attention", sparse = type == "compressed_sparse_attention";
  AttentionSpec attn{.heads = c.heads(),
                     .kv_heads = 1,
                     .head_dim = c.get<int>("head_dim"),
                     .rope = c.rope_named(plain ? "main" : "compress")};
  attn.rope->interleaved = true;
  if (attn.rope->rotary_dim == 0) attn.rope->rotary_dim = attn.head_dim;
  const std::int64_t q = std::int64_t{attn.heads} * attn.head_dim, latent = c.get<int>("q_lora_rank"),
                     groups = c.get<int>("o_groups"), rank = groups * c.get<int>("o_lora_rank");
  std::string parameters = "{\"rope\": " + to_json(MixerSpec{attn});
  const auto set = [&](const char* key, std::int64_t value) {
    parameters += ", \"" + std::string(key) + "\": " + std::to_string(value);
  };
  set("heads", attn.heads), set("head_dim", attn.head_dim), set("window", c.get<int>("sliding_window")),
      set("groups", groups);
  CustomSpec s{.name = "compressed_attention",
               .weights = {matrix_slot("q_a", latent, dim), vector_slot("q_a_norm", latent),
                           matrix_slot("q_b", q, latent), matrix_slot("kv", attn.head_dim, dim),
                           vector_slot("kv_norm", attn.head_dim), vector_slot("sinks", attn.heads),
                           matrix_slot("o_a", rank, q / groups), matrix_slot("o_b", dim, rank)}};
  KvCacheSpec cache{.kv_heads = 1, .head_dim = attn.head_dim};
  const auto compress = [&](const std::string& part, const CompressorSpec& spec) {
    for (const WeightSlot& slot : spec.weights(part, dim)) s.weights.push_back(slot);
    s.state.push_back(spec.state(part));
  };
  if (!plain) {
    const std::int64_t rate = c.child("compress_rates").get<int>(type);
    set("rate", rate);
    cache.v_head_dim = attn.head_dim;
    compress("compressor", {.rate = rate, .width = attn.head_dim, .overlap = sparse});
    if (sparse) {
      const std::int64_t heads = c.get<int>("index_n_heads"), width = c.get<int>("index_head_dim");
      set("index_heads", heads), set("index_dim", width), set("index_topk", c.get<int>("index_topk"));
      cache.indexer_dim = static_cast<int>(width);
      compress("indexer.compressor", {.rate = rate, .width = width, .overlap = true});
      s.weights.push_back(matrix_slot("indexer.q", heads * width, latent));
      s.weights.push_back(matrix_slot("indexer.weights", heads, dim));
    }
  }
  s.caches = {cache};
  s.parameters = parameters + "}";
  return s;
}

static FfnSpec experts(const HfConfig& c, bool by_token, std::int64_t dim, std::int64_t vocab) {
  const GluLimit limit{.limit = c.get<float>("swiglu_limit")};
  MoeSpec moe{.experts = c.get<int>("n_routed_experts"),
              .top_k = c.get<int>("num_experts_per_tok"),
              .hidden = c.get<int>("moe_intermediate_size"),
              .router = {.scale = c.get_or("routed_scaling_factor", 1.0f), .correction_bias = !by_token},
              .act = c.act(),
              .limit = limit};
  if (const int shared = c.get_or("n_shared_experts", 1); shared > 0)
    moe.shared = MlpSpec{.hidden = shared * moe.hidden, .act = c.act(), .limit = limit};
  CustomSpec s{.name = "root_router", .parameters = "{\"moe\": " + to_json(FfnSpec{moe}) + "}"};
  for (WeightSlot slot : weight_slots(FfnSpec{moe}, static_cast<int>(dim), "")) s.weights.push_back(slot);
  if (by_token) s.weights.push_back(table_slot("experts_of_token", vocab, moe.top_k));
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  for (const char* bias : {"attention_bias", "mlp_bias"}) c.require(bias, false);
  c.require("scoring_func", "sqrtsoftplus");
  c.require("norm_topk_prob", true);
  ModelSpec m = decoder(c);
  const HyperConnectionSpec hyper{.streams = c.get<int>("hc_mult"),
                                  .eps = c.get_or("hc_eps", 1e-6f),
                                  .norm_eps = m.norm.eps,
                                  .sinkhorn_iterations = c.get<int>("hc_sinkhorn_iters")};
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back(
        {.block = hyper_block(hyper, mixer(c, i, m.dim),
                              experts(c, kinds.at(static_cast<std::size_t>(i)) == "hash_moe", m.dim, m.vocab),
                              m.dim, i + 1 == c.layers())});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map;
  map.strip("model.")
      .rename("embed_tokens", "embed")
      .rename("embed", "embed")
      .rename("norm", "norm")
      .rename("head", "lm_head")
      .surplus("lm_head")
      .ignore(next_token_layer(m))
      .ignore("mtp.*");
  map.rename("{layer}.", "{layer}.",
             {{"attn_norm", "attn_norm"},
              {"ffn_norm", "ffn_norm"},
              {"attn.wq_a", "attn.q_a"},
              {"attn.q_norm", "attn.q_a_norm"},
              {"attn.wq_b", "attn.q_b"},
              {"attn.wkv", "attn.kv"},
              {"attn.norm", "attn.kv_norm"},
              {"attn.attn_sink", "attn.sinks"},
              {"attn.wo_a", "attn.o_a"},
              {"attn.wo_b", "attn.o_b"},
              {"attn.indexer.wq_b", "attn.indexer.q"},
              {"attn.indexer.weights_proj", "attn.indexer.weights"},
              {"ffn.gate", "ffn.router"},
              {"ffn.gate.bias", "ffn.router.correction_bias"},
              {"ffn.gate.tid2eid", "ffn.experts_of_token"},
              {"ffn.experts.{e}.w1", "ffn.experts.gate"},
              {"ffn.experts.{e}.w2", "ffn.experts.down"},
              {"ffn.experts.{e}.w3", "ffn.experts.up"},
              {"ffn.shared_experts.w1", "ffn.shared.gate"},
              {"ffn.shared_experts.w2", "ffn.shared.down"},
              {"ffn.shared_experts.w3", "ffn.shared.up"}});
  for (const std::string part : {"{layer}.attn.compressor.", "{layer}.attn.indexer.compressor."})
    map.rename(part, part, {{"wkv", "kv"}, {"wgate", "gate"}, {"ape", "bias"}, {"norm", "norm"}});
  for (const std::string side : {"attn", "ffn"})
    map.rename("{layer}.hc_" + side + "_", "{layer}." + side + "_hyper.",
               {{"fn", "weight"}, {"base", "base"}, {"scale", "scale"}});
  map.rename("hc_head.hc_", "layers." + std::to_string(m.layers.size() - 1) + ".head_hyper.",
             {{"fn", "weight"}, {"base", "base"}, {"scale", "scale"}});
  return map;
}

static void modules(CustomModules& m) {
  m.blocks[hyper_block_name] = make_hyper_block;
  m.mixers["compressed_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<CompressedAttention>(c, HfConfig::parse(p));
  };
  m.feed_forwards["root_router"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<RootRouter>(c, HfConfig::parse(p));
  };
}

static const Family deepseek_v4{
    "deepseek_v4",
    {.architectures = {"DeepseekV4ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"compress_rope_theta", "partial_rotary_factor", "qk_rope_head_dim", "rope_theta", "router_*",
                "num_key_value_heads", "rope_parameters.main"},
     .modules = modules}};

}  // namespace ttt::models

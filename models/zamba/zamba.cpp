// Zamba: Mamba layers whose heads have projections of their own; one transformer layer, over the stream
// beside the embedding, is shared by several places.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// Mamba (ttt/modules/state_space.h) where dt, b and c of each head come from its own channels only.
class HeadwiseMamba final : public Mixer {
 public:
  HeadwiseMamba(const BuildContext& c, const HfConfig& p)
      : name_(c.name),
        heads_(p.get<int>("heads")),
        rank_(p.get<int>("dt_rank")),
        state_(p.get<int>("state")),
        x_(Linear::from_config({.weight = c.weight("x"), .name = c.name / "x"}, c.target, c.home)),
        z_(Linear::from_config(
            {.weight = c.weight("z"), .name = c.name / "z", .activation = Activation{UnaryOp::silu}},
            c.target, c.home)),
        o_(Linear::from_config({.weight = c.weight("o"), .name = c.name / "o"}, c.target, c.home)),
        conv_(CausalConv1d::from_config({.weight = c.weight("conv"),
                                         .bias = c.weight("conv.bias"),
                                         .name = c.name / "conv",
                                         .act = Activation{UnaryOp::silu}},
                                        c.target, c.home)),
        ssm_(c.home.bind(c.weight("ssm"), vector_dtype)),
        dt_(c.home.bind(c.weight("dt"), vector_dtype)),
        dt_bias_(c.home.bind(c.weight("dt_bias"), vector_dtype)),
        a_(c.home.bind(c.weight("a"), vector_dtype)),
        d_(c.home.bind(c.weight("d"), vector_dtype)) {}

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor h = conv_.forward(x_.forward(x, step.mode), step);
    const std::int64_t inner = h.dim(3), width = inner / heads_, parts = rank_ + 2 * state_;
    const Tensor by_head = ops::nlp_create_qkv_heads(ops::typecast(h, DataType::f32), heads_, 0, width).q;
    const Tensor ssm =
        ops::matmul(by_head, ssm_.get().reshape({1, heads_, parts, width}), {.transpose_b = true});
    const Tensor dt = ops::nlp_concat_heads(ops::matmul(
        ops::slice(ssm, 3, 0, rank_), dt_.get().reshape({1, heads_, width, rank_}), {.transpose_b = true}));
    const Tensor b = ops::nlp_concat_heads(ops::slice(ssm, 3, rank_, rank_ + state_)),
                 c = ops::nlp_concat_heads(ops::slice(ssm, 3, rank_ + state_, parts));
    const Tensor y = ops::selective_scan(
        h, b, c, step.state->slots_of(name_.layer, "scan", step.iteration), step.segments, inner, heads_,
        {.dt = &dt, .dt_bias = &dt_bias_.get(), .a = &a_.get(), .d = &d_.get(), .softplus = true});
    tap(y, name_, "scan");
    return o_.forward(ops::mul(y, z_.forward(x, step.mode)), step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&x_, &z_, &o_}) ttt::print(part->plan(), rows);
    ttt::print(conv_.plan(), rows);
  }

 private:
  ModuleName name_;
  std::int64_t heads_, rank_, state_;
  Linear x_, z_, o_;
  CausalConv1d conv_;
  LazyWeight ssm_, dt_, dt_bias_, a_, d_;
};

// t = linear(mlp(norm(attention(norm([x, embedding])))));  y = x + mamba(norm(x + t))
class HybridBlock final : public Block {
 public:
  HybridBlock(const BuildContext& c, const HfConfig& p)
      : input_norm_(norm(c, "attention_norm")),
        ffn_norm_(norm(c, "ffn_norm")),
        mamba_norm_(norm(c, "attn_norm")),
        attention_(c.mixer(parse_mixer(p.json("attention")), "attention")),
        mlp_(c.ffn(parse_ffn(p.json("mlp")), "ffn")),
        mamba_(c.mixer(parse_mixer(p.json("mamba")), "attn")),
        linear_(Linear::from_config({.weight = c.weight("linear"), .name = c.name / "linear"}, c.target,
                                    c.home)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor both[] = {x, step.embedding};
    const Tensor a = attention_->forward(input_norm_.forward(ops::concat(both, 3)), step);
    const Tensor t = linear_.forward(mlp_->forward(ffn_norm_.forward(a), step), step.mode);
    return ops::add(x, mamba_->forward(mamba_norm_.forward(ops::add(x, t)), step));
  }
  void print(PlanRows& rows) const override {
    attention_->print(rows), mlp_->print(rows), ttt::print(linear_.plan(), rows), mamba_->print(rows);
  }

 private:
  static RmsNorm norm(const BuildContext& c, const char* part) {
    return RmsNorm(c.weight(part), c.spec.norm.eps, c.target, c.home);
  }

  RmsNorm input_norm_, ffn_norm_, mamba_norm_;
  std::unique_ptr<Mixer> attention_;
  std::unique_ptr<FeedForward> mlp_;
  std::unique_ptr<Mixer> mamba_;
  Linear linear_;
};

static WeightSlot vector(std::string name, std::int64_t n) {
  return {.name = std::move(name), .role = WeightRole::vector, .rows = 1, .cols = n};
}
static WeightSlot table(std::string name, std::int64_t rows, std::int64_t cols) {
  return {.name = std::move(name), .role = WeightRole::vector, .rows = rows, .cols = cols};
}

static CustomSpec mamba(const HfConfig& c) {
  const std::int64_t dim = c.get<int>("hidden_size"), inner = c.get_or("mamba_expand", 2) * dim,
                     heads = c.get_or("n_mamba_heads", 1), state = c.get_or("mamba_d_state", 16),
                     kernel = c.get_or("mamba_d_conv", 4), rank = c.get<int>("mamba_dt_rank");
  c.require("mamba_proj_bias", false);
  c.require("mamba_conv_bias", true);
  c.require("hidden_mamba_act", "silu");
  return {.name = "headwise_mamba",
          .parameters = "{\"heads\": " + std::to_string(heads) + ", \"dt_rank\": " + std::to_string(rank) +
                        ", \"state\": " + std::to_string(state) + "}",
          .weights = {{.name = "x", .rows = inner, .cols = dim},
                      {.name = "z", .rows = inner, .cols = dim},
                      table("conv", inner, kernel),
                      vector("conv.bias", inner),
                      table("ssm", heads * (rank + 2 * state), inner / heads),
                      table("dt", inner, rank),
                      vector("dt_bias", inner),
                      table("a", inner, state),
                      vector("d", inner),
                      {.name = "o", .rows = dim, .cols = inner}},
          .state = {{"conv", (kernel - 1) * inner}, {"scan", inner * state}}};
}

static CustomSpec hybrid(const HfConfig& c, const CustomSpec& mamba) {
  const int dim = c.get<int>("hidden_size");
  const AttentionSpec attention{
      .heads = c.heads(),
      .kv_heads = c.kv_heads(),
      .head_dim = c.get<int>("attention_head_dim"),
      .scale = 1 / std::sqrt(static_cast<float>(c.get<int>("attention_head_dim")) / 2)};
  const MlpSpec ffn = mlp(c);
  CustomSpec s{.name = "hybrid_block",
               .parameters = "{\"attention\": " + to_json(MixerSpec{attention}) + ", \"mlp\": " +
                             to_json(FfnSpec{ffn}) + ", \"mamba\": " + to_json(MixerSpec{mamba}) + "}",
               .weights = {vector("attention_norm", 2 * dim),
                           vector("ffn_norm", dim),
                           vector("attn_norm", dim),
                           {.name = "linear", .rows = dim, .cols = dim}},
               .state = mamba.state,
               .caches = {kv_cache(attention)}};
  for (WeightSlot& slot : weight_slots(MixerSpec{attention}, 2 * dim, "attention")) {
    if (slot.name == "attention.o") slot.rows = dim;  // takes the doubled width, gives the stream's
    s.weights.push_back(slot);
  }
  for (WeightSlot& slot : weight_slots(FfnSpec{ffn}, dim, "ffn")) s.weights.push_back(slot);
  for (WeightSlot& slot : weight_slots(MixerSpec{mamba}, dim, "attn")) s.weights.push_back(slot);
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-5f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const CustomSpec mixer = mamba(c);
  const int period = c.get_or("attn_layer_period", 6), offset = c.get_or("attn_layer_offset", 4);
  const auto kinds = c.find<std::vector<std::string>>("layers_block_type");
  for (int i = 0; i < c.layers(); ++i) {
    if (kinds ? kinds->at(static_cast<std::size_t>(i)) == "hybrid" : i > 0 && (i - offset) % period == 0) {
      m.layers.push_back({.block = hybrid(c, mixer)});
    } else {
      m.layers.push_back({.mixer = mixer, .ffn = Absent{}});
    }
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names();
  map.rename("final_layernorm", "norm").rename("{layer}.linear", "{layer}.linear");
  for (const std::string from : {"{layer}.mamba.", "{layer}.mamba_decoder.mamba."}) {
    map.split(from + "in_proj", {"{layer}.attn.x", "{layer}.attn.z"}, {.interleaved = true})
        .rename(from + "conv1d", "{layer}.attn.conv")
        .rename(from + "x_proj_weight", "{layer}.attn.ssm")
        .rename(from + "dt_proj_weight", "{layer}.attn.dt")
        .rename(from + "dt_proj_bias", "{layer}.attn.dt_bias")
        .rename(from + "A_log", "{layer}.attn.a")
        .rename(from + "D", "{layer}.attn.d")
        .rename(from + "out_proj", "{layer}.attn.o");
  }
  map.rename("{layer}.mamba_decoder.input_layernorm", "{layer}.attn_norm")
      .rename("{layer}.shared_transf.input_layernorm", "{layer}.attention_norm")
      .rename("{layer}.shared_transf.pre_ff_layernorm", "{layer}.ffn_norm")
      .apply("*.attn.a", unary(UnaryOp::exp))
      .apply("*.attn.a", multiply(-1));
  for (const std::string part : {"q", "k", "v", "o"})
    map.rename("{layer}.shared_transf.self_attn." + part + "_proj", "{layer}.attention." + part);
  for (const std::string part : {"gate", "up", "down"})
    map.rename("{layer}.shared_transf.feed_forward." + part + "_proj", "{layer}.ffn." + part);
  // Checkpoints hold the shared layer once, at its first place.
  std::string first;
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    if (!m.layers[i].block) continue;
    const std::string layer = "layers." + std::to_string(i) + ".";
    if (first.empty()) first = layer;
    if (first == layer) continue;
    for (const char* part : {"attention_norm", "ffn_norm", "attention.q", "attention.k", "attention.v",
                             "attention.o", "ffn.gate", "ffn.up", "ffn.down"})
      map.alias(layer + part, first + part);
  }
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["headwise_mamba"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<HeadwiseMamba>(c, HfConfig::parse(parameters));
  };
  m.blocks["hybrid_block"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<HybridBlock>(c, HfConfig::parse(parameters));
  };
}

static const Family zamba{"zamba",
                          {.architectures = {"ZambaForCausalLM"},
                           .describe = describe,
                           .weights = weights,
                           .ignore = {"attention_hidden_size", "time_step_*", "attn_layer_*"},
                           .modules = modules}};

}  // namespace ttt::models

// Inkling: no rotation but biases that every token chooses over the distance; short convolutions over keys,
// values and what each half of a layer adds; experts of which some are always chosen and share the others'
// weights' sum.
#include "relative_attention.h"
#include "ttt/convert/model_entry.h"
#include "ttt/modules/moe.h"

namespace ttt::models {

// q, k, v, r = x W;  k, v = conv(k), conv(v);  y = softmax(t norm(q) norm(k)^T / head_dim + bias(t r)) v W_o
// t grows with the logarithm of the position where the layer has no window.
class BiasedAttention {
 public:
  BiasedAttention(const BuildContext& c, const AttentionSpec& spec, float alpha, float floor)
      : spec_(spec),
        name_(c.name / "attn"),
        alpha_(alpha),
        floor_(floor),
        in_(Linear::from_config({.weight = LazyWeight::concat({c.weight("attn.q"), c.weight("attn.k"),
                                                               c.weight("attn.v"), c.weight("attn.r")}),
                                 .name = name_ / "qkv"},
                                c.target, c.home)),
        o_(c.linear("attn.o")),
        q_norm_(c.rms_norm("attn.q_norm")),
        k_norm_(c.rms_norm("attn.k_norm")),
        k_conv_(c, "attn.k_conv"),
        v_conv_(c, "attn.v_conv"),
        bias_(RelativeBias::from_config({.profiles = c.weight("attn.profiles"), .name = name_ / "bias"},
                                        c.target, c.home)) {}

  Tensor forward(const Tensor& x, const Step& step) const {
    const std::int64_t q_width = std::int64_t{spec_.heads} * spec_.head_dim,
                       k_width = std::int64_t{spec_.kv_heads} * spec_.head_dim, v_begin = q_width + k_width,
                       r_begin = v_begin + k_width;
    const Tensor in = in_.forward(x, step.mode);
    Tensor q = q_norm_.forward(by_head(ops::slice(in, -1, 0, q_width), spec_.heads)),
           r = by_head(ops::slice(in, -1, r_begin, in.dim(3)), spec_.heads);
    const Tensor k = k_norm_.forward(
                     by_head(k_conv_.forward(ops::slice(in, -1, q_width, v_begin), step), spec_.kv_heads)),
                 v = by_head(v_conv_.forward(ops::slice(in, -1, v_begin, r_begin), step), spec_.kv_heads);
    if (floor_ > 0) {
      const Tensor t = temperatures(step, alpha_, floor_);
      q = ops::mul(std::move(q), t, {.dtype = x.dtype()}),
      r = ops::mul(std::move(r), t, {.dtype = x.dtype()});
    }
    const Tensor context =
        attend(q, k, v, step.state->cache(name_.layer, step.iteration), step,
               {.attributes = {.scale = *spec_.scale, .sliding_window_size = spec_.window.value_or(0)},
                .mask = [&](const SequenceRows& rows) { return bias_.forward(r, rows); }});
    tap(context, name_, "context");
    Tensor y = o_.forward(context, step.mode);
    tap(y, name_);
    return y;
  }
  void print(PlanRows& rows) const {
    ttt::print(in_.plan(), rows), ttt::print(bias_.plan(), rows), ttt::print(o_.plan(), rows);
  }

 private:
  AttentionSpec spec_;
  ModuleName name_;
  float alpha_, floor_;
  Linear in_, o_;
  RmsNorm q_norm_, k_norm_;
  ResidualConv k_conv_, v_conv_;
  RelativeBias bias_;
};

// The experts that all tokens pass stand behind the others, and their bias has every choice include them.
static Moe experts(const BuildContext& c, MoeSpec spec, int shared) {
  const auto both = [&](const std::string& part) -> LazyWeight {
    return {concat_rows({c.weight("ffn.experts." + part).source(), c.weight("ffn.shared." + part).source()}),
            WeightRole::experts, (c.name / ("ffn.experts." + part)).path};
  };
  const int routed = spec.experts;
  spec.experts += shared, spec.top_k += shared;
  const WeightSourcePtr bias = concat_rows(
      {reshape_source(c.weight("ffn.router.correction_bias").source(), routed, 1),
       make_source(std::vector<float>(static_cast<std::size_t>(shared), 1000.0f), shared, 1, "always")});
  return Moe::from_config(
      {.spec = spec,
       .router = {.spec = spec.router,
                  .experts = spec.experts,
                  .top_k = spec.top_k,
                  .weight = c.weight("ffn.router"),
                  .correction_bias = {reshape_source(bias, 1, spec.experts), WeightRole::vector,
                                      (c.name / "ffn.router.correction_bias").path},
                  .name = c.name / "ffn.router"},
       .gate = both("gate"),
       .up = both("up"),
       .down = both("down"),
       .name = c.name / "ffn"},
      c.target, c.home);
}

// h = x + conv(attention(norm(x)));  y = h + conv(scale ffn(norm(h))), where conv is a ResidualConv.
class ConvBlock final : public Block {
 public:
  ConvBlock(const BuildContext& c, const HfConfig& p)
      : attn_norm_(c.rms_norm("attn_norm")),
        ffn_norm_(c.rms_norm("ffn_norm")),
        attention_(c, std::get<AttentionSpec>(parse_mixer(p.json("attention"))), p.get<float>("alpha"),
                   p.get<float>("floor")),
        attn_conv_(c, "attn_conv"),
        ffn_conv_(c, "ffn_conv"),
        scale_(c.vector("ffn.scale")) {
    const FfnSpec ffn = parse_ffn(p.json("ffn"));
    if (const auto* moe = std::get_if<MoeSpec>(&ffn)) {
      moe_.emplace(experts(c, *moe, p.get<int>("shared")));
    } else {
      mlp_ = c.ffn(ffn, "ffn");
    }
  }
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor h = ops::add(x, attn_conv_.forward(attention_.forward(attn_norm_.forward(x), step), step));
    const Tensor n = ffn_norm_.forward(h), f = moe_ ? moe_->forward(n, step.mode) : mlp_->forward(n, step);
    return ops::add(h, ffn_conv_.forward(ops::mul(f, scale_.get(), {.dtype = x.dtype()}), step));
  }
  void print(PlanRows& rows) const override {
    attention_.print(rows);
    if (moe_) ttt::print(moe_->plan(), rows);
    if (mlp_) mlp_->print(rows);
  }

 private:
  RmsNorm attn_norm_, ffn_norm_;
  BiasedAttention attention_;
  ResidualConv attn_conv_, ffn_conv_;
  LazyWeight scale_;
  std::optional<Moe> moe_;
  std::unique_ptr<FeedForward> mlp_;
};

static CustomSpec block(const HfConfig& c, int layer, std::int64_t dim, const FfnSpec& ffn, int shared) {
  AttentionSpec attn = layer_attention(c, layer);
  attn.scale = 1 / static_cast<float>(attn.head_dim);
  const float floor = attn.window ? 0 : c.get_or("log_scaling_n_floor", 0.0f);
  CustomSpec s = layer_block(c, attn, "conv_block", dim);
  s.parameters = "{\"attention\": " + to_json(MixerSpec{attn}) + ", \"ffn\": " + to_json(ffn) +
                 ", \"shared\": " + std::to_string(shared) + ", \"floor\": " + std::to_string(floor) +
                 ", \"alpha\": " + std::to_string(c.get_or("log_scaling_alpha", 0.1f)) + "}";
  s.weights.insert(s.weights.end(),
                   {vector_slot("attn_norm", dim), vector_slot("ffn.scale", 1),
                    vector_slot("attn.q_norm", attn.head_dim), vector_slot("attn.k_norm", attn.head_dim)});
  const std::int64_t kv = std::int64_t{attn.kv_heads} * attn.head_dim,
                     kernel = c.get<int>("conv_kernel_size");
  for (const char* part : {"attn.k_conv", "attn.v_conv"}) {
    s.weights.push_back(table_slot(part, kv, kernel));
    s.state.push_back({part, (kernel - 1) * kv});
  }
  for (WeightSlot slot : weight_slots(ffn, static_cast<int>(dim), "ffn")) {
    if (slot.name == "ffn.router") slot.rows += shared;
    s.weights.push_back(slot);
    if (slot.role != WeightRole::experts) continue;
    slot.name.replace(0, std::string("ffn.experts").size(), "ffn.shared");
    slot.rows = slot.rows / slot.experts * shared, slot.experts = shared;
    s.weights.push_back(slot);
  }
  return s;
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  c.require("shared_expert_sink", true);
  ModelSpec m = decoder(c);
  m.vocab = c.get_or("unpadded_vocab_size", m.vocab);
  m.embed_norm = m.norm;
  m.logit_scale = 1 / c.get_or("logits_mup_width_multiplier", 1.0f);
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  const MoeSpec moe{.experts = c.get<int>("n_routed_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("moe_intermediate_size"),
                    .router = {.score = RouterScore::sigmoid,
                               .renormalize = true,
                               .scale = c.get_or("route_scale", 1.0f),
                               .correction_bias = true},
                    .act = c.act()};
  for (int i = 0; i < c.layers(); ++i) {
    const bool dense = kinds.at(static_cast<std::size_t>(i)) == "dense";
    m.layers.push_back({.block = block(c, i, m.dim, dense ? FfnSpec{mlp(c)} : FfnSpec{moe},
                                       dense ? 0 : c.get<int>("n_shared_experts"))});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names().append(hf_moe_names());
  const std::string mlp = "{layer}.mlp.";
  map.strip("language_model.")
      .slice("embed_tokens", "embed", 0, m.vocab)
      .slice("lm_head", "lm_head", 0, m.vocab)
      .rename("embed_tokens.embed_norm", "embed_norm")
      .rename("{layer}.self_attn.", "{layer}.attn.",
              {{"r_proj", "r"},
               {"rel_logits_proj.proj", "profiles"},
               {"k_sconv.conv1d", "k_conv"},
               {"v_sconv.conv1d", "v_conv"}})
      .rename("{layer}.", "{layer}.",
              {{"attn_sconv.conv1d", "attn_conv"},
               {"mlp_sconv.conv1d", "ffn_conv"},
               {"mlp.global_scale", "ffn.scale"},
               {"mlp.gate.global_scale", "ffn.scale"}})
      .split(mlp + "experts.gate_up_proj", {"{layer}.ffn.experts.gate", "{layer}.ffn.experts.up"})
      .rename(mlp + "experts.down_proj", "{layer}.ffn.experts.down")
      .ignore("mtp.*")
      .ignore("audio_tower.*")
      .ignore("vision_tower.*");
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["conv_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<ConvBlock>(c, HfConfig::parse(p));
  };
}

static const Family inkling{"inkling",
                            {.architectures = {"InklingForCausalLM", "InklingForConditionalGeneration"},
                             .describe = describe,
                             .weights = weights,
                             .ignore = {"chain_hidden_post_norm", "intermediate_size", "local_layer_ids",
                                        "num_mtp_layers", "number_of_conv_states", "rms_norm_eps_moe_gate"},
                             .modules = modules}};

}  // namespace ttt::models

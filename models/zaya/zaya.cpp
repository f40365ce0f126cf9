// ZAYA: queries and keys through two short convolutions, values half from the token before; a router that is
// a network and hands its state to the next layer's; learned scales and biases on both sides of every
// residual.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/moe.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/paged_attention.h"
#include "ttt/modules/rope.h"
#include "ttt/modules/token_shift.h"

namespace ttt::models {

// Compressed convolutional attention (https://huggingface.co/papers/2510.04476):
//   c = mix(conv([x W_q, x W_k]));  r = (x W_q + x W_k of its group) / 2
//   q, k = l2norm(c_q + r), l2norm(c_k + mean of r over the group);  v[t] = [x[t] W_v, x[t - 1] W_delayed]
// `conv` is depthwise, `mix` a convolution within each head.
class ConvolutionalAttention {
 public:
  ConvolutionalAttention(const BuildContext& c, const AttentionSpec& spec, int mix_kernel)
      : spec_(spec),
        name_(c.name / "attn"),
        in_(Linear::from_config(
            {.weight = LazyWeight::concat(
                 {c.weight("attn.q"), c.weight("attn.k"), c.weight("attn.v"), c.weight("attn.v_delayed")}),
             .name = name_ / "qkv"},
            c.target, c.home)),
        o_(c.linear("attn.o")),
        // What stands before a sequence is zeros to both convolutions at once: the second sees biases there.
        conv_(CausalConv1d::from_config({.weight = c.weight("attn.conv"), .name = name_ / "conv"}, c.target,
                                        c.home)),
        conv_bias_(c.vector("attn.conv.bias")),
        mix_(c.vector("attn.mix")),
        mix_bias_(c.vector("attn.mix.bias")),
        temperature_(c.vector("attn.temperature")),
        rope_(*spec.rope, spec.head_dim),
        mix_kernel_(mix_kernel),
        shift_(std::int64_t{spec.heads + spec.kv_heads} * spec.head_dim, c.home),
        value_shift_(std::int64_t{spec.kv_heads} * spec.head_dim / 2, c.home) {}

  Tensor forward(const Tensor& x, const Step& step) const {
    const std::int64_t tokens = step.tokens, d = spec_.head_dim, kv = spec_.kv_heads,
                       group = spec_.heads / kv, all = spec_.heads + kv, width = all * d, half = kv * d / 2;
    const Tensor in = in_.forward(x, step.mode), qk = ops::slice(in, -1, 0, width);
    const Tensor mixed = mix(conv_.forward(qk, step), step);

    const auto heads = [&](const Tensor& t) {
      return t.reshape({1, tokens, t.dim(3) / d, d}).swap_axes(1, 2);
    };
    const auto residual = [&](std::int64_t begin, std::int64_t end, std::int64_t of_each) {
      return ops::to_contiguous(heads(qk).narrow(1, begin, end)).reshape({kv, of_each, tokens, d});
    };
    const Tensor r = ops::mul(ops::add(residual(0, spec_.heads, group), residual(spec_.heads, all, 1)), 0.5f);
    Tensor q = ops::add(mixed.narrow(1, 0, spec_.heads), r.reshape({1, spec_.heads, tokens, d}));
    Tensor k = ops::add(mixed.narrow(1, spec_.heads, all), ops::mean(r, 1).reshape({1, kv, tokens, d}));
    q = rope_.forward(ops::rms_norm(std::move(q), {.epsilon = tiny}), step);
    k = ops::mul(ops::rms_norm(std::move(k), {.epsilon = tiny}), temperature_.get().reshape({1, kv, 1, 1}),
                 {.dtype = x.dtype()});
    const Tensor values[] = {
        ops::slice(in, -1, width, width + half),
        value_shift_.forward(ops::slice(in, -1, width + half, width + 2 * half), state(step, "value"), step)};
    const Tensor v = heads(ops::concat(values, -1));
    const Tensor context =
        attend(q, rope_.forward(std::move(k), step), v, step.state->cache(name_.layer, step.iteration), step,
               {.attributes = {.sliding_window_size = spec_.window.value_or(0)}});
    tap(context, name_, "context");
    Tensor y = o_.forward(context, step.mode);
    tap(y, name_);
    return y;
  }
  void print(PlanRows& rows) const {
    ttt::print(in_.plan(), rows), ttt::print(conv_.plan(), rows), ttt::print(o_.plan(), rows);
  }

 private:
  static constexpr float tiny = 1e-14f;  // an l2 norm: only zeros need it

  const Tensor& state(const Step& step, const std::string& part) const {
    return step.state->slots_of(name_.layer, part, step.iteration);
  }

  // x [1, 1, tokens, channels] -> [1, heads, tokens, head_dim].
  Tensor mix(Tensor x, const Step& step) const {
    std::vector<Tensor> taps{x};
    for (int i = 1; i < mix_kernel_; ++i)
      taps.insert(taps.begin(), shift_.forward(taps.front(), state(step, "mix." + std::to_string(i)), step));
    const std::int64_t d = spec_.head_dim, all = x.dim(3) / d, kernel = mix_kernel_;
    for (Tensor& tap : taps)
      tap = ops::add(std::move(tap), conv_bias_.get(), {.dtype = x.dtype()})
                .reshape({1, 1, step.tokens * all * d, 1});
    const Tensor rows = ops::concat(taps, 3).reshape({1, step.tokens, all, d * kernel}).swap_axes(1, 2);
    return ops::add(ops::matmul(rows, mix_.get().reshape({1, all, d, d * kernel}),
                                {.transpose_b = true, .dtype = x.dtype()}),
                    mix_bias_.get().reshape({1, all, 1, d}), {.dtype = x.dtype()});
  }

  AttentionSpec spec_;
  ModuleName name_;
  Linear in_, o_;
  CausalConv1d conv_;
  LazyWeight conv_bias_, mix_, mix_bias_, temperature_;
  Rope rope_;
  int mix_kernel_;
  TokenShift shift_, value_shift_;
};

// h = x W_down + scale * h of the layer before;  p = softmax(W_3 gelu(W_2 gelu(W_1 norm(h)))), chosen by p +
// bias. The last class is no expert: its tokens pass.
class ExpertNetwork {
 public:
  ExpertNetwork(const BuildContext& c, const MoeSpec& spec)
      : top_k_(spec.top_k),
        down_(c.linear("ffn.router.down")),
        hidden_(c.linear("ffn.router.fc1", {UnaryOp::gelu})),
        hidden2_(c.linear("ffn.router.fc2", {UnaryOp::gelu})),
        out_(c.linear("ffn.router.out", {}, DataType::f32)),
        norm_(c.rms_norm("ffn.router.norm")),
        scale_(c.vector("ffn.router.state_scale")),
        experts_(experts(c, spec)) {
    // The reference sets the last class's bias whatever the checkpoint says.
    const WeightSourcePtr column =
        reshape_source(c.weight("ffn.router.balance").source(), spec.experts + 1, 1);
    std::vector<std::int64_t> kept;
    for (std::int64_t i = 0; i < spec.experts; ++i) kept.push_back(i);
    bias_ = c.home.bind({reshape_source(concat_rows({gather_rows(column, kept), make_source({-1}, 1, 1)}), 1,
                                        spec.experts + 1),
                         WeightRole::vector, (c.name / "ffn.router.balance").path},
                        vector_dtype);
  }

  Tensor forward(const Tensor& x, const Step& step) const {
    Tensor h = down_.forward(x, step.mode);
    if (scale_)
      h = ops::add(std::move(h), ops::mul(step.slots.at("router"), scale_.get(), {.dtype = x.dtype()}));
    step.slots["router"] = h;
    h = hidden2_.forward(hidden_.forward(norm_.forward(h), step.mode), step.mode);
    const Tensor p = ops::softmax(out_.forward(h, step.mode));
    const Tensor chosen = ops::topk(ops::add(p, bias_.get()), top_k_).indices;
    return experts_.forward(x, {ops::gather(p, -1, chosen), chosen}, step.mode);
  }
  void print(PlanRows& rows) const {
    for (const Linear* part : {&down_, &hidden_, &hidden2_, &out_}) ttt::print(part->plan(), rows);
    ttt::print(experts_.plan(), rows);
  }

 private:
  static Moe experts(const BuildContext& c, const MoeSpec& spec) {
    MoeConfig config;
    config.spec = spec, config.name = c.name / "ffn";
    config.gate = c.weight("ffn.experts.gate"), config.up = c.weight("ffn.experts.up");
    config.down = c.weight("ffn.experts.down");
    return Moe::from_config(config, c.target, c.home);
  }

  std::int64_t top_k_;
  Linear down_, hidden_, hidden2_, out_;
  RmsNorm norm_;
  LazyWeight scale_, bias_;
  Moe experts_;
};

// h = (x + b_x) s_x + (attention(norm(x)) + b_y) s_y, and again with the experts.
class ScaledBlock final : public Block {
 public:
  ScaledBlock(const BuildContext& c, const HfConfig& p)
      : attn_norm_(c.rms_norm("attn_norm")),
        ffn_norm_(c.rms_norm("ffn_norm")),
        attention_(c, std::get<AttentionSpec>(parse_mixer(p.json("attention"))), p.get<int>("mix_kernel")),
        experts_(c, std::get<MoeSpec>(parse_ffn(p.json("moe")))) {
    for (const char* part : {"embed", "attn.x", "attn.y", "ffn.x", "ffn.y"})
      affine_[part] = {c.vector(std::string(part) + "_bias"), c.vector(std::string(part) + "_scale")};
  }
  Tensor forward(const Tensor& x0, const Step& step) const override {
    const Tensor x = affine_.at("embed").first ? affine(x0, "embed") : x0;
    const Tensor h =
        ops::add(affine(x, "attn.x"), affine(attention_.forward(attn_norm_.forward(x), step), "attn.y"));
    return ops::add(affine(h, "ffn.x"), affine(experts_.forward(ffn_norm_.forward(h), step), "ffn.y"));
  }
  void print(PlanRows& rows) const override { attention_.print(rows), experts_.print(rows); }

 private:
  Tensor affine(const Tensor& x, const char* part) const {
    const auto& [bias, scale] = affine_.at(part);
    return ops::mul(ops::add(x, bias.get(), {.dtype = x.dtype()}), scale.get(), {.dtype = x.dtype()});
  }

  RmsNorm attn_norm_, ffn_norm_;
  ConvolutionalAttention attention_;
  ExpertNetwork experts_;
  std::map<std::string, std::pair<LazyWeight, LazyWeight>> affine_;
};

static CustomSpec block(const HfConfig& c, int layer, std::int64_t dim) {
  const AttentionSpec attn = attention(c, layer);
  const MoeSpec moe{.experts = c.get<int>("num_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("moe_intermediate_size"),
                    .act = c.act()};
  const std::int64_t q = std::int64_t{attn.heads} * attn.head_dim,
                     kv = std::int64_t{attn.kv_heads} * attn.head_dim;
  const std::int64_t channels = q + kv, router = c.get<int>("router_hidden_size"), classes = moe.experts + 1;
  const int conv = c.get_or("cca_time0", 2), mix = c.get_or("cca_time1", 2);
  CustomSpec s{.name = "scaled_block",
               .parameters = "{\"attention\": " + to_json(MixerSpec{attn}) + ", \"moe\": " +
                             to_json(FfnSpec{moe}) + ", \"mix_kernel\": " + std::to_string(mix) + "}",
               .state = {{"conv", (conv - 1) * channels}, {"value", kv / 2}},
               .caches = {kv_cache(attn)}};
  for (int i = 1; i < mix; ++i) s.state.push_back({"mix." + std::to_string(i), channels});
  using Names = std::initializer_list<const char*>;
  const auto vectors = [&](Names names, std::int64_t n) {
    for (const char* name : names) s.weights.push_back(vector_slot(name, n));
  };
  const auto matrices = [&](Names names, std::int64_t rows, std::int64_t cols) {
    for (const char* name : names) s.weights.push_back(matrix_slot(name, rows, cols));
  };
  for (const char* kind : {"_bias", "_scale"}) {
    if (layer == 0) s.weights.push_back(vector_slot(std::string("embed") + kind, dim));
    for (const std::string part : {"attn.x", "attn.y", "ffn.x", "ffn.y"})
      s.weights.push_back(vector_slot(part + kind, dim));
  }
  vectors({"attn_norm", "ffn_norm"}, dim);
  vectors({"attn.conv.bias", "attn.mix.bias"}, channels);
  vectors({"attn.temperature"}, attn.kv_heads);
  s.weights.push_back(table_slot("attn.conv", channels, conv));
  s.weights.push_back(table_slot("attn.mix", channels * attn.head_dim, mix));
  matrices({"attn.q"}, q, dim), matrices({"attn.k"}, kv, dim), matrices({"attn.o"}, dim, q);
  matrices({"attn.v", "attn.v_delayed"}, kv / 2, dim);
  if (layer > 0) vectors({"ffn.router.state_scale"}, router);
  vectors({"ffn.router.down.bias", "ffn.router.norm", "ffn.router.fc1.bias", "ffn.router.fc2.bias"}, router);
  matrices({"ffn.router.down"}, router, dim);
  matrices({"ffn.router.fc1", "ffn.router.fc2"}, router, router);
  matrices({"ffn.router.out"}, classes, router);
  vectors({"ffn.router.balance"}, classes);
  for (const WeightSlot& slot : weight_slots(FfnSpec{moe}, static_cast<int>(dim), "ffn"))
    if (slot.name != "ffn.router") s.weights.push_back(slot);
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  c.require("attention_bias", false);
  ModelSpec m = decoder(c);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.lm_head_bias = c.get_or("lm_head_bias", false);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.block = block(c, i, m.dim)});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  WeightMap map = hf_decoder_names().append(hf_moe_names());
  const std::string attn = "{layer}.self_attn.", gate = "{layer}.mlp.gate.", router = "{layer}.ffn.router.";
  map.rename("input_hidden_states_bias", "layers.0.embed_bias")
      .rename("input_hidden_states_scale", "layers.0.embed_scale")
      .rename(attn + "qkv_proj.q_proj", "{layer}.attn.q")
      .rename(attn + "qkv_proj.k_proj", "{layer}.attn.k")
      .rename(attn + "qkv_proj.v_proj_current", "{layer}.attn.v")
      .rename(attn + "qkv_proj.v_proj_delayed", "{layer}.attn.v_delayed")
      .rename(attn + "qkv_proj.conv_qk_depthwise", "{layer}.attn.conv")
      .rename(attn + "qkv_proj.conv_qk_grouped", "{layer}.attn.mix")
      .rename(attn + "qk_norm.temp", "{layer}.attn.temperature")
      .rename(gate + "balancing_biases", router + "balance")
      .rename(gate + "down_proj", router + "down")
      .rename(gate + "router_states_scale", router + "state_scale")
      .rename(gate + "router_mlp.out_proj", router + "out")
      .split_gate_up("{layer}.mlp.experts.gate_up_proj", "{layer}.ffn.experts")
      .rename("{layer}.mlp.experts.down_proj", "{layer}.ffn.experts.down");
  for (const std::string part : {"norm", "fc1", "fc2"})
    map.rename(gate + "router_mlp." + part, router + part);
  for (const auto& [from, to] : {std::pair<std::string, std::string>{"attention", "attn"}, {"mlp", "ffn"}}) {
    for (const std::string part : {"bias", "scale"}) {
      const std::string scale = "{layer}.post_" + from + "_residual_scale.";
      map.rename(scale + "residual_" + part, "{layer}." + to + ".x_" + part)
          .rename(scale + "hidden_states_" + part, "{layer}." + to + ".y_" + part);
    }
  }
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["scaled_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<ScaledBlock>(c, HfConfig::parse(p));
  };
}

static const Family zaya{"zaya",
                         {.architectures = {"ZayaForCausalLM"},
                          .describe = describe,
                          .weights = weights,
                          .ignore = {"rope_parameters.hybrid_sliding"},
                          .modules = modules}};

}  // namespace ttt::models

// Recurrent Gemma (Griffin, De et al. 2024): real-gated linear recurrent units, every third layer attention
// in a window.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/linear.h"

namespace ttt::models {

// h = conv(x W_x);  r, i = sigmoid(h R + b_r), sigmoid(h I + b_i) by blocks of the width;  log a = r log_a
// s = a s + sqrt(1 - a^2) i h, the factor 1 at position 0;  y = (s * gelu(x W_y)) W_o
class RecurrentUnit final : public Mixer {
 public:
  explicit RecurrentUnit(const BuildContext& c)
      : name_(c.name),
        y_(linear(c, "y", {UnaryOp::gelu_tanh})),
        x_(linear(c, "x", {})),
        o_(linear(c, "o", {})),
        conv_(CausalConv1d::from_config(
            {.weight = c.weight("conv"), .bias = c.weight("conv.bias"), .name = c.name / "conv"}, c.target,
            c.home)) {
    for (const auto& [weight, part] : {std::pair{&input_, "input_gate"},
                                       {&input_bias_, "input_gate_bias"},
                                       {&recurrent_, "recurrent_gate"},
                                       {&recurrent_bias_, "recurrent_gate_bias"},
                                       {&log_a_, "log_a"}})
      *weight = c.home.bind(c.weight(part), vector_dtype);
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor h = ops::typecast(conv_.forward(x_.forward(x, step.mode), step), DataType::f32);
    const Tensor log_a = ops::mul(gate(h, recurrent_, recurrent_bias_), log_a_.get());
    const Tensor factor =
        ops::unary(ops::mul(ops::unary(ops::mul(log_a, 2.0f), {UnaryOp::expm1}), -1.0f), {UnaryOp::sqrt});
    const Tensor input =
        ops::mul(ops::mul(h, gate(h, input_, input_bias_)), ops::maximum(factor, beginnings(step)));
    const Tensor state =
        ops::linear_recurrence(ops::unary(log_a, {UnaryOp::exp}), input,
                               step.state->slots_of(name_.layer, "lru", step.iteration), step.segments);
    tap(state, name_, "lru");
    return o_.forward(ops::mul(ops::typecast(state, x.dtype()), y_.forward(x, step.mode)), step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&x_, &y_, &o_}) ttt::print(part->plan(), rows);
    ttt::print(conv_.plan(), rows);
  }

 private:
  static Linear linear(const BuildContext& c, const char* part, Activation act) {
    return Linear::from_config({.weight = c.weight(part),
                                .bias = c.weight(std::string(part) + ".bias"),
                                .name = c.name / part,
                                .activation = act},
                               c.target, c.home);
  }

  // sigmoid of a matrix of its own for each block of h's columns
  Tensor gate(const Tensor& h, const LazyWeight& weight, const LazyWeight& bias) const {
    const std::int64_t width = weight.cols(), blocks = weight.rows() / width;
    const Tensor parts = ops::nlp_create_qkv_heads(h, blocks, 0, width).q;
    const Tensor z =
        ops::nlp_concat_heads(ops::matmul(parts, weight.get().reshape({1, blocks, width, width})));
    return ops::add(z, bias.get(), {.activation = {UnaryOp::sigmoid}});
  }

  // 1 in the rows at position 0, else 0: the same for all layers of a step.
  static const Tensor& beginnings(const Step& step) {
    Tensor& rows = step.slots["recurrent_unit.beginnings"];
    if (!rows)
      rows = step.input({1, 1, step.tokens, 1}, DataType::f32, [](const Step& s, std::span<float> values) {
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = s.positions[i] == 0 ? 1.0f : 0.0f;
      });
    return rows;
  }

  ModuleName name_;
  Linear y_, x_, o_;
  CausalConv1d conv_;
  LazyWeight input_, input_bias_, recurrent_, recurrent_bias_, log_a_;
};

static CustomSpec recurrent_unit(const HfConfig& c) {
  const std::int64_t dim = c.get<int>("hidden_size"), width = c.get_or("lru_width", static_cast<int>(dim)),
                     kernel = c.get_or("conv1d_width", 4), block = width / c.heads();
  const auto vector = [](const char* name, std::int64_t n) {
    return WeightSlot{.name = name, .role = WeightRole::vector, .rows = 1, .cols = n};
  };
  const auto table = [](const char* name, std::int64_t rows, std::int64_t cols) {
    return WeightSlot{.name = name, .role = WeightRole::vector, .rows = rows, .cols = cols};
  };
  return {.name = "recurrent_unit",
          .weights = {{.name = "x", .rows = width, .cols = dim},
                      vector("x.bias", width),
                      {.name = "y", .rows = width, .cols = dim},
                      vector("y.bias", width),
                      table("conv", width, kernel),
                      vector("conv.bias", width),
                      table("input_gate", width, block),
                      vector("input_gate_bias", width),
                      table("recurrent_gate", width, block),
                      vector("recurrent_gate_bias", width),
                      vector("log_a", width),
                      {.name = "o", .rows = dim, .cols = width},
                      vector("o.bias", dim)},
          .state = {{"conv", (kernel - 1) * width}, {"lru", width}}};
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = 1 << 20,  // windows and states have one size at every length
              .norm = {.eps = c.norm_eps(1e-6f)},
              .tied_embeddings = c.get_or("tie_word_embeddings", true)};
  m.embed_scale = round_to_bf16(std::sqrt(static_cast<float>(m.dim)));  // the reference's factor is bf16
  m.logit_softcap = c.find<float>("logits_soft_cap");
  const MlpSpec ffn{.hidden = c.get<int>("intermediate_size") / 2, .act = c.act(), .bias = true};
  const auto kinds = c.get_or("block_types", std::vector<std::string>{"recurrent", "recurrent", "attention"});
  for (int i = 0; i < c.layers(); ++i) {
    LayerSpec layer{.ffn = ffn};
    if (const std::string& kind = kinds[static_cast<std::size_t>(i) % kinds.size()];
        kind == "attention" || kind == "sliding_attention") {
      AttentionSpec attn = attention(c, i);
      attn.window = c.get<int>("attention_window_size");
      attn.out_bias = true;
      layer.mixer = attn;
    } else {
      layer.mixer = recurrent_unit(c);
    }
    m.layers.push_back(layer);
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  WeightMap map = hf_decoder_names();
  map.rename("final_norm", "norm")
      .rename("{layer}.temporal_pre_norm", "{layer}.attn_norm")
      .rename("{layer}.channel_pre_norm", "{layer}.ffn_norm")
      .rename("{layer}.temporal_block.linear_x", "{layer}.attn.x")
      .rename("{layer}.temporal_block.linear_y", "{layer}.attn.y")
      .rename("{layer}.temporal_block.linear_out", "{layer}.attn.o")
      .rename("{layer}.temporal_block.conv_1d", "{layer}.attn.conv")
      .rename("{layer}.temporal_block.rg_lru.input_gate_weight", "{layer}.attn.input_gate")
      .rename("{layer}.temporal_block.rg_lru.input_gate_bias", "{layer}.attn.input_gate_bias")
      .rename("{layer}.temporal_block.rg_lru.recurrent_gate_weight", "{layer}.attn.recurrent_gate")
      .rename("{layer}.temporal_block.rg_lru.recurrent_gate_bias", "{layer}.attn.recurrent_gate_bias")
      .rename("{layer}.temporal_block.rg_lru.recurrent_param", "{layer}.attn.log_a")
      .apply("*.log_a", unary(UnaryOp::softplus))
      .apply("*.log_a", multiply(-8))
      .apply("*_norm", add(1))
      .apply("norm", add(1));
  for (const std::string part : {"q", "k", "v", "o"})
    map.rename("{layer}.temporal_block." + part + "_proj", "{layer}.attn." + part);
  for (const std::string part : {"gate", "up", "down"})
    map.rename("{layer}.mlp_block." + part + "_proj", "{layer}.ffn." + part);
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["recurrent_unit"] = [](const BuildContext& c, std::string_view) {
    return std::make_unique<RecurrentUnit>(c);
  };
}

static const Family recurrent_gemma{"recurrent_gemma",
                                    {.architectures = {"RecurrentGemmaForCausalLM"},
                                     .describe = describe,
                                     .weights = weights,
                                     .ignore = {"final_w_init_variance_scale", "w_init_variance_scale"},
                                     .modules = modules}};

}  // namespace ttt::models

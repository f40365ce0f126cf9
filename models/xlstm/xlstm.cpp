// xLSTM (Beck et al. 2024, 7B): mLSTM layers, a matrix memory per head with exponential input gates; gated
// SiLU MLPs.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/linear.h"

namespace ttt::models {

// i, f = cap(x W_i), cap(x W_f);  m' = max(log sigmoid(f) + m, i);  keep, enter = e^(log sigmoid(f) + m -
// m'), e^(i - m') C = keep C + enter k v^T;  n = keep n + enter k;  h = C^T q / (max(|n q|, e^-m') + eps) y =
// (sigmoid(x W_o) * norm(h)) W,  q scaled by its width, the norm a layer norm of each head.
class MatrixLstm final : public Mixer {
 public:
  MatrixLstm(const BuildContext& c, const HfConfig& p)
      : name_(c.name),
        heads_(p.get<int>("heads")),
        cap_(p.get<float>("gate_soft_cap")),
        eps_(p.get<float>("eps")),
        norm_eps_(c.spec.norm.eps),
        q_(linear(c, "q", {}, DataType::f32)),
        k_(linear(c, "k", {}, DataType::f32)),
        v_(linear(c, "v", {}, DataType::f32)),
        input_(linear(c, "input_gate", {}, DataType::f32)),
        forget_(linear(c, "forget_gate", {}, DataType::f32)),
        gate_(linear(c, "gate", {UnaryOp::sigmoid}, {})),
        o_(linear(c, "o", {}, {})),
        norm_(c.home.bind(c.weight("norm"), vector_dtype)) {}

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Mode mode = step.mode;
    const Tensor q = q_.forward(x, mode), k = k_.forward(x, mode), v = v_.forward(x, mode);
    const std::int64_t key = q.dim(3) / heads_, value = v.dim(3) / heads_, tokens = step.tokens;
    const Tensor in = capped(input_.forward(x, mode));
    const Tensor forget =
        ops::mul(ops::unary(ops::mul(capped(forget_.forward(x, mode)), -1.0f), {UnaryOp::softplus}), -1.0f);
    const Tensor top = ops::linear_recurrence(forget, in, slots(step, "top"), step.segments,
                                              {.max_plus = true, .exclusive = true});
    const Tensor kept = ops::add(forget, top), next_top = ops::maximum(kept, in);
    const Tensor log_keep = ops::subtract(kept, next_top),
                 enter = ops::subtract(in, next_top, {.activation = {UnaryOp::exp}});
    const Tensor entering =
        ops::mul(k.reshape({1, tokens, heads_, key}), enter.reshape({1, tokens, heads_, 1}))
            .reshape({1, 1, tokens, heads_ * key});
    const Tensor query = ops::mul(q, 1 / std::sqrt(static_cast<float>(key)));
    const ops::SelectiveScanOptions options{.dt = &log_keep, .scale_input = false};
    const Tensor ones = ops::add(ops::mul(enter, 0.0f), 1.0f);
    const Tensor memory = ops::selective_scan(v, entering, query, slots(step, "memory"), step.segments,
                                              heads_, heads_, options);
    const Tensor length = ops::selective_scan(ones, entering, query, slots(step, "length"), step.segments,
                                              heads_, heads_, options);
    const Tensor floor = ops::unary(ops::mul(next_top, -1.0f), {UnaryOp::exp});
    const Tensor divisor = ops::add(ops::maximum(ops::unary(length, {UnaryOp::abs}), floor), eps_);
    const Tensor h =
        ops::div(memory.reshape({1, tokens, heads_, value}), divisor.reshape({1, tokens, heads_, 1}));
    const Tensor normed =
        ops::mul(ops::layer_norm(h, {.epsilon = norm_eps_}).reshape(v.shape()), norm_.get());
    tap(normed, name_, "norm");
    const Tensor gate = gate_.forward(x, mode);
    return o_.forward(ops::mul(gate, ops::typecast(normed, gate.dtype())), mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&q_, &k_, &v_, &input_, &forget_, &gate_, &o_}) ttt::print(part->plan(), rows);
  }

 private:
  static Linear linear(const BuildContext& c, const std::string& part, Activation act,
                       std::optional<DataType> out) {
    return Linear::from_config({.weight = c.weight(part),
                                .bias = c.weight(part + ".bias"),
                                .name = c.name / part,
                                .activation = act,
                                .out_dtype = out},
                               c.target, c.home);
  }
  const Tensor& slots(const Step& step, const char* part) const {
    return step.state->slots_of(name_.layer, part, step.iteration);
  }
  Tensor capped(const Tensor& x) const {
    return ops::mul(ops::unary(ops::mul(x, 1 / cap_), {UnaryOp::tanh}), cap_);
  }

  ModuleName name_;
  std::int64_t heads_;
  float cap_, eps_, norm_eps_;
  Linear q_, k_, v_, input_, forget_, gate_, o_;
  LazyWeight norm_;
};

static ModelSpec describe(const HfConfig& c) {
  c.require("use_bias", false);
  c.require("add_out_norm", true);
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = 1 << 20,  // the state has one size at every length
              .norm = {.eps = c.get_or("norm_eps", 1e-6f)},
              .tied_embeddings = c.get_or("tie_word_embeddings", false),
              .logit_softcap = c.find<float>("output_logit_soft_cap")};
  const std::int64_t dim = m.dim, heads = c.heads(),
                     qk =
                         static_cast<std::int64_t>(static_cast<float>(dim) * c.get_or("qk_dim_factor", 0.5f)),
                     v = static_cast<std::int64_t>(static_cast<float>(dim) * c.get_or("v_dim_factor", 1.0f));
  CustomSpec mlstm{.name = "matrix_lstm",
                   .parameters = "{\"heads\": " + std::to_string(heads) +
                                 ", \"gate_soft_cap\": " + std::to_string(c.get_or("gate_soft_cap", 15.0f)) +
                                 ", \"eps\": " + c.json("eps") + "}",
                   .state = {{"top", heads}, {"memory", qk / heads * v}, {"length", qk}}};
  for (const auto& [name, rows] :
       {std::pair{"q", qk}, {"k", qk}, {"v", v}, {"gate", v}, {"input_gate", heads}, {"forget_gate", heads}})
    mlstm.weights.push_back({.name = name, .rows = rows, .cols = dim});
  for (const char* name : {"input_gate.bias", "forget_gate.bias"})
    mlstm.weights.push_back({.name = name, .role = WeightRole::vector, .rows = 1, .cols = heads});
  mlstm.weights.push_back({.name = "norm", .role = WeightRole::vector, .rows = 1, .cols = v});
  mlstm.weights.push_back({.name = "o", .rows = dim, .cols = v});
  const int multiple = c.get_or("ffn_round_up_to_multiple_of", 64);
  const int hidden = static_cast<int>(static_cast<float>(dim) * c.get_or("ffn_proj_factor", 2.667f));
  const MlpSpec ffn{.hidden = (hidden + multiple - 1) / multiple * multiple};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = mlstm, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  WeightMap map;
  map.strip("backbone.").layers("blocks.{i}");
  for (const std::string part : {"q", "k", "v"})
    map.rename("{layer}.mlstm_layer." + part, "{layer}.attn." + part);
  return map.rename("embeddings", "embed")
      .rename("{layer}.norm_mlstm", "{layer}.attn_norm")
      .rename("{layer}.mlstm_layer.igate_preact", "{layer}.attn.input_gate")
      .rename("{layer}.mlstm_layer.fgate_preact", "{layer}.attn.forget_gate")
      .rename("{layer}.mlstm_layer.ogate_preact", "{layer}.attn.gate")
      .rename("{layer}.mlstm_layer.multihead_norm", "{layer}.attn.norm")
      .rename("{layer}.mlstm_layer.out_proj", "{layer}.attn.o")
      .split("{layer}.mlstm_layer.qkv_opreact",
             {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v", "{layer}.attn.gate"})
      .split("{layer}.mlstm_layer.ifgate_preact", {"{layer}.attn.input_gate", "{layer}.attn.forget_gate"})
      .rename("{layer}.norm_ffn", "{layer}.ffn_norm")
      .rename("{layer}.ffn.proj_up_gate", "{layer}.ffn.gate")
      .rename("{layer}.ffn.proj_up", "{layer}.ffn.up")
      .split_gate_up("{layer}.ffn.proj_up_gate_z")
      .rename("{layer}.ffn.proj_down", "{layer}.ffn.down")
      .rename("out_norm", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static void modules(CustomModules& m) {
  m.mixers["matrix_lstm"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<MatrixLstm>(c, HfConfig::parse(parameters));
  };
}

static const Family xlstm{
    "xlstm",
    {.architectures = {"xLSTMForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"embedding_dim", "chunk_size", "*_kernel", "autocast_kernel_dtype", "inference_state_dtype",
                "max_inference_chunksize", "mode", "num_blocks", "norm_reduction_force_float32",
                "return_last_states", "weight_mode"},
     .modules = modules}};

}  // namespace ttt::models

// Inkling 2: lengths of queries and keys are bounded, every token has a sink of its own, layers without
// windows make the weights of their short convolutions, and layers attend to the residuals of earlier blocks
// of layers.
#include "clipped_attention.h"
#include "ttt/convert/model_entry.h"
#include "ttt/modules/moe.h"

namespace ttt::models {

static Tensor softcap(const Tensor& x, float cap) {
  return ops::mul(ops::unary(ops::mul(x, 1 / cap), {UnaryOp::tanh}), cap);
}

// y = sum over the chosen experts of p (cap(gate) sigmoid(gate) cap(up)) W_down
class CappedExperts {
 public:
  CappedExperts(const BuildContext& c, const HfConfig& p, const MoeSpec& spec)
      : gate_cap_(p.get<float>("gate_cap")),
        up_cap_(p.get<float>("up_cap")),
        router_(Router::from_config({.spec = spec.router,
                                     .experts = spec.experts,
                                     .top_k = spec.top_k,
                                     .weight = c.weight("ffn.router"),
                                     .correction_bias = c.weight("ffn.router.correction_bias"),
                                     .name = c.name / "ffn.router"},
                                    c.target, c.home)) {
    for (const std::string part : {"ffn.experts.gate", "ffn.experts.up", "ffn.experts.down"})
      weights_.push_back(
          c.home.bind(c.weight(part).experts(spec.experts), c.target.weight_dtype((c.name / part).path)));
  }
  Tensor forward(const Tensor& x, Mode mode) const {
    const auto [p, chosen] = router_.forward(x, mode);
    const auto linear = [&, &chosen = chosen](const Tensor& in, std::size_t i) {
      return ops::sparse_matmul(in, weights_[i].get(), chosen, nullptr, DataType::f32);
    };
    const Tensor gate = linear(x, 0), up = softcap(linear(x, 1), up_cap_);
    const Tensor units = ops::mul(softcap(gate, gate_cap_), gate, {.rhs_activation = {UnaryOp::sigmoid}});
    const Tensor each = linear(ops::mul(units, up, {.dtype = x.dtype()}), 2);
    return ops::matmul(p.reshape({1, x.dim(2), 1, p.dim(3)}), each, {.dtype = x.dtype()}).reshape(x.shape());
  }
  void print(PlanRows& rows) const { ttt::print(router_.plan(), rows); }

 private:
  float gate_cap_, up_cap_;
  Router router_;
  std::vector<LazyWeight> weights_;
};

// Learned queries attend to what stood in the stream after each block of layers, and to x:
//   a = conv(attention(norm(depth(blocks, x))));  where a block of layers begins: blocks += x, h = a;  else h
//   = x + a y = h + conv(experts(norm(depth(blocks, h))))
class DepthBlock final : public Block {
 public:
  DepthBlock(const BuildContext& c, const HfConfig& p)
      : begins_(p.get<bool>("begins")),
        attn_in_(c.vector("attn_in")),
        ffn_in_(c.vector("ffn_in")),
        out_(c.vector("out")),
        ffn_norm_(c.rms_norm("ffn_norm")),
        attention_(c, p),
        experts_(c, p, std::get<MoeSpec>(parse_ffn(p.json("moe")))),
        attn_conv_(c, "attn_conv", 1 / std::sqrt(static_cast<float>(c.weight("attn_conv").cols()) + 1)),
        ffn_conv_(c, "ffn_conv", 1 / std::sqrt(static_cast<float>(c.weight("ffn_conv").cols()) + 1)) {
    for (const char* part : {"attn_norm", "q_norm", "k_norm", "v_norm"})
      if (c.weight(part)) norms_.push_back(c.rms_norm(part));
  }
  Tensor forward(const Tensor& x, const Step& step) const override {
    const std::vector<Tensor> depths = attn_in_ ? depth(attn_in_, x, step) : std::vector<Tensor>{x};
    std::vector<Tensor> in;  // of queries, keys and values: one for all, or three
    for (std::size_t i = 0; i < 3; ++i)
      in.push_back(norms_[std::min(i, norms_.size() - 1)].forward(depths[std::min(i, depths.size() - 1)]));
    Tensor h = attn_conv_.forward(attention_.forward(in[0], in[1], in[2], step), step);
    if (begins_) {
      step.slots["blocks"] = stacked(x, step);
    } else {
      h = ops::add(x, std::move(h));
    }
    const Tensor n = ffn_norm_.forward(depth(ffn_in_, h, step).front());
    const Tensor y = ops::add(h, ffn_conv_.forward(experts_.forward(n, step.mode), step));
    return out_ ? depth(out_, y, step).front() : y;
  }
  void print(PlanRows& rows) const override { attention_.print(rows), experts_.print(rows); }

 private:
  // What stood in the stream after each block, and x: [1, tokens, n, dim].
  static Tensor stacked(const Tensor& x, const Step& step) {
    const Tensor row = x.reshape({1, step.tokens, 1, x.dim(3)});
    const auto found = step.slots.find("blocks");
    return found == step.slots.end() ? row : ops::concat(std::vector<Tensor>{found->second, row}, 2);
  }
  static std::vector<Tensor> depth(const LazyWeight& queries, const Tensor& x, const Step& step) {
    const Tensor s = ops::rms_norm(stacked(x, step), {.epsilon = 1e-6f, .dtype = DataType::f32});
    const Tensor scores = ops::mul(ops::matmul(queries.get(), s, {.transpose_b = true}),
                                   1 / std::sqrt(static_cast<float>(x.dim(3))));
    const Tensor mixed = ops::matmul(ops::softmax(scores), s, {.dtype = x.dtype()});
    std::vector<Tensor> results;
    for (std::int64_t i = 0; i < queries.rows(); ++i)
      results.push_back(ops::slice(mixed, 2, i, i + 1).reshape(x.shape()));
    return results;
  }

  bool begins_;
  LazyWeight attn_in_, ffn_in_, out_;  // queries [n, dim]
  std::vector<RmsNorm> norms_;
  RmsNorm ffn_norm_;
  ClippedAttention attention_;
  CappedExperts experts_;
  ResidualConv attn_conv_, ffn_conv_;
};

static CustomSpec block(const HfConfig& c, int layer, std::int64_t dim) {
  const AttentionSpec attn = layer_attention(c, layer);
  const bool slides = attn.window.has_value();
  const MoeSpec moe{.experts = c.get<int>("n_routed_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("moe_intermediate_size"),
                    .router = {.score = RouterScore::sigmoid,
                               .renormalize = true,
                               .renormalize_eps = 1e-20f,
                               .scale = c.get_or("route_scale", 1.0f),
                               .correction_bias = true}};
  CustomSpec s = layer_block(c, attn, "depth_block", dim);
  s.parameters = "{\"attention\": " + to_json(MixerSpec{attn}) + ", \"moe\": " + to_json(FfnSpec{moe});
  for (const auto& [name, key] : {std::pair{"longest", "qk_l2_clip_threshold"},
                                  {"longest_relative", "rel_l2_clip_threshold"},
                                  {"alpha", "log_scaling_alpha"},
                                  {"floor", "log_scaling_n_floor"},
                                  {"gate_cap", "mlp_gate_softcap"},
                                  {"up_cap", "mlp_up_softcap"}})
    s.parameters += ", \"" + std::string(name) + "\": " + c.json(key);
  s.parameters += std::string(", \"begins\": ") +
                  (layer % c.get<int>("n_layers_per_attn_res_block") == 0 ? "true" : "false") + "}";
  const std::int64_t heads = attn.heads, q = heads * attn.head_dim,
                     kv = std::int64_t{attn.kv_heads} * attn.head_dim,
                     kernel = c.get<int>("conv_kernel_size");
  s.weights.insert(s.weights.end(),
                   {table_slot("ffn_in", 1, dim), matrix_slot("attn.gate", q, dim),
                    matrix_slot("attn.sink", heads, dim), table_slot("attn.q_scale", heads, attn.head_dim),
                    table_slot("attn.r_scale", heads, c.get<int>("d_rel"))});
  if (layer > 0) s.weights.push_back(table_slot("attn_in", slides ? 1 : 3, dim));
  if (layer + 1 == c.layers()) s.weights.push_back(table_slot("out", 1, dim));
  for (const char* norm : {"attn_norm", "q_norm", "k_norm", "v_norm"})
    if (slides == (norm[0] == 'a')) s.weights.push_back(vector_slot(norm, dim));
  for (const std::string part : {"attn.k_conv", "attn.v_conv"}) {
    s.weights.push_back(slides ? table_slot(part, kv, kernel) : table_slot(part, kernel, kv));
    if (slides) s.state.push_back({part, (kernel - 1) * kv});
    if (!slides) s.weights.push_back(matrix_slot(part + ".dynamic", attn.kv_heads * kernel, dim));
    for (int i = 1; !slides && i < kernel; ++i) s.state.push_back({part + "." + std::to_string(i), kv});
  }
  for (const WeightSlot& slot : weight_slots(FfnSpec{moe}, static_cast<int>(dim), "ffn"))
    s.weights.push_back(slot);
  return s;
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  c.require("scoring_func", "sigmoid");
  c.require("hidden_act", "silu");
  ModelSpec m = decoder(c);
  m.vocab = c.get_or("unpadded_vocab_size", m.vocab);
  m.embed_norm = m.norm;
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.block = block(c, i, m.dim)});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map;
  map.strip("model.")
      .strip("llm.")
      .rename("embed_norm", "embed_norm")
      .rename("norm", "norm")
      .ignore("visual.*");
  map.slice("embed", "embed", 0, m.vocab).slice("unembed", "lm_head", 0, m.vocab);
  map.rename("{layer}.", "{layer}.",
             {{"attn_norm", "attn_norm"},
              {"mlp_norm", "ffn_norm"},
              {"q_input_norm", "q_norm"},
              {"k_input_norm", "k_norm"},
              {"v_input_norm", "v_norm"},
              {"attn_sconv", "attn_conv"},
              {"mlp_sconv", "ffn_conv"},
              {"attn.wq_du", "attn.q"},
              {"attn.wk_dv", "attn.k"},
              {"attn.wv_dv", "attn.v"},
              {"attn.wr_du", "attn.r"},
              {"attn.wo_ud", "attn.o"},
              {"attn.gate_attn", "attn.gate"},
              {"attn.attn_sink_proj", "attn.sink"},
              {"attn.q_l2_clip.scale", "attn.q_scale"},
              {"attn.rel_l2_clip.scale", "attn.r_scale"},
              {"attn.rel_logits_proj.proj", "attn.profiles"},
              {"attn.k_sconv", "attn.k_conv"},
              {"attn.v_sconv", "attn.v_conv"},
              {"attn.k_sconv.static_w", "attn.k_conv"},
              {"attn.v_sconv.static_w", "attn.v_conv"},
              {"attn.k_sconv.weight_proj", "attn.k_conv.dynamic"},
              {"attn.v_sconv.weight_proj", "attn.v_conv.dynamic"},
              {"mlp.gate", "ffn.router"},
              {"mlp.gate.bias", "ffn.router.correction_bias"},
              {"mlp.experts.w2_weight", "ffn.experts.down"}});
  map.split("{layer}.mlp.experts.w13_weight", {"{layer}.ffn.experts.gate", "{layer}.ffn.experts.up"},
            {.interleaved = true});
  map.rename("attn_res.mlp_queries.{i}", "layers.{i}.ffn_in")
      .rename("attn_res.output_query", "layers." + std::to_string(m.layers.size() - 1) + ".out");
  for (std::size_t i = 1; i < m.layers.size(); ++i)  // the first layer has none
    map.rename("attn_res.attn_queries." + std::to_string(i - 1), "layers." + std::to_string(i) + ".attn_in");
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["depth_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<DepthBlock>(c, HfConfig::parse(p));
  };
}

static const Family inkling2{"inkling2",
                             {.architectures = {"Inkling2ForCausalLM", "Inkling2ForConditionalGeneration"},
                              .describe = describe,
                              .weights = weights,
                              .modules = modules}};

}  // namespace ttt::models

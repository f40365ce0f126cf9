// Doge: dynamic mask attention (Shi et al. 2025): values say how much their key is worth, and of the keys
// that a query sees only the most valuable count; the stream is multiplied by a vector wherever something is
// added.
#include <algorithm>
#include <functional>
#include <limits>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/attention.h"

namespace ttt::models {

// worth = exp(a softplus(v W_dt)), one per key and kv head; it is added to the key's scores, and of the keys
// that a query sees the `keep` most worth remain.
class DynamicMaskAttention final : public Mixer {
 public:
  DynamicMaskAttention(const BuildContext& c, const HfConfig& p)
      : layer_(c.name.layer),
        keep_(p.get<int>("keep")),
        spec_(std::get<AttentionSpec>(parse_mixer(p.json("attention")))),
        q_(c.linear("q")),
        k_(c.linear("k")),
        v_(c.linear("v")),
        dt_(c.linear("dt", {UnaryOp::softplus}, DataType::f32)),
        o_(c.linear("o")),
        q_norm_(c.rms_norm("q_norm")),
        k_norm_(c.rms_norm("k_norm")),
        rope_(Rope::from_config({.spec = *spec_.rope, .head_dim = spec_.head_dim, .name = c.name / "rope"},
                                c.target)),
        a_(c.vector("a")) {}

  Tensor forward(const Tensor& x, const Step& step) const override {
    const auto heads = [&](const Tensor& t, int n) {
      return ops::nlp_create_qkv_heads(t, n, 0, spec_.head_dim).q;
    };
    const KvCache& cache = step.state->cache(layer_);
    const auto rotated = [&](const Linear& linear, const RmsNorm& norm, int n) {
      return rope_.forward(norm.forward(heads(linear.forward(x, step.mode), n)), step);
    };
    const Tensor context =
        attend(rotated(q_, q_norm_, spec_.heads), rotated(k_, k_norm_, spec_.kv_heads),
               heads(v_.forward(x, step.mode), spec_.kv_heads), cache, step,
               {.mask = [&](const SequenceRows& rows) { return mask(cache, step, rows); }});
    return o_.forward(context, step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&q_, &k_, &v_, &dt_, &o_}) ttt::print(part->plan(), rows);
  }

 private:
  // [1, heads, rows, keys] of one sequence. Which of several keys of equal worth remain is left to the
  // selection, the same as the reference's (torch.topk), on the host.
  Tensor mask(const KvCache& cache, const Step& step, const SequenceRows& rows) const {
    const Tensor v = ops::nlp_concat_heads(cached_rows(cache.v, step, rows));
    const Tensor worth = ops::unary(ops::mul(dt_.forward(v, step.mode), a_.get()), {UnaryOp::exp});
    const std::vector<float> values = to_host(worth);
    const std::int64_t keys = v.dim(2), kv = spec_.kv_heads;
    std::vector<float> mask(static_cast<std::size_t>(spec_.heads * rows.count * keys),
                            -std::numeric_limits<float>::infinity());
    std::vector<std::pair<float, std::int64_t>> order;
    for (std::int64_t head = 0; head < spec_.heads; ++head) {
      for (std::int64_t row = 0; row < rows.count; ++row) {
        order.clear();
        for (std::int64_t key = 0; key <= rows.context + row; ++key)
          order.emplace_back(values[static_cast<std::size_t>(key * kv + head / (spec_.heads / kv))], key);
        if (std::ssize(order) > keep_) {
          std::ranges::nth_element(order, order.begin() + keep_ - 1, std::greater<>(),
                                   &std::pair<float, std::int64_t>::first);
          order.resize(static_cast<std::size_t>(keep_));
        }
        float* out = &mask[static_cast<std::size_t>((head * rows.count + row) * keys)];
        for (const auto& [value, key] : order) out[key] = value;
      }
    }
    return from_host(*step.device, mask, {1, spec_.heads, rows.count, keys}, DataType::f32);
  }

  int layer_;
  std::int64_t keep_;
  AttentionSpec spec_;
  Linear q_, k_, v_, dt_, o_;
  RmsNorm q_norm_, k_norm_;
  Rope rope_;
  LazyWeight a_;
};

// h = s x + attention(norm(x));  y = t h + mlp(norm(h))
class ScaledStreamBlock final : public Block {
 public:
  ScaledStreamBlock(const BuildContext& c, const HfConfig& p)
      : attn_norm_(c.rms_norm("attn_norm")),
        ffn_norm_(c.rms_norm("ffn_norm")),
        attention_(c.mixer(parse_mixer(p.json("mixer")), "attn")),
        mlp_(c.ffn(parse_ffn(p.json("mlp")), "ffn")),
        attn_scale_(c.vector("attn_scale")),
        ffn_scale_(c.vector("ffn_scale")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor h = ops::add(scaled(x, attn_scale_), attention_->forward(attn_norm_.forward(x), step));
    return ops::add(scaled(h, ffn_scale_), mlp_->forward(ffn_norm_.forward(h), step));
  }
  void print(PlanRows& rows) const override { attention_->print(rows), mlp_->print(rows); }

 private:
  static Tensor scaled(const Tensor& x, const LazyWeight& scale) {
    return ops::mul(x, scale.get(), {.dtype = x.dtype()});
  }

  RmsNorm attn_norm_, ffn_norm_;
  std::unique_ptr<Mixer> attention_;
  std::unique_ptr<FeedForward> mlp_;
  LazyWeight attn_scale_, ffn_scale_;
};

static CustomSpec block(const HfConfig& c, int layer, int dim) {
  AttentionSpec attn = attention(c, layer);
  attn.qk_norm = QkNorm::per_head;
  attn.qk_norm_spec.eps = c.norm_eps();
  CustomSpec mixer{.name = "dynamic_mask_attention",
                   .parameters = "{\"keep\": " + std::to_string(c.get_or("keep_window_size", 2048)) +
                                 ", \"attention\": " + to_json(MixerSpec{attn}) + "}",
                   .weights = weight_slots(attn, dim, ""),
                   .caches = {kv_cache(attn)}};
  mixer.weights.push_back(matrix_slot("dt", attn.kv_heads, attn.kv_heads * attn.head_dim));
  if (attn.qkv_bias) mixer.weights.push_back(vector_slot("dt.bias", attn.kv_heads));
  mixer.weights.push_back(vector_slot("a", attn.kv_heads));
  const MlpSpec ffn = mlp(c);
  CustomSpec s{
      .name = "scaled_stream_block",
      .parameters = "{\"mixer\": " + to_json(MixerSpec{mixer}) + ", \"mlp\": " + to_json(FfnSpec{ffn}) + "}",
      .weights = weight_slots(MixerSpec{mixer}, dim, "attn"),
      .caches = mixer.caches};
  for (WeightSlot& slot : weight_slots(ffn, dim, "ffn")) s.weights.push_back(slot);
  for (const char* name : {"attn_norm", "ffn_norm", "attn_scale", "ffn_scale"})
    s.weights.push_back(vector_slot(name, dim));
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  // The reference's experts are chosen by logits that it mixes across the tokens of a forward.
  c.require("is_moe", false);
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.block = block(c, i, m.dim)});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.input_residual", "{layer}.attn_scale")
      .rename("{layer}.post_attention_residual", "{layer}.ffn_scale")
      .rename("{layer}.self_attn.A", "{layer}.attn.a")
      .rename("{layer}.self_attn.dt_proj", "{layer}.attn.dt");
}

static void modules(CustomModules& m) {
  m.mixers["dynamic_mask_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<DynamicMaskAttention>(c, HfConfig::parse(p));
  };
  m.blocks["scaled_stream_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<ScaledStreamBlock>(c, HfConfig::parse(p));
  };
}

static const Family doge{"doge",
                         {.architectures = {"DogeForCausalLM"},
                          .describe = describe,
                          .weights = weights,
                          .ignore = {"norm_topk_prob", "num_experts", "num_experts_per_tok"},
                          .modules = modules}};

}  // namespace ttt::models

#include <gtest/gtest.h>

#include <algorithm>

#include "modules/support.h"
#include "ttt/modules/attention.h"

namespace {

using namespace ttt;
using namespace ttt::test;

constexpr int dim = 48;

int value_dim(const AttentionSpec& s) { return s.v_head_dim > 0 ? s.v_head_dim : s.head_dim; }

struct Weights {
  explicit Weights(const AttentionSpec& s)
      : q(matrix(s.heads * s.head_dim, dim, 1)),
        k(matrix(s.kv_heads * s.head_dim, dim, 2)),
        v(matrix(s.kv_heads * value_dim(s), dim, 3)),
        o(matrix(dim, s.heads * value_dim(s), 4)),
        q_bias(vector(q.rows, 5)),
        k_bias(vector(k.rows, 6)),
        v_bias(vector(v.rows, 7)),
        o_bias(vector(dim, 8)),
        q_norm(norm_weight(s, s.heads, 9)),
        k_norm(norm_weight(s, s.kv_heads, 10)),
        gate(matrix(s.gate && s.gate->per_head ? s.heads : s.heads * value_dim(s), dim, 12)),
        gate_bias(vector(gate.rows, 13)),
        sinks(vector(s.heads, 11, 2)) {}

  static Matrix norm_weight(const AttentionSpec& s, int heads, std::uint64_t seed) {
    const std::int64_t all = heads * s.head_dim;
    Matrix m = vector(s.qk_norm == QkNorm::per_head ? s.head_dim : all, seed, 1);
    if (s.qk_norm == QkNorm::per_head_weights) m.rows = heads, m.cols = s.head_dim;
    return m;
  }
  AttentionConfig config(const AttentionSpec& s) const {
    AttentionConfig c{.spec = s,
                      .q = q.weight(),
                      .k = k.weight(),
                      .v = v.weight(),
                      .o = o.weight(),
                      .name = {"layers.0.attn", 0}};
    if (s.qkv_bias) {
      c.q_bias = q_bias.weight(WeightRole::vector), c.k_bias = k_bias.weight(WeightRole::vector);
      c.v_bias = v_bias.weight(WeightRole::vector);
    }
    if (s.out_bias) c.o_bias = o_bias.weight(WeightRole::vector);
    if (s.qk_norm != QkNorm::none)
      c.q_norm = q_norm.weight(WeightRole::vector), c.k_norm = k_norm.weight(WeightRole::vector);
    if (s.gate) c.gate = gate.weight();
    if (s.gate && s.gate->bias) c.gate_bias = gate_bias.weight(WeightRole::vector);
    if (s.sinks) c.sinks = sinks.weight(WeightRole::vector);
    return c;
  }
  Matrix q, k, v, o, q_bias, k_bias, v_bias, o_bias, q_norm, k_norm, gate, gate_bias, sinks;
};

void rms_norm(float* x, std::size_t n, const std::vector<float>& w, float eps) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double r = 1 / std::sqrt(sum / static_cast<double>(n) + eps);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] * r * w[i]);
}

// The formula over a whole sequence, one row at a time, in double where it matters.
std::vector<float> reference(const AttentionSpec& s, const Weights& w, const std::vector<float>& x) {
  const std::size_t tokens = x.size() / dim, hd = static_cast<std::size_t>(s.head_dim),
                    vd = static_cast<std::size_t>(value_dim(s));
  const std::size_t heads = static_cast<std::size_t>(s.heads),
                    kv_heads = static_cast<std::size_t>(s.kv_heads);
  const auto bias = [&](const Matrix& b) { return s.qkv_bias ? b.data : std::vector<float>{}; };
  std::vector<float> q = multiply(w.q, x, bias(w.q_bias)), k = multiply(w.k, x, bias(w.k_bias)),
                     v = multiply(w.v, x, bias(w.v_bias));
  if (s.clip_qkv) {
    for (auto* t : {&q, &k, &v})
      for (float& e : *t) e = std::clamp(e, -*s.clip_qkv, *s.clip_qkv);
  }
  const auto norm = [&](std::vector<float>& t, const Matrix& weight, std::size_t n_heads) {
    const std::size_t n = s.qk_norm == QkNorm::full_width ? n_heads * hd : hd;
    for (std::size_t i = 0; i < t.size(); i += n) {
      const std::size_t first = s.qk_norm == QkNorm::per_head_weights ? i / hd % n_heads * hd : 0;
      rms_norm(&t[i], n,
               {weight.data.begin() + static_cast<std::ptrdiff_t>(first),
                weight.data.begin() + static_cast<std::ptrdiff_t>(first + n)},
               s.qk_norm_spec.eps);
    }
  };
  if (s.v_norm) {
    for (std::size_t i = 0; i < v.size(); i += vd)
      rms_norm(&v[i], vd, std::vector<float>(vd, 1), s.v_norm->eps);
  }
  const auto norms = [&] { norm(q, w.q_norm, heads), norm(k, w.k_norm, kv_heads); };
  if (s.qk_norm != QkNorm::none && !s.qk_norm_after_rope) norms();
  if (s.rope) {
    const std::size_t rot = s.rope->rotary_dim > 0 ? static_cast<std::size_t>(s.rope->rotary_dim) : hd;
    const auto rotate = [&](std::vector<float>& t, std::size_t n_heads) {
      for (std::size_t p = 0; p < tokens; ++p)
        for (std::size_t h = 0; h < n_heads; ++h)
          for (std::size_t i = 0; i < rot / 2; ++i) {
            const double angle =
                static_cast<double>(p) * std::pow(static_cast<double>(s.rope->theta),
                                                  -2.0 * static_cast<double>(i) / static_cast<double>(rot));
            float* head = &t[(p * n_heads + h) * hd];
            float& a = head[s.rope->interleaved ? 2 * i : i];
            float& b = head[s.rope->interleaved ? 2 * i + 1 : i + rot / 2];
            const double x1 = a, x2 = b;
            a = static_cast<float>(x1 * std::cos(angle) - x2 * std::sin(angle));
            b = static_cast<float>(x2 * std::cos(angle) + x1 * std::sin(angle));
          }
    };
    rotate(q, heads), rotate(k, kv_heads);
  }
  if (s.qk_norm != QkNorm::none && s.qk_norm_after_rope) norms();
  const double scale = s.scale ? *s.scale : 1 / std::sqrt(static_cast<double>(s.head_dim));
  const std::vector<float> slopes = s.alibi != 0 ? alibi_slopes(s.heads) : std::vector<float>(heads, 0.0f);
  std::vector<float> context(tokens * heads * vd);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t kvh = h * kv_heads / heads;
      std::vector<double> scores(t + 1, -INFINITY);
      double most = s.sinks ? w.sinks.data[h] : -INFINITY;
      for (std::size_t j = 0; j <= t; ++j) {
        if (s.window && t - j >= static_cast<std::size_t>(*s.window)) continue;
        if (s.chunk && t / static_cast<std::size_t>(*s.chunk) != j / static_cast<std::size_t>(*s.chunk))
          continue;
        double dot = 0;
        for (std::size_t d = 0; d < hd; ++d)
          dot += static_cast<double>(q[(t * heads + h) * hd + d]) * k[(j * kv_heads + kvh) * hd + d];
        dot *= scale;
        if (s.temperature)
          dot *= 1 + s.temperature->scale *
                         std::log(1 + std::floor((static_cast<double>(t) + s.temperature->offset) /
                                                 s.temperature->length));
        if (s.softcap) dot = *s.softcap * std::tanh(dot / *s.softcap);
        scores[j] = dot + s.alibi * slopes[h] * static_cast<double>(j);
        most = std::max(most, scores[j]);
      }
      double total = s.sinks ? std::exp(w.sinks.data[h] - most) : 0;
      for (double& e : scores) total += e = std::exp(e - most);
      for (std::size_t d = 0; d < vd; ++d) {
        double sum = 0;
        for (std::size_t j = 0; j <= t; ++j) sum += scores[j] * v[(j * kv_heads + kvh) * vd + d];
        context[(t * heads + h) * vd + d] = static_cast<float>(sum / total);
      }
    }
  if (s.gate) {
    std::vector<float> g = multiply(w.gate, x, s.gate->bias ? w.gate_bias.data : std::vector<float>{});
    for (float& e : g) e = s.gate->act == UnaryOp::sigmoid ? 1 / (1 + std::exp(-e)) : std::log1p(std::exp(e));
    for (std::size_t i = 0; i < context.size(); ++i) context[i] *= s.gate->per_head ? g[i / vd] : g[i];
  }
  return multiply(w.o, context, s.out_bias ? w.o_bias.data : std::vector<float>{});
}

std::vector<float> rows_of(const std::vector<float>& x, std::int64_t first, std::int64_t count) {
  return {x.begin() + first * dim, x.begin() + (first + count) * dim};
}

Tensor device_rows(const std::vector<float>& x) {
  return from_host(cpu_home().backend(), x, {1, 1, static_cast<std::int64_t>(x.size()) / dim, dim},
                   DataType::f32);
}

AttentionSpec base() { return {.heads = 6, .kv_heads = 2, .head_dim = 10, .rope = RopeSpec{}}; }

std::vector<std::pair<const char*, AttentionSpec>> variants() {
  std::vector<std::pair<const char*, AttentionSpec>> all;
  const auto with = [&](const char* name, const std::function<void(AttentionSpec&)>& change) {
    AttentionSpec s = base();
    change(s);
    all.emplace_back(name, s);
  };
  with("grouped", [](auto&) {});
  with("multi_head", [](auto& s) { s.kv_heads = 6; });
  with("multi_query", [](auto& s) { s.kv_heads = 1; });
  with("biases", [](auto& s) { s.qkv_bias = s.out_bias = true; });
  with("qk_norm_per_head", [](auto& s) { s.qk_norm = QkNorm::per_head; });
  with("qk_norm_full_width", [](auto& s) { s.qk_norm = QkNorm::full_width; });
  with("qk_norm_after_rope", [](auto& s) { s.qk_norm = QkNorm::per_head, s.qk_norm_after_rope = true; });
  with("interleaved", [](auto& s) { s.rope->interleaved = true; });
  with("partial", [](auto& s) { s.rope->rotary_dim = 4; });
  with("no_positions", [](auto& s) { s.rope.reset(); });
  with("window", [](auto& s) { s.window = 5; });
  with("chunked", [](auto& s) { s.chunk = 6; });
  with("softcap", [](auto& s) { s.softcap = 0.8f; });
  with("scale", [](auto& s) { s.scale = 0.7f; });
  with("clip", [](auto& s) { s.clip_qkv = 0.5f; });
  with("sinks", [](auto& s) { s.sinks = true; });
  with("sinks_window", [](auto& s) { s.sinks = true, s.window = 3; });
  with("alibi", [](auto& s) { s.rope.reset(), s.alibi = 0.5f; });
  with("values_of_another_width", [](auto& s) { s.v_head_dim = 6; });
  with("value_norm", [](auto& s) { s.v_norm = NormSpec{.weight = false}; });
  with("qk_norm_of_each_head", [](auto& s) { s.qk_norm = QkNorm::per_head_weights; });
  with("gate", [](auto& s) { s.gate = AttentionGateSpec{.bias = true}; });
  with("gate_of_heads",
       [](auto& s) { s.gate = AttentionGateSpec{.per_head = true, .act = UnaryOp::softplus}; });
  with("temperature",
       [](auto& s) { s.temperature = QueryTemperature{.scale = 0.5f, .length = 4, .offset = 1}; });
  return all;
}

TEST(Attention, EveryVariantEqualsTheFormula) {
  for (const auto& [name, spec] : variants()) {
    SCOPED_TRACE(name);
    const Weights w(spec);
    const Attention attention = Attention::from_config(w.config(spec), f32_target(), cpu_home());
    const std::vector<float> x = values(19 * dim, 100);
    const std::vector<float> want = reference(spec, w, x);
    Stage stage(1, spec.kv_heads, spec.head_dim, DataType::f32, value_dim(spec));
    const Tensor y = attention.prefill(device_rows(x), stage.step({{0, 19}}, {0}));
    EXPECT_LT(largest_difference(to_host(y), want), 2e-5);
  }
}

TEST(Attention, ChunksTokensAndMixedStepsEqualOnePiece) {
  for (const auto& [name, spec] : variants()) {
    SCOPED_TRACE(name);
    const Weights w(spec);
    const Attention attention = Attention::from_config(w.config(spec), f32_target(), cpu_home());
    const std::vector<float> xa = values(17 * dim, 101), xb = values(9 * dim, 102);
    const std::vector<float> wa = reference(spec, w, xa), wb = reference(spec, w, xb);
    Stage stage(2, spec.kv_heads, spec.head_dim, DataType::f32, value_dim(spec));
    const auto run = [&](const Step& step, const std::vector<float>& x) {
      return to_host(attention.forward(device_rows(x), step));
    };
    // a: 5 + 5 tokens, then one by one; b joins in a's last two steps: mixed rows, then two decode rows.
    EXPECT_LT(largest_difference(run(stage.step({{0, 5}}, {0}), rows_of(xa, 0, 5)), rows_of(wa, 0, 5)), 2e-5);
    EXPECT_LT(largest_difference(run(stage.step({{5, 10}}, {0}), rows_of(xa, 5, 10)), rows_of(wa, 5, 10)),
              2e-5);
    std::vector<float> x = rows_of(xa, 15, 1), want = rows_of(wa, 15, 1);
    const std::vector<float> xb8 = rows_of(xb, 0, 8), wb8 = rows_of(wb, 0, 8);
    x.insert(x.end(), xb8.begin(), xb8.end());
    want.insert(want.end(), wb8.begin(), wb8.end());
    EXPECT_LT(largest_difference(run(stage.step({{15, 1}, {0, 8}}, {0, 1}), x), want), 2e-5);
    x = rows_of(xb, 8, 1), want = rows_of(wb, 8, 1);
    const std::vector<float> xa16 = rows_of(xa, 16, 1), wa16 = rows_of(wa, 16, 1);
    x.insert(x.end(), xa16.begin(), xa16.end());
    want.insert(want.end(), wa16.begin(), wa16.end());
    EXPECT_LT(largest_difference(run(stage.step({{8, 1}, {16, 1}}, {1, 0}), x), want), 2e-5);
  }
}

// A layer without keys and values of its own reads what another has stored.
TEST(Attention, SharesTheCacheOfAnEarlierLayer) {
  AttentionSpec spec = base();
  const Weights w(spec);
  const std::vector<float> x = values(9 * dim, 104);
  const std::vector<float> want = reference(spec, w, x);
  Stage stage(1, spec.kv_heads, spec.head_dim, DataType::f32, spec.head_dim);
  Attention::from_config(w.config(spec), f32_target(), cpu_home())
      .prefill(device_rows(x), stage.step({{0, 9}}, {0}));
  spec.kv_of_layer = 0;
  AttentionConfig config{
      .spec = spec, .q = w.q.weight(), .k = {}, .v = {}, .o = w.o.weight(), .name = {"layers.1.attn", 1}};
  const Attention sharing = Attention::from_config(config, f32_target(), cpu_home());
  EXPECT_LT(largest_difference(to_host(sharing.prefill(device_rows(x), stage.step({{0, 9}}, {0}))), want),
            2e-5);
  EXPECT_LT(
      largest_difference(to_host(sharing.decode(device_rows(rows_of(x, 8, 1)), stage.step({{8, 1}}, {0}))),
                         rows_of(want, 8, 1)),
      2e-5);
}

TEST(Attention, KvFormatsAreNearTheFormula) {
  const AttentionSpec spec{.heads = 4, .kv_heads = 2, .head_dim = 32, .rope = RopeSpec{}};
  const Weights w(spec);
  for (const auto& [kv, bound] : {std::pair{DataType::bf16, 0.02}, {DataType::bfp8_b, 0.04}}) {
    Target target = f32_target();
    target.rows.push_back({"*", "kv", std::string(name(kv)), "test"});
    const Attention attention = Attention::from_config(w.config(spec), target, cpu_home());
    EXPECT_EQ(attention.plan().kv_dtype, kv);
    const std::vector<float> x = values(11 * dim, 103);
    Stage stage(1, spec.kv_heads, spec.head_dim, kv, value_dim(spec));
    const Tensor y = attention.prefill(device_rows(x), stage.step({{0, 11}}, {0}));
    EXPECT_LT(largest_difference(to_host(y), reference(spec, w, x)), bound) << name(kv);
  }
}

TEST(Attention, ResolveDecidesEverythingAndNeedsNoDevice) {
  const AttentionSpec spec = base();
  const Weights w(spec);
  Target target = make_target(hw::cpu(), "performance");
  target.rows.push_back({"layers.0.attn.o", "weights", "bf16", "test"});
  const AttentionPlan plan = resolve(w.config(spec), target);
  EXPECT_EQ(plan.qkv.dtype, DataType::bfp8_b);
  EXPECT_EQ(plan.o.dtype, DataType::bf16);
  EXPECT_EQ(plan.kv_dtype, DataType::bfp8_b);
  EXPECT_FLOAT_EQ(plan.scale, 1 / std::sqrt(10.0f));
  EXPECT_EQ(plan.qkv.weight.rows(), (6 + 2 + 2) * 10);
  PlanRows rows;
  print(plan, rows);
  EXPECT_NE(std::ranges::find(rows, PlanRow{"layers.0.attn", "kv", "bfp8_b"}), rows.end());
}

TEST(Attention, ResolveRejectsWhatDoesNotFit) {
  const AttentionSpec spec = base();
  const Weights w(spec);
  const auto rejects = [&](const std::function<void(AttentionConfig&)>& change, const char* what) {
    AttentionConfig c = w.config(spec);
    change(c);
    try {
      resolve(c, Target{});
      ADD_FAILURE() << "accepted: " << what;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("layers.0.attn"), std::string::npos) << e.what();
    }
  };
  rejects([](auto& c) { c.spec.kv_heads = 4; }, "multiple of kv_heads");
  rejects([](auto& c) { c.spec.heads = 8; }, "q has 60 rows, expected 80");
  rejects([](auto& c) { c.k = {}; }, "no weight k");
  rejects([](auto& c) { c.spec.sinks = true; }, "no weight sinks");
}

}  // namespace

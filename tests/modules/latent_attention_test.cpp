#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "modules/support.h"
#include "ttt/modules/latent_attention.h"

namespace {

using namespace ttt;
using namespace ttt::test;

constexpr int dim = 40;

LatentAttentionSpec plain() {
  return {.heads = 3,
          .q_lora_rank = 20,
          .kv_lora_rank = 24,
          .nope_dim = 10,
          .rope_dim = 6,
          .v_head_dim = 14,
          .rope = RopeSpec{.theta = 100, .interleaved = true}};
}

struct Weights {
  explicit Weights(const LatentAttentionSpec& s)
      : q_a(matrix(std::max(s.q_lora_rank, 1), dim, 1)),
        q_a_norm(vector(q_a.rows, 2, 1)),
        q(matrix(s.heads * (s.nope_dim + s.rope_dim), s.q_lora_rank > 0 ? s.q_lora_rank : dim, 3)),
        kv_a(matrix(s.kv_lora_rank + s.rope_dim, dim, 4)),
        kv_a_norm(vector(s.kv_lora_rank, 5, 1)),
        k_b(matrix(s.heads * s.nope_dim, s.kv_lora_rank, 6)),
        v_b(matrix(s.heads * s.v_head_dim, s.kv_lora_rank, 7)),
        o(matrix(dim, s.heads * s.v_head_dim, 8)),
        q_a_bias(vector(q_a.rows, 9)),
        kv_a_bias(vector(kv_a.rows, 10)),
        o_bias(vector(dim, 11)),
        gate(matrix(s.gate && s.gate->per_head ? s.heads : s.heads * s.v_head_dim, dim, 12)),
        sinks(vector(s.heads, 13, 2)) {
    if (!s.indexer) return;
    index_q = matrix(s.indexer->heads * s.indexer->head_dim, s.q_lora_rank, 14);
    index_k = matrix(s.indexer->head_dim, dim, 15);
    index_weights = matrix(s.indexer->heads, dim, 16);
    index_norm = vector(s.indexer->head_dim, 17, 1), index_norm_bias = vector(s.indexer->head_dim, 18);
  }
  LatentAttentionConfig config(const LatentAttentionSpec& s) const {
    return latent_attention_config(s, {"layers.0.attn", 0}, [&](std::string_view name) -> LazyWeight {
      const auto of = [](const Matrix& m, WeightRole role = WeightRole::vector) { return m.weight(role); };
      if (name == "q_a") return s.q_lora_rank > 0 ? of(q_a, WeightRole::linear) : LazyWeight{};
      if (name == "q_a_norm") return s.q_lora_rank > 0 ? of(q_a_norm) : LazyWeight{};
      if (name == "q") return of(q, WeightRole::linear);
      if (name == "kv_a") return of(kv_a, WeightRole::linear);
      if (name == "kv_a_norm") return of(kv_a_norm);
      if (name == "k_b") return of(k_b, WeightRole::linear);
      if (name == "v_b") return of(v_b, WeightRole::linear);
      if (name == "o") return of(o, WeightRole::linear);
      if (name == "q_a.bias" && s.bias && s.q_lora_rank > 0) return of(q_a_bias);
      if (name == "kv_a.bias" && s.bias) return of(kv_a_bias);
      if (name == "o.bias" && s.bias) return of(o_bias);
      if (name == "gate" && s.gate) return of(gate, WeightRole::linear);
      if (name == "sinks" && s.sinks) return of(sinks);
      if (name == "indexer.q") return of(index_q, WeightRole::linear);
      if (name == "indexer.k") return of(index_k, WeightRole::linear);
      if (name == "indexer.weights") return of(index_weights, WeightRole::linear);
      if (name == "indexer.k_norm") return of(index_norm);
      if (name == "indexer.k_norm.bias") return of(index_norm_bias);
      return {};
    });
  }
  Matrix q_a, q_a_norm, q, kv_a, kv_a_norm, k_b, v_b, o, q_a_bias, kv_a_bias, o_bias, gate, sinks;
  Matrix index_q{}, index_k{}, index_weights{}, index_norm{}, index_norm_bias{};
};

void rms_norm(float* x, std::size_t n, const std::vector<float>& w, double eps) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double r = 1 / std::sqrt(sum / static_cast<double>(n) + eps);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] * r * w[i]);
}

// The first `rotary` of the `width` values at x.
void rotate(float* x, std::size_t rotary, const RopeSpec& rope, std::size_t position) {
  for (std::size_t i = 0; i < rotary / 2; ++i) {
    const double angle =
        static_cast<double>(position) * std::pow(static_cast<double>(rope.theta),
                                                 -2.0 * static_cast<double>(i) / static_cast<double>(rotary));
    float& a = x[rope.interleaved ? 2 * i : i];
    float& b = x[rope.interleaved ? 2 * i + 1 : i + rotary / 2];
    const double x1 = a, x2 = b;
    a = static_cast<float>(x1 * std::cos(angle) - x2 * std::sin(angle));
    b = static_cast<float>(x2 * std::cos(angle) + x1 * std::sin(angle));
  }
}

// The keys that each token attends to: those up to itself, in its window, among the indexer's best.
std::vector<std::vector<std::size_t>> visible(const LatentAttentionSpec& s, const Weights& w,
                                              const std::vector<float>& x, const std::vector<float>& c_q) {
  const std::size_t tokens = x.size() / dim;
  std::vector<std::vector<std::size_t>> keys(tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::size_t window = s.window ? static_cast<std::size_t>(*s.window) : tokens;
    for (std::size_t j = t + 1 > window ? t + 1 - window : 0; j <= t; ++j) keys[t].push_back(j);
  }
  if (!s.indexer) return keys;
  const IndexerSpec& in = *s.indexer;
  const auto heads = static_cast<std::size_t>(in.heads), hd = static_cast<std::size_t>(in.head_dim),
             rotary = static_cast<std::size_t>(in.rope->rotary_dim), top = static_cast<std::size_t>(in.top_k);
  std::vector<float> q = multiply(w.index_q, c_q), k = multiply(w.index_k, x),
                     g = multiply(w.index_weights, x);
  for (std::size_t t = 0; t < tokens; ++t) {
    float* row = &k[t * hd];
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < hd; ++i) mean += row[i] / static_cast<double>(hd);
    for (std::size_t i = 0; i < hd; ++i)
      variance += (row[i] - mean) * (row[i] - mean) / static_cast<double>(hd);
    for (std::size_t i = 0; i < hd; ++i)
      row[i] = static_cast<float>((row[i] - mean) / std::sqrt(variance + in.norm_eps) * w.index_norm.data[i] +
                                  w.index_norm_bias.data[i]);
    rotate(row, rotary, *in.rope, t);
    for (std::size_t h = 0; h < heads; ++h) rotate(&q[(t * heads + h) * hd], rotary, *in.rope, t);
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<double> score(t + 1);
    for (std::size_t j = 0; j <= t; ++j)
      for (std::size_t h = 0; h < heads; ++h) {
        double dot = 0;
        for (std::size_t i = 0; i < hd; ++i)
          dot += static_cast<double>(q[(t * heads + h) * hd + i]) * k[j * hd + i];
        score[j] += std::max(dot, 0.0) * g[t * heads + h];
      }
    std::ranges::stable_sort(keys[t], [&](std::size_t a, std::size_t b) { return score[a] > score[b]; });
    if (keys[t].size() > top) keys[t].resize(top);
  }
  return keys;
}

// The formula over a whole sequence with keys and values made for every head.
std::vector<float> reference(const LatentAttentionSpec& s, const Weights& w, const std::vector<float>& x) {
  const std::size_t tokens = x.size() / dim, heads = static_cast<std::size_t>(s.heads),
                    nope = static_cast<std::size_t>(s.nope_dim), rope = static_cast<std::size_t>(s.rope_dim),
                    vd = static_cast<std::size_t>(s.v_head_dim), qd = nope + rope,
                    rank = static_cast<std::size_t>(s.kv_lora_rank);
  const auto bias = [&](const Matrix& b) { return s.bias ? b.data : std::vector<float>{}; };
  std::vector<float> c_q = x;
  if (s.q_lora_rank > 0) {
    c_q = multiply(w.q_a, x, bias(w.q_a_bias));
    const auto n = static_cast<std::size_t>(s.q_lora_rank);
    for (std::size_t t = 0; t < tokens; ++t) rms_norm(&c_q[t * n], n, w.q_a_norm.data, s.norm_eps);
  }
  std::vector<float> q = multiply(w.q, c_q), c, shared;
  const std::vector<float> a = multiply(w.kv_a, x, bias(w.kv_a_bias));
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto* row = &a[t * (rank + rope)];
    c.insert(c.end(), row, row + rank);
    shared.insert(shared.end(), row + rank, row + rank + rope);
    rms_norm(&c[t * rank], rank, w.kv_a_norm.data, s.norm_eps);
    if (!s.rope) continue;
    rotate(&shared[t * rope], rope, *s.rope, t);
    for (std::size_t h = 0; h < heads; ++h) rotate(&q[(t * heads + h) * qd + nope], rope, *s.rope, t);
  }
  const std::vector<float> k = multiply(w.k_b, c), v = multiply(w.v_b, c);
  const double scale = s.scale ? *s.scale : 1 / std::sqrt(static_cast<double>(qd));
  const auto keys = visible(s, w, x, c_q);
  std::vector<float> context(tokens * heads * vd);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<double> p;
      double top = s.sinks ? w.sinks.data[h] : -INFINITY;
      for (std::size_t j : keys[t]) {
        double dot = 0;
        for (std::size_t i = 0; i < nope; ++i)
          dot += static_cast<double>(q[(t * heads + h) * qd + i]) * k[(j * heads + h) * nope + i];
        for (std::size_t i = 0; i < rope; ++i)
          dot += static_cast<double>(q[(t * heads + h) * qd + nope + i]) * shared[j * rope + i];
        p.push_back(dot * scale);
        top = std::max(top, p.back());
      }
      double sum = s.sinks ? std::exp(w.sinks.data[h] - top) : 0;
      for (double& e : p) sum += e = std::exp(e - top);
      for (std::size_t i = 0; i < vd; ++i) {
        double value = 0;
        for (std::size_t j = 0; j < p.size(); ++j) value += p[j] / sum * v[(keys[t][j] * heads + h) * vd + i];
        context[(t * heads + h) * vd + i] = static_cast<float>(value);
      }
    }
  if (s.gate) {
    const std::vector<float> g = multiply(w.gate, x);
    const std::size_t each = s.gate->per_head ? vd : 1;
    for (std::size_t i = 0; i < context.size(); ++i)
      context[i] = static_cast<float>(context[i] / (1 + std::exp(-static_cast<double>(g[i / each]))));
  }
  return multiply(w.o, context, bias(w.o_bias));
}

// The stage's caches hold latents, and an indexer's keys.
Stage stage_for(const LatentAttentionSpec& s, std::size_t sequences, DataType kv) {
  Stage stage(sequences, 1, s.kv_lora_rank + s.rope_dim, kv, 0);
  if (s.indexer) stage.add_indexer(s.indexer->head_dim, kv);
  return stage;
}

// Runs a sequence in pieces and returns all rows.
std::vector<float> run(const LatentAttention& module, const LatentAttentionSpec& s,
                       const std::vector<float>& x, const std::vector<std::int64_t>& pieces,
                       DataType kv = DataType::f32) {
  Stage stage = stage_for(s, 1, kv);
  std::vector<float> y;
  std::int64_t context = 0;
  for (const std::int64_t count : pieces) {
    const std::vector<float> rows(x.begin() + context * dim, x.begin() + (context + count) * dim);
    const Tensor in = from_host(cpu_home().backend(), rows, {1, 1, count, dim}, module.plan().a.out_dtype);
    const std::vector<float> out = to_host(module.forward(in, stage.step({{context, count}}, {0})));
    y.insert(y.end(), out.begin(), out.end());
    context += count;
  }
  return y;
}

struct Case {
  const char* name;
  LatentAttentionSpec spec;
};
std::vector<Case> cases() {
  const auto with = [](auto&& change) {
    LatentAttentionSpec s = plain();
    change(s);
    return s;
  };
  const IndexerSpec indexer{
      .heads = 5, .head_dim = 12, .top_k = 4, .rope = RopeSpec{.theta = 100, .rotary_dim = 6}};
  return {{"plain", plain()},
          {"no query latent", with([](auto& s) { s.q_lora_rank = 0; })},
          {"no query latent, biases", with([](auto& s) { s.q_lora_rank = 0, s.bias = true; })},
          {"biases", with([](auto& s) { s.bias = true; })},
          {"rotation in halves", with([](auto& s) { s.rope->interleaved = false; })},
          {"no rotation", with([](auto& s) { s.rope.reset(); })},
          {"scale", with([](auto& s) { s.scale = 0.7f; })},
          {"window", with([](auto& s) { s.window = 5; })},
          {"sinks", with([](auto& s) { s.sinks = true; })},
          {"gate", with([](auto& s) { s.gate = AttentionGateSpec{}; })},
          {"gate per head", with([](auto& s) { s.gate = AttentionGateSpec{.per_head = true}; })},
          {"indexer", with([&](auto& s) { s.indexer = indexer; })},
          {"indexer with sinks", with([&](auto& s) { s.indexer = indexer, s.sinks = true; })},
          {"indexer that chooses all", with([&](auto& s) { s.indexer = indexer, s.indexer->top_k = 99; })}};
}

constexpr std::int64_t tokens = 23;

TEST(LatentAttention, IsItsFormulaHoweverThePromptIsCut) {
  const std::vector<float> x = values(tokens * dim, 77);
  for (const Case& c : cases()) {
    const Weights w(c.spec);
    const LatentAttention module = LatentAttention::from_config(w.config(c.spec), f32_target(), cpu_home());
    const std::vector<float> expected = reference(c.spec, w, x);
    EXPECT_LT(largest_difference(run(module, c.spec, x, {tokens}), expected), 2e-5) << c.name;
    EXPECT_LT(largest_difference(run(module, c.spec, x, {5, 5, 5, 5, 3}), expected), 2e-5) << c.name;
    EXPECT_LT(largest_difference(run(module, c.spec, x, std::vector<std::int64_t>(tokens, 1)), expected),
              2e-5)
        << c.name;
    EXPECT_LT(largest_difference(run(module, c.spec, x, {9, 1, 1, 12}), expected), 2e-5) << c.name;
  }
}

TEST(LatentAttention, SequencesOfAMixedStepDoNotMeet) {
  for (const Case& c : cases()) {
    const Weights w(c.spec);
    const LatentAttention module = LatentAttention::from_config(w.config(c.spec), f32_target(), cpu_home());
    const std::vector<float> a = values(12 * dim, 1), b = values(15 * dim, 2), d = values(9 * dim, 3);
    const auto rows = [](const std::vector<float>& x, std::int64_t from, std::int64_t to) {
      return std::vector<float>(x.begin() + from * dim, x.begin() + to * dim);
    };
    const auto joined = [](std::initializer_list<std::vector<float>> parts) {
      std::vector<float> all;
      for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
      return all;
    };
    Stage stage = stage_for(c.spec, 3, DataType::f32);
    const auto feed = [&](const std::vector<float>& x, const std::vector<Part>& parts,
                          const std::vector<std::size_t>& which) {
      const Tensor in = from_host(cpu_home().backend(), x,
                                  {1, 1, static_cast<std::int64_t>(x.size()) / dim, dim}, DataType::f32);
      return to_host(module.forward(in, stage.step(parts, which)));
    };
    feed(joined({rows(a, 0, 11), rows(b, 0, 8)}), {{0, 11}, {0, 8}}, {0, 1});
    const std::vector<float> mixed =
        feed(joined({rows(a, 11, 12), rows(b, 8, 15), rows(d, 0, 9)}), {{11, 1}, {8, 7}, {0, 9}}, {0, 1, 2});
    const std::vector<float> ra = reference(c.spec, w, a), rb = reference(c.spec, w, b),
                             rd = reference(c.spec, w, d);
    EXPECT_LT(largest_difference(mixed, joined({rows(ra, 11, 12), rows(rb, 8, 15), rd})), 2e-5) << c.name;
  }
}

TEST(LatentAttention, OtherPrecisionsStayNear) {
  const std::vector<float> x = values(tokens * dim, 5);
  LatentAttentionSpec s = plain();
  const Weights w(s);
  const std::vector<float> expected = reference(s, w, x);
  double rms = 0;
  for (float e : expected) rms += static_cast<double>(e) * e / static_cast<double>(expected.size());
  for (const auto& [precision, kv, bound] : {std::tuple{"bf16", DataType::bf16, 0.04},
                                             {"bfp8_b", DataType::bf16, 0.08},
                                             {"bfp8_b", DataType::bfp8_b, 0.1}}) {
    const LatentAttention module =
        LatentAttention::from_config(w.config(s), make_target(hw::cpu(), precision), cpu_home());
    EXPECT_LT(largest_difference(run(module, s, x, {8, 1, 14}, kv), expected), bound * std::sqrt(rms) * 4)
        << precision;
  }
}

// A layer may attend to what an earlier one's indexer chose.
TEST(LatentAttention, TakesTheSelectionOfAnotherLayer) {
  LatentAttentionSpec chooser = plain(), follower = plain();
  chooser.indexer =
      IndexerSpec{.heads = 5, .head_dim = 12, .top_k = 4, .rope = RopeSpec{.theta = 100, .rotary_dim = 6}};
  follower.selection_of_layer = 0;
  const Weights w(chooser);
  const LatentAttention first = LatentAttention::from_config(w.config(chooser), f32_target(), cpu_home()),
                        second = LatentAttention::from_config(w.config(follower), f32_target(), cpu_home());
  const std::vector<float> x = values(tokens * dim, 6);
  Stage stage = stage_for(chooser, 1, DataType::f32);
  const Step step = stage.step({{0, tokens}}, {0});
  const Tensor in = from_host(cpu_home().backend(), x, {1, 1, tokens, dim}, DataType::f32);
  const std::vector<float> expected = to_host(first.forward(in, step));
  EXPECT_EQ(to_host(second.forward(in, step)), expected);
}

TEST(LatentAttention, ConstructorPlanAndErrors) {
  LatentAttentionSpec s = plain();
  const Weights w(s);
  const LatentAttentionConfig c = w.config(s);
  const LatentAttention simple(s, c.q_a, c.q_a_norm, c.q, c.kv_a, c.kv_a_norm, c.k_b, c.v_b, c.o,
                               f32_target(), cpu_home());
  const std::vector<float> x = values(tokens * dim, 8);
  LatentAttentionPlan placed = simple.plan();
  placed.name.layer = 0;
  const LatentAttention in_layer(placed, cpu_home());
  EXPECT_LT(largest_difference(run(in_layer, s, x, {tokens}), reference(s, w, x)), 2e-5);
  PlanRows rows;
  print(simple.plan(), rows);
  const auto has = [&](std::string_view module, std::string_view field, std::string_view value) {
    return std::ranges::find(rows, PlanRow{std::string(module), std::string(field), std::string(value)}) !=
           rows.end();
  };
  EXPECT_TRUE(has("", "heads", "3, 10 + 6 dimensions, v_head_dim 14"));
  EXPECT_TRUE(has("", "latents", "kv 24, q 20"));
  EXPECT_TRUE(has("k_b", "weight", "3 x [10, 24] f32"));
  EXPECT_TRUE(has("v_b", "weight", "3 x [24, 14] f32"));

  const auto refused = [&](auto&& change) {
    LatentAttentionConfig bad = w.config(s);
    change(bad);
    EXPECT_THROW(resolve(bad, f32_target()), Error);
  };
  refused([](auto& b) { b.k_b = {}; });
  refused([](auto& b) { b.q_a = b.kv_a; });
  refused([](auto& b) { b.spec.v_head_dim = 13; });
  refused([](auto& b) { b.spec.sinks = true; });
  refused([](auto& b) { b.spec.indexer = IndexerSpec{.heads = 1, .head_dim = 4, .top_k = 1}; });
  refused([](auto& b) { b.spec.rope->rotary_dim = 5; });
}

}  // namespace

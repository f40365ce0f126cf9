// The recurrent ops: kernels against their composed formulas, and the promise that a row's result does not
// depend on how its sequence was cut into steps.
#include <functional>

#include "backends/cpu/support.h"

namespace ttt::cpu_tests {
namespace {

struct Rows {
  std::int32_t first, count, slot, begins;
};

Tensor segments(Device& d, const std::vector<Rows>& rows) {
  std::vector<std::int32_t> values;
  for (const Rows& r : rows) values.insert(values.end(), {r.first, r.count, r.slot, r.begins});
  return from_host(d, values, {static_cast<std::int64_t>(rows.size()), 4});
}

// An op over the rows [begin, end) of operands that it owns; state and segments come from outside.
struct Case {
  std::string name;
  std::int64_t state = 0;
  std::function<Tensor(std::int64_t begin, std::int64_t end, const Tensor& state, const Tensor& segments)>
      run;
};

constexpr std::int64_t tokens = 13, slots = 3;

std::vector<Case> cases(Device& d, DataType dtype) {
  const auto random = [&](std::int64_t width, unsigned seed, float scale = 1) {
    // Columns of a wider matrix, as fused projections leave them.
    return random_tensor(d, {1, 1, tokens, width + 8}, dtype, seed, scale).narrow(3, 4, width + 4);
  };
  const auto vector = [&](std::int64_t rows, std::int64_t n, unsigned seed, float scale = 1) {
    return random_tensor(d, {1, 1, rows, n}, DataType::f32, seed, scale);
  };
  const auto part = [](const Tensor& t, std::int64_t begin, std::int64_t end) {
    return t.narrow(2, begin, end);
  };
  std::vector<Case> all;

  for (const std::int64_t channels : {7, 300}) {
    const Tensor x = random(channels, 1), w = vector(channels, 4, 2), bias = vector(1, channels, 3);
    all.push_back(
        {"causal_conv1d " + std::to_string(channels), 3 * channels, [=](auto b, auto e, auto& s, auto& g) {
           return ops::causal_conv1d(part(x, b, e), w, &bias, s, g, {UnaryOp::silu});
         }});
  }
  {
    // A step and a decay for every channel, in two groups.
    const std::int64_t heads = 24, n = 11;
    const Tensor x = random(heads, 4), dt = random(heads, 5), b = random(2 * n, 6), c = random(2 * n, 7),
                 a = ops::mul(ops::unary(vector(heads, n, 8), {UnaryOp::exp}), -1.0f),
                 d_ = vector(1, heads, 9), bias = vector(1, heads, 10);
    all.push_back({"selective_scan per channel", heads * n, [=](auto from, auto to, auto& s, auto& g) {
                     const Tensor step = part(dt, from, to);
                     return ops::selective_scan(
                         part(x, from, to), part(b, from, to), part(c, from, to), s, g, heads, 2,
                         {.dt = &step, .dt_bias = &bias, .a = &a, .d = &d_, .softplus = true});
                   }});
  }
  {
    const std::int64_t heads = 6, p = 10, n = 16;
    const Tensor x = random(heads * p, 11), dt = random(heads, 12), b = random(3 * n, 13),
                 c = random(3 * n, 14), a = ops::mul(ops::unary(vector(1, heads, 15), {UnaryOp::exp}), -1.0f);
    all.push_back({"selective_scan per head", heads * p * n, [=](auto from, auto to, auto& s, auto& g) {
                     const Tensor step = part(dt, from, to);
                     return ops::selective_scan(
                         part(x, from, to), part(b, from, to), part(c, from, to), s, g, heads, 3,
                         {.dt = &step, .a = &a, .softplus = true, .dt_min = 0.3f, .dt_max = 1.1f});
                   }});
    all.push_back(
        {"selective_scan with fixed decay", heads * p * n, [=](auto from, auto to, auto& s, auto& g) {
           return ops::selective_scan(part(x, from, to), part(b, from, to), part(c, from, to), s, g, heads, 3,
                                      {.a = &a});
         }});
    const Tensor log_decay = random(heads, 16, 0.3f);
    all.push_back(
        {"selective_scan with its decay alone", heads * p * n, [=](auto from, auto to, auto& s, auto& g) {
           const Tensor step = part(log_decay, from, to);
           return ops::selective_scan(part(x, from, to), part(b, from, to), part(c, from, to), s, g, heads, 3,
                                      {.dt = &step, .scale_input = false});
         }});
  }
  for (const bool per_channel : {false, true}) {
    const std::int64_t heads = 4, keys = 2, kd = 9, vd = 12;
    const Tensor q = random(keys * kd, 20), k = random(keys * kd, 21), v = random(heads * vd, 22),
                 beta = ops::unary(random(heads, 23), {UnaryOp::sigmoid}),
                 g = ops::mul(ops::unary(random(per_channel ? heads * kd : heads, 24), {UnaryOp::softplus}),
                              -1.0f);
    all.push_back({"gated_delta_rule " + std::to_string(per_channel), heads * kd * vd,
                   [=](auto from, auto to, auto& s, auto& segs) {
                     return ops::gated_delta_rule(part(q, from, to), part(k, from, to), part(v, from, to),
                                                  part(g, from, to), part(beta, from, to), s, segs, heads,
                                                  keys, {.l2norm_eps = 1e-6f});
                   }});
  }
  for (const bool max_plus : {false, true}) {
    for (const bool exclusive : {false, true}) {
      const std::int64_t channels = 270;
      const Tensor a = random(channels, 30, 0.5f), b = random(channels, 31);
      all.push_back(
          {"linear_recurrence " + std::to_string(max_plus) + std::to_string(exclusive), channels,
           [=](auto from, auto to, auto& s, auto& g) {
             return ops::linear_recurrence(
                 part(a, from, to), part(b, from, to), s, g,
                 {.max_plus = max_plus, .exclusive = exclusive, .initial = max_plus ? -3.0f : 0.5f});
           }});
    }
  }
  return all;
}

TEST(Recurrent, KernelsAreTheirFormulas) {
  for (const std::string& isa : isas()) {
    for (const DataType dtype : {DataType::f32, DataType::bf16}) {
      const auto d = device(isa);
      // Three sequences: one goes on from a state, one begins, one has one row.
      const Tensor rows = segments(*d, {{0, 5, 2, 0}, {5, 7, 0, 1}, {12, 1, 1, 0}});
      for (const Case& c : cases(*d, dtype)) {
        const std::vector<float> start = random_values(slots * c.state, 99);
        const Tensor ours = from_host(*d, start, {slots, c.state}, DataType::f32),
                     theirs = from_host(*d, start, {slots, c.state}, DataType::f32);
        const Tensor y = c.run(0, tokens, ours, rows);
        const Oracle oracle;
        expect_near(y, c.run(0, tokens, theirs, rows), tolerance(dtype, 1e-5), isa + " " + c.name);
        expect_near(ours, theirs, 1e-5, isa + " state of " + c.name);
      }
    }
  }
}

TEST(Recurrent, CutsDoNotMatter) {
  const auto d = device(isas().back());
  for (const Case& c : cases(*d, DataType::bf16)) {
    const std::vector<float> start = random_values(slots * c.state, 98);
    const Tensor whole = from_host(*d, start, {slots, c.state}, DataType::f32),
                 cut = from_host(*d, start, {slots, c.state}, DataType::f32);
    const std::vector<float> y = to_host(c.run(0, tokens, whole, segments(*d, {{0, tokens, 1, 1}})));
    std::vector<float> pieces;
    for (std::int32_t begin = 0, size = 1; begin < tokens; begin += size, size = size % 4 + 1) {
      const std::int32_t end = std::min<std::int32_t>(begin + size, tokens);
      const std::vector<float> piece =
          to_host(c.run(begin, end, cut, segments(*d, {{0, end - begin, 1, begin == 0 ? 1 : 0}})));
      pieces.insert(pieces.end(), piece.begin(), piece.end());
    }
    EXPECT_TRUE(same_bits(pieces, y)) << c.name;
    EXPECT_TRUE(same_bits(to_host(cut), to_host(whole))) << c.name;
  }
}

TEST(Recurrent, ForeignSegmentsAreRefused) {
  const auto d = device(isas().front());
  const Tensor x = random_tensor(*d, {1, 1, 4, 8}, DataType::f32, 1),
               w = random_tensor(*d, {1, 1, 8, 3}, DataType::f32, 2),
               state = random_tensor(*d, {2, 16}, DataType::f32, 3);
  const auto run = [&](const std::vector<Rows>& rows) {
    return ops::causal_conv1d(x, w, nullptr, state, segments(*d, rows));
  };
  EXPECT_NO_THROW(run({{0, 4, 1, 0}}));
  EXPECT_THROW(run({{0, 4, 2, 0}}), Error);   // no such slot
  EXPECT_THROW(run({{1, 4, 0, 0}}), Error);   // beyond the rows
  EXPECT_THROW(run({{0, 3, 0, 0}}), Error);   // a row that nobody owns
  EXPECT_THROW(run({{-1, 4, 0, 0}}), Error);  // before the first
}

}  // namespace
}  // namespace ttt::cpu_tests

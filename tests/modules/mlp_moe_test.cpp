#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "modules/support.h"
#include "ttt/modules/lm_head.h"
#include "ttt/modules/moe.h"

namespace {

using namespace ttt;
using namespace ttt::test;

constexpr std::int64_t dim = 40, hidden = 56;

Tensor rows(const std::vector<float>& x, std::int64_t width = dim) {
  return from_host(cpu_home().backend(), x, {1, 1, static_cast<std::int64_t>(x.size()) / width, width},
                   DataType::f32);
}

double act(UnaryOp op, double x) {
  switch (op) {
    case UnaryOp::silu:
      return x / (1 + std::exp(-x));
    case UnaryOp::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case UnaryOp::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case UnaryOp::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case UnaryOp::relu:
      return std::max(x, 0.0);
    case UnaryOp::relu2:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case UnaryOp::tanh:
      return std::tanh(x);
    case UnaryOp::sigmoid:
      return 1 / (1 + std::exp(-x));
    default:
      ADD_FAILURE() << "no reference for " << name(op);
      return 0;
  }
}

std::vector<float> mlp(const Matrix* gate, const Matrix& up, const Matrix& down, UnaryOp op,
                       const std::vector<float>& x) {
  std::vector<float> h = multiply(up, x);
  if (gate != nullptr) {
    const std::vector<float> g = multiply(*gate, x);
    for (std::size_t i = 0; i < h.size(); ++i) h[i] = static_cast<float>(act(op, g[i]) * h[i]);
  } else {
    for (float& e : h) e = static_cast<float>(act(op, e));
  }
  return multiply(down, h);
}

TEST(Mlp, EveryActivationGatedAndPlain) {
  const Matrix gate = matrix(hidden, dim, 1), up = matrix(hidden, dim, 2), down = matrix(dim, hidden, 3);
  const std::vector<float> x = values(7 * dim, 4, 3);
  for (UnaryOp op : {UnaryOp::silu, UnaryOp::gelu, UnaryOp::gelu_tanh, UnaryOp::quick_gelu, UnaryOp::relu,
                     UnaryOp::relu2, UnaryOp::tanh, UnaryOp::sigmoid}) {
    const Mlp gated = Mlp::from_config(
        {.gate = gate.weight(), .up = up.weight(), .down = down.weight(), .act = Activation{op}},
        f32_target(), cpu_home());
    EXPECT_LT(largest_difference(to_host(gated.prefill(rows(x))), mlp(&gate, up, down, op, x)), 2e-5)
        << name(op);
    const Mlp plain = Mlp::from_config({.up = up.weight(), .down = down.weight(), .act = Activation{op}},
                                       f32_target(), cpu_home());
    EXPECT_LT(largest_difference(to_host(plain.decode(rows(x))), mlp(nullptr, up, down, op, x)), 2e-5)
        << name(op);
  }
}

TEST(Mlp, BiasesAndTheSimpleConstructor) {
  const Matrix gate = matrix(hidden, dim, 1), up = matrix(hidden, dim, 2), down = matrix(dim, hidden, 3);
  const Matrix gb = vector(hidden, 5), ub = vector(hidden, 6), db = vector(dim, 7);
  const std::vector<float> x = values(3 * dim, 8);
  const Mlp biased = Mlp::from_config({.gate = gate.weight(),
                                       .up = up.weight(),
                                       .down = down.weight(),
                                       .gate_bias = gb.weight(WeightRole::vector),
                                       .up_bias = ub.weight(WeightRole::vector),
                                       .down_bias = db.weight(WeightRole::vector)},
                                      f32_target(), cpu_home());
  std::vector<float> g = multiply(gate, x, gb.data), u = multiply(up, x, ub.data);
  for (std::size_t i = 0; i < u.size(); ++i) u[i] = static_cast<float>(act(UnaryOp::silu, g[i]) * u[i]);
  EXPECT_LT(largest_difference(to_host(biased.prefill(rows(x))), multiply(down, u, db.data)), 2e-5);
  const Mlp simple(gate.weight(), up.weight(), down.weight(), f32_target(), cpu_home());
  EXPECT_LT(largest_difference(to_host(simple.prefill(rows(x))), mlp(&gate, up, down, UnaryOp::silu, x)),
            2e-5);
}

TEST(Mlp, LimitsCutGateAndUp) {
  const Matrix gate = matrix(hidden, dim, 1), up = matrix(hidden, dim, 2), down = matrix(dim, hidden, 3);
  const std::vector<float> x = values(6 * dim, 9, 4);
  const Mlp limited = Mlp::from_config({.gate = gate.weight(),
                                        .up = up.weight(),
                                        .down = down.weight(),
                                        .act = Activation{UnaryOp::quick_gelu},
                                        .limit = GluLimit{.limit = 0.7f, .up_offset = 1}},
                                       f32_target(), cpu_home());
  std::vector<float> g = multiply(gate, x), u = multiply(up, x);
  for (std::size_t i = 0; i < u.size(); ++i)
    u[i] = static_cast<float>(act(UnaryOp::quick_gelu, std::min(g[i], 0.7f)) *
                              (std::clamp(u[i], -0.7f, 0.7f) + 1));
  EXPECT_LT(largest_difference(to_host(limited.prefill(rows(x))), multiply(down, u)), 2e-5);
}

TEST(Mlp, ResolveRejectsWidthsThatDoNotMeet) {
  const Matrix gate = matrix(hidden + 1, dim, 1), up = matrix(hidden, dim, 2),
               down = matrix(dim, hidden + 2, 3);
  EXPECT_THROW(
      resolve(MlpConfig{.gate = gate.weight(), .up = up.weight(), .down = matrix(dim, hidden, 3).weight()},
              Target{}),
      Error);
  EXPECT_THROW(resolve(MlpConfig{.up = up.weight(), .down = down.weight()}, Target{}), Error);
  EXPECT_THROW(resolve(MlpConfig{.up = up.weight()}, Target{}), Error);
}

TEST(LmHead, ScaleThenSoftcap) {
  const Matrix w = matrix(70, dim, 1);
  const std::vector<float> x = values(2 * dim, 2, 4);
  const LmHead head =
      LmHead::from_config({.weight = w.weight(), .scale = 0.5f, .softcap = 1.5f}, f32_target(), cpu_home());
  std::vector<float> want = multiply(w, x);
  for (float& e : want) e = 1.5f * std::tanh(0.5f * e / 1.5f);
  EXPECT_LT(largest_difference(to_host(head(rows(x))), want), 1e-5);
}

// --- mixtures of experts

struct Experts {
  int count, top_k;
  Matrix router, correction, gate, up, down;
  Experts(int n, int k)
      : count(n),
        top_k(k),
        router(matrix(n, dim, 21)),
        correction(vector(n, 22)),
        gate(matrix(n * 24, dim, 23)),
        up(matrix(n * 24, dim, 24)),
        down(matrix(n * dim, 24, 25)) {}
  MoeConfig config(const RouterSpec& spec, bool gated = true) const {
    MoeConfig c{.spec = {.experts = count, .top_k = top_k, .hidden = 24, .router = spec, .gated = gated},
                .router = {.spec = spec,
                           .experts = count,
                           .top_k = top_k,
                           .weight = router.weight(),
                           .name = {"layers.0.ffn.router", 0}},
                .up = up.weight(),
                .down = down.weight(),
                .name = {"layers.0.ffn", 0}};
    if (gated) c.gate = gate.weight();
    if (spec.correction_bias) c.router.correction_bias = correction.weight(WeightRole::vector);
    return c;
  }
};

Matrix expert_of(const Matrix& all, int e, int n) {
  const std::int64_t each = all.rows / n;
  return {
      each, all.cols, {all.data.begin() + e * each * all.cols, all.data.begin() + (e + 1) * each * all.cols}};
}

// The definition, for one token at a time.
std::vector<float> reference(const Experts& w, const RouterSpec& s, const std::vector<float>& x,
                             bool gated = true) {
  std::vector<float> y;
  const auto n = static_cast<std::size_t>(w.count), k = static_cast<std::size_t>(w.top_k);
  for (std::size_t t = 0; t < x.size() / dim; ++t) {
    const std::vector<float> token(x.begin() + static_cast<std::ptrdiff_t>(t * dim),
                                   x.begin() + static_cast<std::ptrdiff_t>((t + 1) * dim));
    const std::vector<float> logits = multiply(w.router, token);
    std::vector<double> score(n), ranking(n);
    const double most = *std::ranges::max_element(logits);
    double total = 0;
    for (std::size_t e = 0; e < n; ++e)
      total += score[e] =
          s.score == RouterScore::softmax ? std::exp(logits[e] - most) : 1 / (1 + std::exp(-logits[e]));
    if (s.score == RouterScore::softmax)
      for (double& e : score) e /= total;
    for (std::size_t e = 0; e < n; ++e)
      ranking[e] = score[e] + (s.correction_bias ? w.correction.data[e] : 0);
    if (s.groups > 1) {
      const std::size_t size = n / static_cast<std::size_t>(s.groups);
      std::vector<std::pair<double, std::size_t>> groups;
      for (std::size_t g = 0; g < static_cast<std::size_t>(s.groups); ++g) {
        std::vector<double> members(ranking.begin() + static_cast<std::ptrdiff_t>(g * size),
                                    ranking.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
        std::ranges::sort(members, std::greater<>());
        groups.emplace_back(-std::accumulate(members.begin(), members.begin() + s.group_score_top, 0.0), g);
      }
      std::ranges::sort(groups);
      for (std::size_t i = static_cast<std::size_t>(s.top_groups); i < groups.size(); ++i)
        for (std::size_t e = groups[i].second * size; e < (groups[i].second + 1) * size; ++e)
          ranking[e] = -1e30;
    }
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    std::ranges::stable_sort(order, [&](auto a, auto b) { return ranking[a] > ranking[b]; });
    order.resize(k);
    std::vector<double> weight;
    for (std::size_t e : order) weight.push_back(score[e]);
    if (s.order == RouterOrder::top_k_then_score && s.score == RouterScore::softmax) {
      const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
      for (double& p : weight) p /= sum;
    }
    if (s.renormalize) {
      const double sum = std::accumulate(weight.begin(), weight.end(), 0.0) + s.renormalize_eps;
      for (double& p : weight) p /= sum;
    }
    std::vector<double> out(dim, 0.0);
    for (std::size_t i = 0; i < k; ++i) {
      const int e = static_cast<int>(order[i]);
      const Matrix gate = expert_of(w.gate, e, w.count);
      const std::vector<float> one = mlp(gated ? &gate : nullptr, expert_of(w.up, e, w.count),
                                         expert_of(w.down, e, w.count), UnaryOp::silu, token);
      for (std::size_t d = 0; d < out.size(); ++d) out[d] += weight[i] * s.scale * one[d];
    }
    y.insert(y.end(), out.begin(), out.end());
  }
  return y;
}

TEST(Moe, EveryRouterEqualsTheDefinition) {
  const Experts w(12, 3);
  const std::vector<float> x = values(9 * dim, 30, 2);
  const RouterSpec specs[] = {{},
                              {.renormalize = true},
                              {.order = RouterOrder::top_k_then_score},
                              {.score = RouterScore::sigmoid,
                               .renormalize = true,
                               .renormalize_eps = 1e-20f,
                               .scale = 2.5f,
                               .correction_bias = true},
                              {.score = RouterScore::sigmoid, .order = RouterOrder::top_k_then_score},
                              {.score = RouterScore::sigmoid,
                               .renormalize = true,
                               .correction_bias = true,
                               .groups = 4,
                               .top_groups = 2},
                              {.scale = 3, .groups = 3, .top_groups = 1, .group_score_top = 1}};
  for (const RouterSpec& spec : specs) {
    for (bool gated : {true, false}) {
      SCOPED_TRACE("router " + std::to_string(&spec - specs) + (gated ? " gated" : " plain"));
      const Moe moe = Moe::from_config(w.config(spec, gated), f32_target(), cpu_home());
      EXPECT_LT(largest_difference(to_host(moe.prefill(rows(x))), reference(w, spec, x, gated)), 3e-5);
      const std::vector<float> one(x.begin(), x.begin() + dim);
      EXPECT_LT(largest_difference(to_host(moe.decode(rows(one))), reference(w, spec, one, gated)), 3e-5);
    }
  }
}

TEST(Moe, SharedExpertsWithAndWithoutTheirGate) {
  const Experts w(6, 2);
  const Matrix gate = matrix(hidden, dim, 41), up = matrix(hidden, dim, 42), down = matrix(dim, hidden, 43),
               shared_gate = matrix(1, dim, 44);
  const std::vector<float> x = values(5 * dim, 45), routed = reference(w, {}, x),
                           shared = mlp(&gate, up, down, UnaryOp::silu, x);
  const std::vector<float> open = multiply(shared_gate, x);
  for (bool gated : {false, true}) {
    MoeConfig c = w.config({});
    c.spec.shared = MlpSpec{.hidden = hidden};
    c.shared = MlpConfig{.gate = gate.weight(), .up = up.weight(), .down = down.weight()};
    if (gated) c.spec.shared_gate = true, c.shared_gate = shared_gate.weight();
    std::vector<float> want = routed;
    for (std::size_t i = 0; i < want.size(); ++i)
      want[i] += shared[i] * (gated ? static_cast<float>(act(UnaryOp::sigmoid, open[i / dim])) : 1.0f);
    EXPECT_LT(
        largest_difference(to_host(Moe::from_config(c, f32_target(), cpu_home()).prefill(rows(x))), want),
        3e-5)
        << gated;
  }
}

TEST(Moe, AChoiceMadeElsewhere) {
  const Experts w(6, 2);
  const std::vector<float> x = values(5 * dim, 46);
  MoeConfig c = w.config({});
  const Router router = Router::from_config(c.router, f32_target(), cpu_home());
  const Moe whole = Moe::from_config(c, f32_target(), cpu_home());
  c.router.weight = {};
  const Moe experts = Moe::from_config(c, f32_target(), cpu_home());
  Router::Choice choice = router.forward(rows(x), Mode::prefill);
  EXPECT_EQ(to_host(experts.forward(rows(x), choice, Mode::prefill)), to_host(whole.prefill(rows(x))));
  // Numbers beyond the experts: nothing is added.
  choice.experts =
      from_host(cpu_home().backend(), std::vector<std::int32_t>(10, 6), {1, 1, 5, 2}, DataType::u32);
  EXPECT_EQ(to_host(experts.forward(rows(x), choice, Mode::prefill)), std::vector<float>(5 * dim, 0.0f));
}

// On a card an expert of 17 tiles, a prime, gets 18: more zeros and the same numbers.
TEST(Moe, ExpertsThatGetMoreUnitsGiveTheSame) {
  constexpr std::int64_t units = 17 * 32 - 5, experts = 3;
  const Matrix router = matrix(experts, dim, 1), gate = matrix(experts * units, dim, 2),
               up = matrix(experts * units, dim, 3), down = matrix(experts * dim, units, 4);
  const Matrix gb{experts, units, values(static_cast<std::size_t>(experts * units), 5)},
      ub{experts, units, values(static_cast<std::size_t>(experts * units), 6)};
  const std::vector<float> x = values(5 * dim, 7);
  for (const bool gated : {true, false}) {
    const auto moe = [&](const Target& target) {
      return Moe::from_config(
          {.spec = {.experts = experts, .top_k = 2, .hidden = static_cast<int>(units), .gated = gated},
           .router = {.experts = experts, .top_k = 2, .weight = router.weight()},
           .gate = gate.weight(),
           .up = up.weight(),
           .down = down.weight(),
           .gate_bias = gb.weight(WeightRole::vector),
           .up_bias = ub.weight(WeightRole::vector)},
          target, cpu_home());
    };
    const Moe plain = moe(f32_target()), padded = moe(make_target(hw::n150(), "f32"));
    EXPECT_EQ(padded.plan().up.rows(), experts * 18 * 32);
    EXPECT_EQ(padded.plan().down.cols(), 18 * 32);
    EXPECT_LT(largest_difference(to_host(padded.prefill(rows(x))), to_host(plain.prefill(rows(x)))), 1e-6)
        << gated;
  }
}

TEST(Moe, ResolveRejectsImpossibleChoices) {
  const Experts w(6, 2);
  MoeConfig c = w.config({});
  c.router.top_k = 7;
  EXPECT_THROW(resolve(c, Target{}), Error);
  c = w.config({});
  c.router.spec.groups = 4;
  EXPECT_THROW(resolve(c, Target{}), Error);
  c = w.config({});
  c.down = {};
  EXPECT_THROW(resolve(c, Target{}), Error);
}

}  // namespace

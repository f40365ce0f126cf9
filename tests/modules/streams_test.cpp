// Shifted tokens, relative biases and hyper-connections against their formulas.
#include <gtest/gtest.h>

#include "modules/support.h"
#include "ttt/modules/hyper_connections.h"
#include "ttt/modules/relative_bias.h"
#include "ttt/modules/token_shift.h"

namespace {

using namespace ttt;
using namespace ttt::test;

Tensor device_tensor(const std::vector<float>& x, const Shape& shape) {
  return from_host(cpu_home().backend(), x, shape, DataType::f32);
}

TEST(TokenShift, GivesTheTokenBefore) {
  const std::vector<float> x = values(9 * 4, 1);
  const TokenShift shift(4, cpu_home());
  const Tensor state =
      device_tensor(std::vector<float>(3 * 4, 7.0f), {3, 4});  // left over by another sequence
  const auto run = [&](std::int64_t begin, std::int64_t count) {
    Step step;
    step.tokens = count;
    step.segments =
        from_host(cpu_home().backend(),
                  std::vector<std::int32_t>{0, static_cast<std::int32_t>(count), 2, begin == 0}, {1, 4});
    const std::vector<float> part(x.begin() + begin * 4, x.begin() + (begin + count) * 4);
    return to_host(shift.forward(device_tensor(part, {1, 1, count, 4}), state, step));
  };
  std::vector<float> got, want(4, 0.0f);
  for (const auto& [begin, count] : {std::pair{0, 4}, {4, 1}, {5, 4}}) {
    const std::vector<float> part = run(begin, count);
    got.insert(got.end(), part.begin(), part.end());
  }
  want.insert(want.end(), x.begin(), x.end() - 4);
  EXPECT_EQ(got, want);
}

TEST(RelativeBias, EqualsItsFormula) {
  const std::int64_t heads = 3, tokens = 6, profiles = 4, extent = 5;
  const Matrix p = matrix(profiles, extent, 1);
  const std::vector<float> r = values(static_cast<std::size_t>(heads * tokens * profiles), 2);
  const RelativeBias bias =
      RelativeBias::from_config({.profiles = p.weight(WeightRole::vector)}, f32_target(), cpu_home());
  // Rows 2 to 5 of the step continue a sequence of 7 tokens.
  const SequenceRows rows{.first = 2, .count = 4, .context = 7};
  const Tensor y = bias.forward(device_tensor(r, {1, heads, tokens, profiles}), rows);
  ASSERT_EQ(y.shape(), (Shape{1, heads, 4, 11}));
  const std::vector<float> got = to_host(y);
  std::vector<float> want;
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t i = 0; i < 4; ++i) {
      for (std::int64_t j = 0; j < 11; ++j) {
        const std::int64_t distance = 7 + i - j;
        double sum = 0;
        for (std::int64_t k = 0; distance >= 0 && distance < extent && k < profiles; ++k)
          sum += static_cast<double>(r[static_cast<std::size_t>((h * tokens + 2 + i) * profiles + k)]) *
                 p.data[static_cast<std::size_t>(k * extent + distance)];
        want.push_back(static_cast<float>(sum));
      }
    }
  }
  EXPECT_LT(largest_difference(got, want), 1e-5);
}

// The definition for one token; streams [n][dim], y what the part made of the mix.
struct Token {
  std::vector<double> x;                  // the mix
  std::vector<std::vector<double>> next;  // the streams after y
};
Token reference(const HyperConnectionSpec& s, const Matrix& f, const Matrix& base, const Matrix& scale,
                const float* streams, const float* y, std::size_t dim) {
  const auto n = static_cast<std::size_t>(s.streams);
  double square = 0;
  for (std::size_t i = 0; i < n * dim; ++i) square += static_cast<double>(streams[i]) * streams[i];
  const double norm = 1 / std::sqrt(square / static_cast<double>(n * dim) + s.norm_eps);
  std::vector<double> w;
  for (std::size_t o = 0; o < static_cast<std::size_t>(s.outputs()); ++o) {
    double sum = 0;
    for (std::size_t i = 0; i < n * dim; ++i)
      sum += static_cast<double>(f.data[o * n * dim + i]) * streams[i];
    const std::size_t kind = o < n ? 0 : o < 2 * n ? 1 : 2;
    w.push_back(sum * norm * scale.data[kind] + base.data[o]);
  }
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  Token token{std::vector<double>(dim), std::vector<std::vector<double>>(n, std::vector<double>(dim))};
  for (std::size_t k = 0; k < n; ++k)
    for (std::size_t i = 0; i < dim; ++i) token.x[i] += (sigmoid(w[k]) + s.eps) * streams[k * dim + i];
  if (s.head) return token;
  std::vector<std::vector<double>> mix(n, std::vector<double>(n));
  for (std::size_t a = 0; a < n; ++a) {
    double total = 0;
    for (std::size_t b = 0; b < n && s.sinkhorn_iterations > 0; ++b) total += std::exp(w[2 * n + a * n + b]);
    for (std::size_t b = 0; b < n; ++b)
      mix[a][b] = s.sinkhorn_iterations > 0 ? std::exp(w[2 * n + a * n + b]) / total + s.eps : a == b;
  }
  for (int i = 0; i < s.sinkhorn_iterations; ++i) {
    for (std::size_t a = 0; a < n && i > 0; ++a) {
      double sum = s.eps;
      for (std::size_t b = 0; b < n; ++b) sum += mix[a][b];
      for (std::size_t b = 0; b < n; ++b) mix[a][b] /= sum;
    }
    for (std::size_t b = 0; b < n; ++b) {
      double sum = s.eps;
      for (std::size_t a = 0; a < n; ++a) sum += mix[a][b];
      for (std::size_t a = 0; a < n; ++a) mix[a][b] /= sum;
    }
  }
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < dim; ++i) {
      token.next[k][i] = (s.magnitude * sigmoid(w[n + k]) + s.post_eps) * y[i];
      for (std::size_t m = 0; m < n; ++m) token.next[k][i] += mix[m][k] * streams[m * dim + i];
    }
  }
  return token;
}

TEST(HyperConnection, EveryKindEqualsTheDefinition) {
  const std::size_t dim = 16, tokens = 5;
  const HyperConnectionSpec specs[] = {{.streams = 3, .sinkhorn_iterations = 4},
                                       {.streams = 2, .eps = 1e-3f, .magnitude = 1.5f, .post_eps = 1e-3f},
                                       {.streams = 4, .head = true}};
  for (const HyperConnectionSpec& s : specs) {
    SCOPED_TRACE(&s - specs);
    const auto n = static_cast<std::size_t>(s.streams);
    const Matrix f = matrix(s.outputs(), static_cast<std::int64_t>(n * dim), 1),
                 base = vector(s.outputs(), 2), scale = vector(s.scales(), 3, 2);
    const HyperConnection connection =
        HyperConnection::from_config({.spec = s,
                                      .weight = f.weight(WeightRole::vector),
                                      .base = base.weight(WeightRole::vector),
                                      .scale = scale.weight(WeightRole::vector)},
                                     f32_target(), cpu_home());
    const std::vector<float> x = values(tokens * n * dim, 4), y = values(tokens * dim, 5);
    const Tensor streams = device_tensor(x, {1, 1, tokens, static_cast<std::int64_t>(n * dim)});
    const HyperConnection::Read read = connection.read(streams);
    std::vector<float> mixed, next;
    for (std::size_t t = 0; t < tokens; ++t) {
      const Token token = reference(s, f, base, scale, &x[t * n * dim], &y[t * dim], dim);
      mixed.insert(mixed.end(), token.x.begin(), token.x.end());
      for (const auto& stream : token.next) next.insert(next.end(), stream.begin(), stream.end());
    }
    EXPECT_LT(largest_difference(to_host(read.x), mixed), 2e-5);
    if (s.head) continue;
    EXPECT_LT(largest_difference(
                  to_host(connection.write(device_tensor(y, {1, 1, tokens, dim}), read, streams)), next),
              2e-5);
  }
}

TEST(HyperConnection, StreamsBeginAsCopies) {
  EXPECT_EQ(to_host(spread_streams(device_tensor({1, 2, 3, 4}, {1, 1, 2, 2}), 2)),
            (std::vector<float>{1, 2, 1, 2, 3, 4, 3, 4}));
}

TEST(HyperConnection, MisshapenWeightsAreRefused) {
  const Matrix f = matrix(6, 32, 1), base = vector(6, 2), scale = vector(2, 3);
  const auto with = [&](const Matrix& w, const Matrix& b, const Matrix& s) {
    return resolve(HyperConnectionConfig{.spec = {.streams = 3},
                                         .weight = w.weight(WeightRole::vector),
                                         .base = b.weight(WeightRole::vector),
                                         .scale = s.weight(WeightRole::vector)},
                   Target{});
  };
  EXPECT_THROW(with(f, base, scale), Error);  // 32 columns are no 3 streams
  const Matrix fits = matrix(6, 33, 1);
  EXPECT_NO_THROW(with(fits, base, scale));
  EXPECT_THROW(with(fits, vector(5, 2), scale), Error);
  EXPECT_THROW(with(fits, base, vector(3, 3)), Error);
}

}  // namespace

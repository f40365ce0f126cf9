#include "ttt/runtime/sampler.h"
#include "paths.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "ttt/base/error.h"

namespace ttt {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

// The plain form of the processors: double precision and a full sort.
std::vector<double> plain_distribution(std::span<const float> logits, const SamplingParams& p) {
  const std::size_t n = logits.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  std::vector<double> weight(n);
  for (std::size_t i = 0; i < n; ++i)
    weight[i] = std::exp((static_cast<double>(logits[i]) - logits[order[0]]) / p.temperature);
  if (p.top_k > 0 && static_cast<std::size_t>(p.top_k) < n) {
    const float kth = logits[order[static_cast<std::size_t>(p.top_k) - 1]];
    for (std::size_t i = 0; i < n; ++i)
      if (logits[i] < kth) weight[i] = 0;
  }
  if (p.top_p < 1) {
    const double needed = p.top_p * std::accumulate(weight.begin(), weight.end(), 0.0);
    double before = 0;
    for (const std::size_t i : order) {
      const double own = weight[i];
      if (before >= needed) weight[i] = 0;
      before += own;
    }
  }
  for (double& w : weight)
    if (w < p.min_p) w = 0;
  const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  for (double& w : weight) w /= total;
  return weight;
}

std::vector<double> dense(const std::vector<Sampler::Candidate>& kept, std::size_t n) {
  std::vector<double> all(n, 0);
  for (const auto& c : kept) all[static_cast<std::size_t>(c.id)] = c.probability;
  return all;
}

nlohmann::json goldens() {
  std::ifstream file(ttt::test::source_dir() + "/tests/runtime/data/sampling.json");
  return nlohmann::json::parse(file);
}

TEST(Sampler, MatchesTransformersProcessors) {
  const auto cases = goldens();
  ASSERT_GE(cases.size(), 50u);
  Sampler sampler;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    const auto& c = cases[i];
    const auto& q = c["params"];
    SamplingParams p;
    p.temperature = q["temperature"], p.top_k = q["top_k"], p.top_p = q["top_p"], p.min_p = q["min_p"];
    p.repetition_penalty = q["repetition_penalty"], p.presence_penalty = q["presence_penalty"];
    p.frequency_penalty = q["frequency_penalty"];
    auto logits = c["logits"].get<std::vector<float>>();
    const auto raw = logits;
    Penalties penalties(p, c["prompt"].get<std::vector<std::int32_t>>());
    for (const std::int32_t id : c["output"]) penalties.add(id);
    penalties.apply(logits);
    for (std::size_t v = 0; v < logits.size(); ++v)
      ASSERT_NEAR(logits[v], c["penalised"][v].get<float>(), 1e-5f) << v;

    const auto got = dense(sampler.distribution(logits, p), logits.size());
    for (std::size_t v = 0; v < got.size(); ++v) {
      const double wanted = c["probabilities"][v];
      ASSERT_NEAR(got[v], wanted, 2e-6) << v;
      ASSERT_EQ(got[v] > 0, wanted > 0) << v;
    }
    for (std::int32_t v = 0; v < static_cast<std::int32_t>(raw.size()); ++v) {
      const auto position = log_probabilities(raw, v, 5);
      ASSERT_NEAR(position.token.logprob, c["logprobs"][static_cast<std::size_t>(v)].get<double>(), 2e-6);
      for (std::size_t t = 0; t < 5; ++t) ASSERT_EQ(position.top[t].id, c["top"][t].get<std::int32_t>());
    }
  }
}

TEST(Sampler, SelectsWhatASortSelects) {
  Sampler sampler;
  for (unsigned seed = 0; seed < 400; ++seed) {
    std::mt19937 rng(seed);
    std::vector<float> logits(1 + rng() % (seed % 4 == 0 ? 5000 : 90));
    std::normal_distribution<float> normal(0, 0.2f + static_cast<float>(rng() % 40) / 4);
    for (float& l : logits) {
      l = normal(rng);
      if (seed % 3 == 0) l = std::round(l);  // ties
      if (rng() % 10 == 0) l = -inf;
    }
    logits[rng() % logits.size()] = 1;
    SamplingParams p;
    p.temperature = 0.2f + static_cast<float>(rng() % 20) / 10;
    if (rng() % 2) p.top_k = 1 + static_cast<int>(rng() % (rng() % 2 ? 10 : 3000));
    if (rng() % 2) p.top_p = static_cast<float>(1 + rng() % 99) / 100;
    if (rng() % 2) p.min_p = static_cast<float>(rng() % 50) / 100;
    const auto got = dense(sampler.distribution(logits, p), logits.size());
    const auto wanted = plain_distribution(logits, p);
    for (std::size_t v = 0; v < got.size(); ++v)
      ASSERT_NEAR(got[v], wanted[v], 3e-6) << "seed " << seed << ", token " << v;
    // A draw falls on the token whose share of [0, 1), by id, holds the number.
    const double u = counter_uniform(seed, 0);
    const auto id = static_cast<std::size_t>(sampler.sample(logits, p, u));
    double before = 0;
    for (std::size_t v = 0; v < id; ++v) before += wanted[v];
    EXPECT_LE(before, u + 1e-5);
    EXPECT_GE(before + wanted[id], u - 1e-5);
    EXPECT_GT(wanted[id], 0);
  }
}

TEST(Sampler, DrawsFromTheDistribution) {
  // Pearson's chi-square against the kept probabilities; 0.9999 quantiles for 9 and 4 degrees of freedom.
  const std::vector<float> logits = {0.5f, -1, 2, 0, 1.5f, -0.5f, 1, -2, 0.25f, 3};
  struct Case {
    SamplingParams params;
    double quantile;
  };
  std::vector<Case> cases(2);
  cases[0] = {.params = {.temperature = 1.3f}, .quantile = 33.72};
  cases[1] = {.params = {.temperature = 0.9f, .top_k = 5}, .quantile = 23.51};
  for (const auto& [params, quantile] : cases) {
    Sampler sampler;
    const auto probabilities = plain_distribution(logits, params);
    constexpr int draws = 40000;
    std::vector<int> counts(logits.size());
    for (int i = 0; i < draws; ++i)
      ++counts[static_cast<std::size_t>(
          sampler.sample(logits, params, counter_uniform(99, static_cast<std::uint64_t>(i))))];
    double chi_square = 0;
    for (std::size_t v = 0; v < logits.size(); ++v) {
      if (probabilities[v] == 0) {
        EXPECT_EQ(counts[v], 0);
        continue;
      }
      const double expected = draws * probabilities[v];
      chi_square += (counts[v] - expected) * (counts[v] - expected) / expected;
    }
    EXPECT_LT(chi_square, quantile);
    EXPECT_GT(chi_square, 0.1) << "too good to be random";
  }
}

TEST(Sampler, CounterUniformIsPhilox) {
  // Known answers of Random123's kat_vectors: philox4x32-10 of counter 0, key 0 begins 6627e8d5 e169c58d.
  EXPECT_EQ(counter_uniform(0, 0), static_cast<double>(0x6627e8d5e169c58du >> 11) * 0x1p-53);
  EXPECT_NE(counter_uniform(1, 0), counter_uniform(0, 0));
  EXPECT_NE(counter_uniform(0, 1), counter_uniform(0, 0));
  EXPECT_NE(counter_uniform(std::uint64_t{1} << 32, 0), counter_uniform(0, 0));
  double sum = 0;
  for (std::uint64_t i = 0; i < 10000; ++i) {
    const double u = counter_uniform(5, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);
}

TEST(Sampler, GreedyTakesTheFirstMaximum) {
  Sampler sampler;
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 3, 2}, {}, 0.9), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-inf, -5, -inf}, {}, 0), 1);
  for (std::size_t n : {1u, 15u, 16u, 17u, 1023u, 1024u, 1025u, 70000u}) {
    for (const std::size_t at : {std::size_t{0}, n / 2, n - 1}) {
      std::vector<float> logits(n, -1);
      logits[at] = 0.5f;
      EXPECT_EQ(sampler.sample(logits, {}, 0), static_cast<std::int32_t>(at));
    }
  }
  // So small a temperature that all but the maximum vanish.
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 2}, {.temperature = 1e-30f}, 0.99), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 2}, {.temperature = 2e-5f}, 0.99), 1);
}

TEST(Sampler, ArgmaxTellsOfNans) {
  EXPECT_EQ(argmax(std::vector<float>{2}), 0);
  EXPECT_EQ(argmax(std::vector<float>(40, -inf)), 0);
  EXPECT_EQ(argmax(std::vector<float>{0, inf, inf}), 1);
  std::vector<float> logits(3000, -2);
  for (const std::size_t at : {0u, 15u, 1024u, 2991u, 2999u}) {
    logits[at] = std::nanf("");
    EXPECT_EQ(argmax(logits), -1);
    logits[at] = -1;
    EXPECT_EQ(argmax(logits), static_cast<std::int32_t>(at));
    logits[at] = -2;
  }
}

TEST(Sampler, NamesBadLogits) {
  Sampler sampler;
  std::vector<float> logits(3000, 0);
  for (const std::size_t at : {0u, 17u, 1500u, 2999u}) {
    logits[at] = std::nanf("");
    for (const float temperature : {0.0f, 1.0f}) {
      try {
        sampler.sample(logits, {.temperature = temperature}, 0.5);
        FAIL() << at;
      } catch (const Error& e) {
        EXPECT_EQ(e.where(), "token " + std::to_string(at));
        EXPECT_NE(e.problem().find("NaN"), std::string::npos);
      }
    }
    logits[at] = inf;
    EXPECT_THROW(sampler.sample(logits, {}, 0.5), Error);
    logits[at] = 0;
  }
  EXPECT_THROW(sampler.sample(std::vector<float>(5, -inf), {.temperature = 1}, 0.5), Error);
}

TEST(Sampler, HoldsAtTheEdges) {
  Sampler sampler;
  const std::vector<float> flat(1000, 2.5f);
  EXPECT_EQ(sampler.distribution(flat, {.temperature = 1, .top_k = 3}).size(), 1000u)
      << "ties with the k-th stay";
  EXPECT_EQ(sampler.distribution(flat, {.temperature = 1, .top_p = 0.25f}).size(), 250u);
  EXPECT_EQ(sampler.distribution(flat, {.temperature = 1, .min_p = 1}).size(), 1000u);
  EXPECT_EQ(sampler.distribution(flat, {.temperature = 1, .top_p = 1e-6f}).size(), 1u);
  EXPECT_EQ(sampler.sample(flat, {.temperature = 1}, 0), 0);
  EXPECT_EQ(sampler.sample(flat, {.temperature = 1}, std::nextafter(1.0, 0.0)), 999);
  std::vector<float> tail = flat;
  for (std::size_t i = 500; i < 1000; ++i) tail[i] = -inf;
  EXPECT_EQ(sampler.sample(tail, {.temperature = 1}, std::nextafter(1.0, 0.0)), 499);
  EXPECT_EQ(sampler.distribution(tail, {.temperature = 1, .top_k = 700}).size(), 500u);
  const std::vector<float> huge = {3e38f, -3e38f, 3e38f};
  EXPECT_EQ(sampler.distribution(huge, {.temperature = 1}).size(), 2u);
}

TEST(LogProbabilities, AreExactForExtremes) {
  const auto one = log_probabilities(std::vector<float>{1000, 1000, -inf}, 1, 3);
  EXPECT_FLOAT_EQ(one.token.logprob, std::log(0.5f));
  EXPECT_EQ(one.rank, 1);
  ASSERT_EQ(one.top.size(), 3u);
  EXPECT_EQ(one.top[0].id, 0);
  EXPECT_EQ(one.top[1].id, 1);
  EXPECT_EQ(one.top[2].logprob, -inf);
  const auto last = log_probabilities(std::vector<float>{-60, 0, -40}, 0, 0);
  EXPECT_FLOAT_EQ(last.token.logprob, -60);
  EXPECT_EQ(last.rank, 3);
  EXPECT_TRUE(last.top.empty());
  // 100,000 equal logits: log of the count, not of a float sum that stalled.
  EXPECT_NEAR(log_probabilities(std::vector<float>(100000, 4), 3, 0).token.logprob, -std::log(100000.0),
              1e-6);
}

TEST(SamplingParams, NamesTheFieldThatIsWrong) {
  const auto problem = [](auto change) -> std::string {
    SamplingParams p;
    change(p);
    try {
      validate(p, 100);
    } catch (const Error& e) { return e.where(); }
    return "";
  };
  EXPECT_EQ(problem([](auto&) {}), "");
  EXPECT_TRUE(problem([](auto& p) { p.temperature = -1; }).starts_with("temperature"));
  EXPECT_TRUE(problem([](auto& p) { p.temperature = std::nanf(""); }).starts_with("temperature"));
  EXPECT_TRUE(problem([](auto& p) { p.top_k = -1; }).starts_with("top_k"));
  EXPECT_TRUE(problem([](auto& p) { p.top_p = 0; }).starts_with("top_p"));
  EXPECT_TRUE(problem([](auto& p) { p.top_p = 1.01f; }).starts_with("top_p"));
  EXPECT_TRUE(problem([](auto& p) { p.min_p = -0.1f; }).starts_with("min_p"));
  EXPECT_TRUE(problem([](auto& p) { p.repetition_penalty = 0; }).starts_with("repetition_penalty"));
  EXPECT_TRUE(problem([](auto& p) { p.presence_penalty = inf; }).starts_with("presence_penalty"));
  EXPECT_TRUE(problem([](auto& p) { p.frequency_penalty = -inf; }).starts_with("frequency_penalty"));
  EXPECT_TRUE(problem([](auto& p) { p.logit_bias = {{100, 1.0f}}; }).starts_with("logit_bias"));
  EXPECT_EQ(problem([](auto& p) { p.logit_bias = {{99, -inf}}; }), "");
  EXPECT_TRUE(problem([](auto& p) { p.stop_token_ids = {-1}; }).starts_with("stop_token_ids"));
  EXPECT_TRUE(problem([](auto& p) { p.allowed_token_ids = {100}; }).starts_with("allowed_token_ids"));
  EXPECT_TRUE(problem([](auto& p) { p.logprobs = 101; }).starts_with("logprobs"));
  EXPECT_TRUE(problem([](auto& p) { p.prompt_logprobs = -1; }).starts_with("prompt_logprobs"));
  EXPECT_TRUE(problem([](auto& p) { p.max_new_tokens = -1; }).starts_with("max_new_tokens"));
  EXPECT_TRUE(problem([](auto& p) { p.min_new_tokens = 257; }).starts_with("min_new_tokens"));
  EXPECT_TRUE(problem([](auto& p) { p.stop = {""}; }).starts_with("stop"));
  EXPECT_TRUE(problem([](auto& p) { p.stop = {"ok", "\xff"}; }).starts_with("stop"));
}

}  // namespace
}  // namespace ttt

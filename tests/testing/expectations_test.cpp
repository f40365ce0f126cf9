// Expectations: statistics, rows, and the word that a comparison says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "ttt/base/error.h"
#include "ttt/testing/expectations.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;

SelectedInstance instance(std::int64_t hidden = 128) {
  SelectedInstance s;
  s.instance = {.kind = {"mlp"},
                .shape = {{"hidden", hidden}},
                .dtypes = {{"activations", ttt::DataType::bf16}},
                .sku = "cpu"};
  return s;
}
InstanceResult measured(double seconds, double jitter = 0.01) {
  InstanceResult r{.pcc = 0.9999, .error = 0.01, .bytes = 1000, .flops = 2000};
  for (int i = 0; i < 15; ++i) r.seconds.push_back(seconds * (1 + jitter * (i % 5 - 2)));
  return r;
}
std::vector<Expectation> expected(double seconds = 1e-3) {
  return {expectation_of(instance(), measured(seconds), "machine A", 1e9)};
}
std::string read(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Timing, OfSamples) {
  const Timing t = summarize(std::vector<double>{5, 1, 3, 2, 4});
  EXPECT_EQ(t.median, 3);
  EXPECT_EQ(t.spread, (4.0 - 2) / 3);
  EXPECT_EQ(t.repeats, 5);
  EXPECT_LE(t.low, t.median);
  EXPECT_GE(t.high, t.median);
  EXPECT_GE(t.low, 1);
  EXPECT_LE(t.high, 5);
  const Timing same = summarize(std::vector<double>(9, 2.0));
  EXPECT_EQ(same.low, 2);
  EXPECT_EQ(same.high, 2);
  EXPECT_EQ(same.spread, 0);
  EXPECT_THROW(summarize({}), ttt::Error);
}

// The interval holds the true median about as often as it says.
TEST(Timing, TheIntervalCoversTheMedian) {
  std::uint64_t state = 7;
  const auto uniform = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state >> 11) / 9007199254740992.0;
  };
  int covered = 0;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<double> samples(21);
    for (double& s : samples) s = 1 + uniform();  // median 1.5
    const Timing t = summarize(samples);
    covered += t.low <= 1.5 && 1.5 <= t.high;
  }
  EXPECT_GE(covered, 180);
  EXPECT_LT(covered, 200);
}

TEST(Expectations, AreRowsThatMerge) {
  const fs::path file = fs::path(testing::TempDir()) / "expectations.jsonl";
  fs::remove(file);
  const Expectation a = expectation_of(instance(256), measured(2e-3), "machine A", 2e9);
  const Expectation b = expectation_of(instance(128), measured(1e-3), "machine B", 1e9);
  record_expectations(file, std::vector{a});
  record_expectations(file, std::vector{b});
  record_expectations(file, std::vector{expectation_of(instance(256), measured(4e-3), "machine A", 2e9)});
  const std::string text = read(file);
  EXPECT_EQ(std::ranges::count(text, '\n'), 2);
  const std::vector<Expectation> rows = parse_expectations(text);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].key, b.key);          // sorted
  EXPECT_EQ(rows[1].time->median, 4e-3);  // the later one counts
  EXPECT_EQ(rows[1].time->repeats, 15);
  EXPECT_EQ(rows[1].bytes, 1000u);
  EXPECT_NEAR(rows[1].bandwidth_share(), 1000 / 4e-3 / 2e9, 1e-9);
  EXPECT_NEAR(rows[1].gflops(), 2000 / 4e-3 / 1e9, 1e-9);
  EXPECT_EQ(rows[0].device, "machine B");
  EXPECT_FALSE(rows[0].version.empty() || rows[0].commit.empty() || rows[0].date.empty());
  EXPECT_LT(rows[0].pcc_at_least, 0.9999);
  EXPECT_GT(rows[0].error_at_most, 0.01);
  EXPECT_THROW(parse_expectations("{}\n"), ttt::Error);
  EXPECT_THROW(parse_expectations("nothing\n"), ttt::Error);
  EXPECT_THROW(record_expectations("/nonexistent/e.jsonl", std::vector{a}), ttt::Error);
}

TEST(Expectations, OfTheReleaseCanBeRead) {
  for (const Expectation& e : known_expectations("cpu")) {
    EXPECT_TRUE(e.key.ends_with("/cpu")) << e.key;
    EXPECT_GT(e.pcc_at_least, 0.5) << e.key;
    EXPECT_LE(e.time.value_or(Timing{}).spread, 0.1) << e.key;
  }
  EXPECT_TRUE(known_expectations("nothing").empty());
}

TEST(Judge, SaysBetterAsExpectedOrWorse) {
  const auto word = [&](const InstanceResult& r, std::string_view device = "machine A") {
    return judge(expected(), instance(), r, device).verdict;
  };
  EXPECT_EQ(word(measured(1e-3)), Verdict::as_expected);
  EXPECT_EQ(word(measured(1.05e-3)), Verdict::as_expected);  // within the tolerance
  EXPECT_EQ(word(measured(1.5e-3)), Verdict::worse);
  EXPECT_EQ(word(measured(0.5e-3)), Verdict::better);
  EXPECT_EQ(word(measured(1.5e-3, 0.2)), Verdict::noisy);
  // No time of another machine says anything about this one.
  EXPECT_EQ(word(measured(1.5e-3), "machine B"), Verdict::unknown);
  EXPECT_EQ(judge(expected(), instance(), measured(9e-3), "machine B").ratio, 0);
  EXPECT_EQ(judge(expected(), instance(256), measured(1e-3), "machine A").verdict, Verdict::unknown);
  const Judgement slow = judge(expected(), instance(), measured(2e-3), "machine A");
  EXPECT_NEAR(slow.ratio, 2, 0.02);
  EXPECT_LE(slow.low, slow.ratio);
  EXPECT_GE(slow.high, slow.ratio);
  EXPECT_NE(slow.why.find("2.0"), std::string::npos) << slow.why;
}

TEST(Judge, InaccuracyIsAFailureOnEveryMachine) {
  InstanceResult off = measured(1e-3);
  off.pcc = 0.99;
  EXPECT_EQ(judge(expected(), instance(), off, "machine B").verdict, Verdict::inaccurate);
  off = measured(1e-3);
  off.error = 1;
  EXPECT_EQ(judge(expected(), instance(), off, "machine A").verdict, Verdict::inaccurate);
  off.error = 0.01;
  off.pcc = std::nan("");
  EXPECT_EQ(judge(expected(), instance(), off, "machine A").verdict, Verdict::inaccurate);
  off = measured(1e-3);
  off.outcome = Outcome::failed;
  off.detail = "refused";
  EXPECT_EQ(judge(expected(), instance(), off, "machine A").why, "refused");
}

}  // namespace

// Module instances by themselves, against the composed operations in float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "ttt/testing/instance_run.h"

namespace {

using namespace ttt::testing;

SelectedInstance of(const std::string& network, const std::string& module, ttt::Mode mode,
                    const char* precision = "f32") {
  for (const Network& n : golden_networks()) {
    if (n.name != network) continue;
    const ttt::Target target = ttt::make_target(ttt::hw::cpu(), precision);
    for (ModuleInstance& i : module_instances(n, target)) {
      if (i.kind.module == module && i.mode == mode)
        return {std::move(i), std::make_shared<Network>(n), target, true, "test"};
    }
  }
  ADD_FAILURE() << network << " has no " << module;
  return {};
}

// The unit tests of all modules: every kind that a golden has, in prefill and decode.
TEST(Instances, EveryKindAgreesWithItsOracle) {
  std::map<std::string, std::size_t> passed;
  std::set<std::string> kinds;
  for (const SelectedInstance& s : select_tests({}).instances) {
    if (!s.golden) continue;
    const InstanceResult result = run_instance(s, {.threads = 2});
    EXPECT_EQ(result.outcome, Outcome::passed) << s.instance.key() << ": " << result.detail;
    EXPECT_GT(result.pcc, 0.999999) << s.instance.key();
    passed[s.instance.kind.module] += result.outcome == Outcome::passed;
    kinds.insert(s.instance.kind.key());
  }
  EXPECT_GE(kinds.size(), 150u);
  EXPECT_GT(passed["attention"], 20u);
}

// At their real shapes on a card: every operation is accepted, nothing is computed.
TEST(Instances, AreValidAtTheirRealShapes) {
  std::size_t run = 0;
  for (const SelectedInstance& s : select_tests({.skus = {"n150", "t3k"}}).instances) {
    const InstanceResult result = run_instance(s, {.backend = "null"});
    EXPECT_EQ(result.outcome, Outcome::passed) << s.instance.key() << ": " << result.detail;
    ++run;
  }
  EXPECT_GT(run, 1000u);
}

TEST(Instances, TheirFormatsDecideWhatIsRequired) {
  const SelectedInstance exact = of("llama", "attention", ttt::Mode::decode),
                         coarse = of("llama", "mlp", ttt::Mode::prefill, "bfp4_b");
  EXPECT_GT(default_pcc(exact.instance), default_pcc(coarse.instance));
  const InstanceResult good = run_instance(coarse, {.threads = 2});
  EXPECT_EQ(good.outcome, Outcome::passed) << good.detail;
  EXPECT_LT(good.pcc, 0.9999);  // four bits show
  EXPECT_GT(good.error, 0);
}

TEST(Instances, AreTimedAndTheirWorkIsCounted) {
  const InstanceResult result = run_instance(of("llama", "mlp", ttt::Mode::decode),
                                             {.threads = 1, .repeats = 3, .sample_seconds = 1e-4});
  ASSERT_EQ(result.seconds.size(), 3u);
  for (const double seconds : result.seconds) EXPECT_GT(seconds, 0);
  EXPECT_EQ(result.flops >= 2u * 3 * 64 * 112, true) << result.flops;  // three matrices, one row
  EXPECT_GT(result.bytes, 3u * 64 * 112 * 4);
}

TEST(Instances, WhatCanNotRunSaysWhy) {
  const SelectedInstance mlp = of("llama", "mlp", ttt::Mode::prefill);
  const InstanceResult large = run_instance(mlp, {.memory = 1000});
  EXPECT_EQ(large.outcome, Outcome::skipped);
  EXPECT_NE(large.detail.find("MiB of weights"), std::string::npos);
  const InstanceResult nobody = run_instance(mlp, {.backend = "nobody"});
  EXPECT_EQ(nobody.outcome, Outcome::failed);
  EXPECT_NE(nobody.detail.find("nobody"), std::string::npos);
}

}  // namespace

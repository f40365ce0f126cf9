#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "paths.h"
#include "ttt/modules/attention.h"
#include "ttt/modules/rope.h"

namespace {

using nlohmann::json;
using namespace ttt;

RopeSpec spec_of(const json& c) {
  const json& p = c["parameters"];
  const std::string kind = p["rope_type"];
  RopeSpec spec{.theta = c["theta"], .max_positions = c["max_positions"]};
  RopeScaling& s = spec.scaling;
  s.kind = kind == "linear"    ? RopeScalingKind::linear
           : kind == "dynamic" ? RopeScalingKind::dynamic
           : kind == "llama3"  ? RopeScalingKind::llama3
           : kind == "yarn"    ? RopeScalingKind::yarn
                               : RopeScalingKind::longrope;
  s.factor = p["factor"];
  s.original_max_positions = p.value("original_max_position_embeddings", 0);
  s.low_freq_factor = p.value("low_freq_factor", s.low_freq_factor);
  s.high_freq_factor = p.value("high_freq_factor", s.high_freq_factor);
  s.beta_fast = p.value("beta_fast", s.beta_fast);
  s.beta_slow = p.value("beta_slow", s.beta_slow);
  s.mscale = p.value("mscale", 0.0f);
  s.mscale_all_dim = p.value("mscale_all_dim", 0.0f);
  s.truncate = p.value("truncate", true);
  s.short_factor = p.value("short_factor", std::vector<float>{});
  s.long_factor = p.value("long_factor", std::vector<float>{});
  return spec;
}

TEST(Rope, FrequenciesEqualTransformers) {
  std::ifstream file(ttt::test::source_dir() + "/tests/modules/data/rope.json");
  const json cases = json::parse(file);
  ASSERT_GE(cases.size(), 7u);
  for (const json& c : cases) {
    const RopePlan plan = resolve(RopeConfig{.spec = spec_of(c), .head_dim = c["head_dim"]}, Target{});
    for (const json& row : c["rows"]) {
      SCOPED_TRACE(c["name"].get<std::string>() + " at length " + row["length"].dump());
      const std::vector<float> got = rope_frequencies(plan, row["length"]), want = row["inv_freq"];
      ASSERT_EQ(got.size(), want.size());
      for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 4e-7f * want[i]) << i;
      EXPECT_NEAR(plan.cos_sin_scale, row["attention_factor"].get<float>(), 1e-6f);
    }
  }
}

TEST(Rope, RejectsWhatCanNotRotate) {
  EXPECT_THROW(resolve(RopeConfig{.spec = {.rotary_dim = 5}, .head_dim = 8}, Target{}), Error);
  EXPECT_THROW(resolve(RopeConfig{.spec = {.rotary_dim = 16}, .head_dim = 8}, Target{}), Error);
  EXPECT_THROW(
      resolve(RopeConfig{.spec = {.scaling = {.kind = RopeScalingKind::yarn, .factor = 2}}, .head_dim = 8},
              Target{}),
      Error);
  EXPECT_THROW(
      resolve(RopeConfig{.spec = {.scaling = {.kind = RopeScalingKind::dynamic}}, .head_dim = 8}, Target{}),
      Error);
}

TEST(Alibi, SlopesOfPowersOfTwoAndOthers) {
  const std::vector<float> eight = alibi_slopes(8);
  for (int i = 0; i < 8; ++i)
    EXPECT_FLOAT_EQ(eight[static_cast<std::size_t>(i)], std::exp2(-static_cast<float>(i + 1)));
  const std::vector<float> twelve = alibi_slopes(12);
  ASSERT_EQ(twelve.size(), 12u);
  EXPECT_FLOAT_EQ(twelve[8], std::exp2(-0.5f));
  EXPECT_FLOAT_EQ(twelve[9], std::exp2(-1.5f));
}

}  // namespace

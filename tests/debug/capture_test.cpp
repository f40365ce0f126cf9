// Numbers are computed by hand or by numpy.
#include "ttt/debug/capture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/fake_device.h"
#include "ttt/debug/check.h"
#include "ttt/debug/statistics.h"

namespace {

using namespace ttt;
using namespace ttt::debug;

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

TEST(Statistics, OfFiniteValuesOnly) {
  const std::vector<float> values{1, -3, 0, 4, nan, inf, -inf, 0};
  const Statistics s = statistics(values);
  EXPECT_EQ(s.count, 8);
  EXPECT_EQ(s.nan, 1);
  EXPECT_EQ(s.infinite, 2);
  EXPECT_EQ(s.zeros, 2);
  EXPECT_EQ(s.min, -3);
  EXPECT_EQ(s.max, 4);
  EXPECT_DOUBLE_EQ(s.mean, 0.4);
  EXPECT_DOUBLE_EQ(s.rms, std::sqrt(26.0 / 5));
  EXPECT_EQ(std::accumulate(s.histogram.begin(), s.histogram.end(), 0u), 5u);
  EXPECT_EQ(s.histogram.front(), 1u);
  EXPECT_EQ(s.histogram.back(), 1u);
  EXPECT_EQ(s.histogram[13], 2u);  // 0 lies 3/7 of the way
}

TEST(Statistics, OfNothingAndOfOneValue) {
  EXPECT_EQ(statistics({}).count, 0);
  const std::vector<float> none{nan, nan};
  EXPECT_EQ(statistics(none).max, 0);
  EXPECT_EQ(statistics(none).nan, 2);
  const std::vector<float> constant{2, 2, 2};
  EXPECT_EQ(statistics(constant).histogram[0], 3u);
  EXPECT_EQ(rms({}), 0);
}

TEST(Statistics, PccOfNaN) {
  const std::vector<float> a{1, 2, 3}, b{1, nan, 3};
  EXPECT_TRUE(std::isnan(pcc(a, b)));
  EXPECT_EQ(max_abs_error(a, b), inf);
}

TEST(Names, OfTaps) {
  EXPECT_EQ(full_name("attn.q", 3), "layers.3.attn.q");
  EXPECT_EQ(full_name("", 12), "layers.12");
  EXPECT_EQ(full_name("norm", -1), "norm");
  EXPECT_EQ(layer_of("layers.12.attn"), 12);
  EXPECT_EQ(layer_of("layers.0"), 0);
  EXPECT_EQ(layer_of("norm"), -1);
  EXPECT_EQ(layer_of("layers.x"), -1);
}

TEST(Capture, KeepsRowsUnderFullNames) {
  FakeDevice device;
  const auto tensor = [&](std::vector<float> values, std::int64_t features) {
    const auto rows = static_cast<std::int64_t>(values.size()) / features;
    return from_host(device, values, {1, 1, rows, features}, DataType::f32);
  };
  Capture capture([](std::string_view name) { return name != "left_out"; });
  tap(tensor({1, 2, 3, 4}, 2), "attn", 0);
  tap(tensor({9, 9}, 2), "left_out");
  tap(tensor({5, 6}, 2), "attn", 0);  // again in the same step: a layer that runs twice
  capture.next_step();
  tap(tensor({7, 8}, 2), "attn", 0);
  tap(tensor({1}, 1), "norm");
  const std::vector<Intermediate> kept = capture.take();
  ASSERT_EQ(kept.size(), 3u);
  EXPECT_EQ(kept[0].tap, "layers.0.attn");
  EXPECT_EQ(kept[0].rows, 3);
  EXPECT_EQ(kept[0].features, 2);
  EXPECT_EQ(kept[0].values, (std::vector<float>{1, 2, 3, 4, 7, 8}));
  EXPECT_EQ(kept[1].tap, "layers.0.attn@2");
  EXPECT_EQ(kept[2].tap, "norm");
}

TEST(Capture, NobodyListensAfterwards) {
  {
    const Capture capture;
    EXPECT_TRUE(tapping());
  }
  EXPECT_FALSE(tapping());
}

TEST(Place, NamesTheModule) {
  FakeDevice device;
  const Tensor bad = from_host(device, std::vector<float>{1, nan, inf}, {1, 1, 1, 3}, DataType::f32);
  std::vector<NonFinite> found;
  const CheckScope scope([&](const NonFinite& f) { found.push_back(f); }, true);
  const Tensor* const no_operands[] = {nullptr};
  {
    const Place outer("layers.0.attn");
    {
      const Place inner("layers.0.attn.qkv");
      ttt::debug::detail::check("linear", no_operands, {&bad, 1});
    }
    ttt::debug::detail::check("softmax", no_operands, {&bad, 1});
  }
  ttt::debug::detail::check("add", no_operands, {&bad, 1});
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].module, "layers.0.attn.qkv");
  EXPECT_EQ(found[1].module, "layers.0.attn");
  EXPECT_EQ(found[2].module, "");
  EXPECT_EQ(
      to_string(found[0]),
      "[linear] 1 NaN 1 infinite values in the result [1, 1, 1, 3] of layers.0.attn.qkv, the first at 1; its "
      "operands are finite");
}

}  // namespace

#include "ttt/modules/selection.h"

#include <gtest/gtest.h>

#include <limits>

#include "modules/support.h"

namespace {

using namespace ttt;
using namespace ttt::test;

constexpr float inf = std::numeric_limits<float>::infinity();

Tensor row(const std::vector<float>& x) {
  return from_host(cpu_home().backend(), x, {1, 1, 1, static_cast<std::int64_t>(x.size())}, DataType::f32);
}

TEST(Selection, TopKMaskOpensTheLargest) {
  EXPECT_EQ(to_host(top_k_mask(row({0.5f, -2, 3, 1}), 2)), (std::vector<float>{-inf, -inf, 0, 0}));
  EXPECT_EQ(to_host(top_k_mask(row({1, 2}), 5)), (std::vector<float>{0, 0}));
  // What can not be seen stays closed though there is room; infinity always wins.
  EXPECT_EQ(to_host(top_k_mask(row({-inf, inf, -inf, 2}), 3)), (std::vector<float>{-inf, 0, -inf, 0}));
  EXPECT_EQ(to_host(top_k_mask(row({7, 7, 7}), 2)), (std::vector<float>{0, 0, -inf}));
}

TEST(Selection, TopKMaskWorksRowByRow) {
  const std::vector<float> x = values(3 * 4 * 10, 1);
  const std::vector<float> mask =
      to_host(top_k_mask(from_host(cpu_home().backend(), x, {1, 3, 4, 10}, DataType::f32), 4));
  for (std::size_t r = 0; r < 12; ++r) {
    for (std::size_t i = 0; i < 10; ++i) {
      std::size_t larger = 0;
      for (std::size_t j = 0; j < 10; ++j) larger += x[r * 10 + j] > x[r * 10 + i];
      EXPECT_EQ(mask[r * 10 + i], larger < 4 ? 0 : -inf) << r << ", " << i;
    }
  }
}

TEST(Selection, SpreadColumns) {
  EXPECT_EQ(to_host(spread_columns(row({1, 2, 3}), 2, 5)), (std::vector<float>{1, 1, 2, 2, 3}));
  const Tensor x =
      from_host(cpu_home().backend(), std::vector<float>{1, 2, 3, 4}, {1, 2, 1, 2}, DataType::f32);
  const Tensor y = spread_columns(x, 3, 4);
  EXPECT_EQ(y.shape(), (Shape{1, 2, 1, 4}));
  EXPECT_EQ(to_host(y), (std::vector<float>{1, 1, 1, 2, 3, 3, 3, 4}));
}

TEST(Selection, CausalMaskStandsAtTheRowsPositions) {
  const Tensor y = causal_mask(cpu_home().backend(), {.count = 2, .context = 1});
  EXPECT_EQ(y.shape(), (Shape{1, 1, 2, 3}));
  EXPECT_EQ(to_host(y), (std::vector<float>{0, 0, -inf, 0, 0, 0}));
}

}  // namespace

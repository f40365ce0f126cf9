#include "view_plan.h"

#include <gtest/gtest.h>

#include <numeric>

namespace ttt::ttnn {
namespace {

// A row-major array with the three operations that a plan is made of.
struct Array {
  Shape shape;
  std::vector<int> values;
};

std::int64_t offset_of(const Shape& shape, const std::vector<std::int64_t>& at) {
  std::int64_t position = 0;
  for (int i = 0; i < shape.rank(); ++i) position = position * shape[i] + at[static_cast<std::size_t>(i)];
  return position;
}

template <class F>
void for_each(const Shape& shape, F&& f) {
  std::vector<std::int64_t> at(static_cast<std::size_t>(shape.rank()), 0);
  for (std::int64_t n = shape.elements(); n > 0; --n) {
    f(at);
    for (int i = shape.rank() - 1; i >= 0; --i) {
      if (++at[static_cast<std::size_t>(i)] < shape[i]) break;
      at[static_cast<std::size_t>(i)] = 0;
    }
  }
}

Array slice(const Array& x, const Shape& begin, const Shape& end) {
  Array y;
  for (int i = 0; i < begin.rank(); ++i) y.shape.push_back(end[i] - begin[i]);
  for_each(y.shape, [&](std::vector<std::int64_t> at) {
    for (int i = 0; i < begin.rank(); ++i) at[static_cast<std::size_t>(i)] += begin[i];
    y.values.push_back(x.values[static_cast<std::size_t>(offset_of(x.shape, at))]);
  });
  return y;
}

Array permute(const Array& x, const std::vector<int>& order) {
  Array y;
  for (int axis : order) y.shape.push_back(x.shape[axis]);
  for_each(y.shape, [&](const std::vector<std::int64_t>& at) {
    std::vector<std::int64_t> from(at.size());
    for (std::size_t i = 0; i < order.size(); ++i) from[static_cast<std::size_t>(order[i])] = at[i];
    y.values.push_back(x.values[static_cast<std::size_t>(offset_of(x.shape, from))]);
  });
  return y;
}

Array follow(const ViewPlan& plan, Array x) {
  if (plan.split) x.shape = *plan.split;
  if (plan.begin) x = slice(x, *plan.begin, *plan.end);
  if (!plan.order.empty()) x = permute(x, plan.order);
  if (plan.shape) x.shape = *plan.shape;
  return x;
}

// A view as Tensor makes it.
struct View {
  Shape base_shape, strides;
  std::int64_t start = 0;

  const Shape& shape() const { return base_shape; }
  View narrow(int axis, std::int64_t begin, std::int64_t end) const {
    View v = *this;
    v.base_shape[axis] = end - begin;
    v.start += begin * strides[axis];
    return v;
  }
  View swap_axes(int a, int b) const {
    View v = *this;
    std::swap(v.base_shape[a], v.base_shape[b]);
    std::swap(v.strides[a], v.strides[b]);
    return v;
  }
  View reshape(const Shape& to) const;  // of contiguous elements
};

View tensor(const Shape& shape, std::int64_t start = 0) {
  View v{shape, shape, start};
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) v.strides[i] = step, step *= shape[i];
  return v;
}
View View::reshape(const Shape& to) const { return tensor(to, start); }

ViewPlan check(const Shape& base, const View& view) {
  Array whole{base, std::vector<int>(static_cast<std::size_t>(base.elements()))};
  std::iota(whole.values.begin(), whole.values.end(), 0);
  std::vector<int> expected;
  for_each(view.shape(), [&](const std::vector<std::int64_t>& at) {
    std::int64_t position = view.start;
    for (int i = 0; i < view.shape().rank(); ++i)
      position += at[static_cast<std::size_t>(i)] * view.strides[i];
    expected.push_back(static_cast<int>(position));
  });
  const std::optional<ViewPlan> plan = plan_view(base, view.shape(), view.strides, view.start);
  EXPECT_TRUE(plan.has_value()) << to_string(view.shape()) << " of " << to_string(base);
  if (!plan) return {};
  const Array made = follow(*plan, whole);
  EXPECT_EQ(made.shape, view.shape());
  EXPECT_EQ(made.values, expected);
  return *plan;
}

TEST(ViewPlan, TheWholeNeedsNothing) {
  const Shape base{1, 1, 6, 4};
  EXPECT_TRUE(check(base, tensor(base)).empty());
}

TEST(ViewPlan, OneAxisIsOneSlice) {
  const Shape base{2, 3, 6, 4};
  for (int axis = 0; axis < 4; ++axis) {
    const ViewPlan plan = check(base, tensor(base).narrow(axis, 1, base[axis]));
    EXPECT_TRUE(plan.begin && !plan.split && plan.order.empty() && !plan.shape) << axis;
  }
}

// What decoding does with heads [1, heads, tokens, width], also where an extent is 1.
TEST(ViewPlan, RowsOfHeadsExchangedAreASliceAndAPermute) {
  for (const std::int64_t heads : {1, 3}) {
    for (const std::int64_t tokens : {1, 2, 5}) {
      for (const std::int64_t batch : {std::int64_t{1}, tokens}) {
        const Shape base{1, heads, tokens, 4};
        const ViewPlan plan = check(base, tensor(base).narrow(2, 0, batch).swap_axes(1, 2));
        EXPECT_TRUE(!plan.split && !plan.shape) << heads << " " << tokens << " " << batch;
      }
    }
  }
}

TEST(ViewPlan, RegroupedAxes) {
  const Shape base{1, 1, 6, 8};
  check(base, tensor(base).reshape({1, 6, 2, 4}));
  check(base, tensor(base).reshape({48}));
  check(base, tensor(base).reshape({1, 6, 2, 4}).swap_axes(1, 2));
  check(base, tensor(base).reshape({1, 6, 2, 4}).narrow(3, 1, 3));
  check(base, tensor(base).reshape({2, 3, 8}).narrow(0, 1, 2).reshape({3, 8}));
  check(base, tensor(base).reshape({4, 12}).narrow(1, 5, 6));
}

TEST(ViewPlan, OneBlockOfACacheAndOneExpert) {
  const Shape cache{5, 2, 4, 8};
  EXPECT_FALSE(check(cache, tensor(cache).narrow(0, 3, 4)).split);
  const Shape experts{1, 5, 6, 4};
  EXPECT_FALSE(check(experts, tensor(experts).narrow(1, 2, 3)).split);
}

TEST(ViewPlan, WhatIsNoBoxIsRefused) {
  // Overlapping rows, as a window over a sequence has.
  EXPECT_FALSE(plan_view({1, 1, 1, 8}, {4, 4}, {1, 1}, 0));
  // Rows at a distance that does not divide the tensor.
  EXPECT_FALSE(plan_view({1, 1, 5, 8}, {3, 4}, {12, 1}, 0));
}

}  // namespace
}  // namespace ttt::ttnn

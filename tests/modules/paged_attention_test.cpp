#include "ttt/modules/paged_attention.h"

#include <gtest/gtest.h>

#include "modules/support.h"

namespace {

using namespace ttt;
using namespace ttt::test;

constexpr std::int64_t heads = 4, kv_heads = 2, width = 8;

// Rows [first, first + count) of x [heads, rows, width] as a tensor.
Tensor rows_of(const std::vector<float>& x, std::int64_t n_heads, std::int64_t first, std::int64_t count) {
  const std::int64_t rows = static_cast<std::int64_t>(x.size()) / n_heads / width;
  return from_host(cpu_home().backend(), x, {1, n_heads, rows, width}, DataType::f32)
      .narrow(2, first, first + count);
}

// What a row adds to its score of a key: a value of its own for every head, row and key.
float bias(std::int64_t head, std::int64_t row, std::int64_t key) {
  return 0.1f * static_cast<float>((head * 31 + row * 7 + key * 3) % 13) - 0.6f;
}

// Row by row: softmax(q k^T / sqrt(width) + bias) v over the keys up to itself, heads side by side.
std::vector<float> formula(const std::vector<float>& q, const std::vector<float>& k,
                           const std::vector<float>& v) {
  const auto rows = static_cast<std::int64_t>(q.size()) / heads / width;
  const auto at = [&](const std::vector<float>& x, std::int64_t head, std::int64_t row, std::int64_t i) {
    return static_cast<double>(x[static_cast<std::size_t>((head * rows + row) * width + i)]);
  };
  std::vector<float> y(static_cast<std::size_t>(rows * heads * width));
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t r = 0; r < rows; ++r) {
      std::vector<double> p;
      double total = 0;
      for (std::int64_t j = 0; j <= r; ++j) {
        double s = 0;
        for (std::int64_t i = 0; i < width; ++i) s += at(q, h, r, i) * at(k, h / 2, j, i);
        p.push_back(std::exp(s / std::sqrt(static_cast<double>(width)) + bias(h, r, j)));
        total += p.back();
      }
      for (std::int64_t i = 0; i < width; ++i) {
        double sum = 0;
        for (std::int64_t j = 0; j <= r; ++j) sum += p[static_cast<std::size_t>(j)] * at(v, h / 2, j, i);
        y[static_cast<std::size_t>((r * heads + h) * width + i)] = static_cast<float>(sum / total);
      }
    }
  }
  return y;
}

TEST(PagedAttention, MasksPerSequenceHoldForAnyCut) {
  const std::int64_t length = 11;
  const auto q = values(heads * length * width, 1), k = values(kv_heads * length * width, 2),
             v = values(kv_heads * length * width, 3);
  const std::vector<float> want = formula(q, k, v);
  AttendOptions options;
  options.mask = [](const SequenceRows& rows) {
    const std::int64_t keys = rows.context + rows.count;
    std::vector<float> mask;
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t r = 0; r < rows.count; ++r)
        for (std::int64_t j = 0; j < keys; ++j) mask.push_back(bias(h, rows.context + r, j));
    return from_host(cpu_home().backend(), mask, {1, heads, rows.count, keys}, DataType::f32);
  };
  for (const std::int64_t chunk : {length, std::int64_t{4}, std::int64_t{1}}) {
    Stage stage(2, kv_heads, width, DataType::f32, width);
    std::vector<float> got;
    for (std::int64_t at = 0; at < length; at += chunk) {
      const std::int64_t count = std::min(chunk, length - at);
      const Step step = stage.step({{at, count}}, {1});
      const std::vector<float> part =
          to_host(attend(rows_of(q, heads, at, count), rows_of(k, kv_heads, at, count),
                         rows_of(v, kv_heads, at, count), step.state->cache(0), step, options));
      got.insert(got.end(), part.begin(), part.end());
    }
    EXPECT_LT(largest_difference(got, want), 1e-5) << "chunks of " << chunk;
  }
}

TEST(PagedAttention, CachedRowsAreWhatWasFilledIn) {
  for (const DataType dtype : {DataType::f32, DataType::bfp8_b}) {
    Stage stage(2, 1, 16, dtype, 16);
    const std::vector<float> x = values(14 * 16, 5);
    const auto put = [&](const Step& step, std::int64_t first) {
      fill_cache(
          step.state->cache(0).k,
          from_host(*step.device, x, {1, 1, 14, 16}, DataType::f32).narrow(2, first, first + step.tokens),
          step);
    };
    put(stage.step({{0, 5}}, {0}), 0);
    put(stage.step({{5, 1}, {0, 8}}, {0, 1}), 5);  // a decode row of one, a prompt of the other
    const Step step = stage.step({{5, 1}, {0, 8}}, {0, 1});
    const double bound = dtype == DataType::f32 ? 0 : 0.01;
    const auto part = [&](std::int64_t first, std::int64_t count) {
      return std::vector<float>(x.begin() + first * 16, x.begin() + (first + count) * 16);
    };
    const Tensor one = cached_rows(step.state->cache(0).k, step, step.sequences[0]),
                 other = cached_rows(step.state->cache(0).k, step, step.sequences[1]);
    EXPECT_EQ(one.shape(), (Shape{1, 1, 6, 16}));
    EXPECT_LE(largest_difference(to_host(one), part(0, 6)), bound);
    EXPECT_LE(largest_difference(to_host(other), part(6, 8)), bound);
  }
}

}  // namespace

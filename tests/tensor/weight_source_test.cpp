#include "ttt/tensor/weight_source.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <set>
#include <thread>

#include "ttt/base/error.h"

namespace ttt {
namespace {

float value(std::int64_t r, std::int64_t c) { return static_cast<float>(r * 1000 + c); }

std::vector<float> values(std::int64_t rows, std::int64_t cols) {
  std::vector<float> v;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) v.push_back(value(r, c));
  }
  return v;
}

// Values that come from a formula and are mapped nowhere, as those of a quantised file.
class Formula final : public WeightSource {
 public:
  Formula(std::int64_t rows, std::int64_t cols) : rows_(rows), cols_(cols) {}
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    rows_read += count;
    for (std::int64_t r = begin; r < begin + count; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) *out++ = value(r, c);
    }
  }
  std::uint64_t fingerprint() const override { return 42; }
  std::string describe() const override { return "formula"; }
  mutable std::atomic<std::int64_t> rows_read{0};

 private:
  std::int64_t rows_, cols_;
};

// bf16 values at an odd address, as a file may place them.
class Halves final : public WeightSource {
 public:
  Halves(std::int64_t rows, std::int64_t cols)
      : rows_(rows), cols_(cols), bytes_(static_cast<std::size_t>(2 * rows * cols) + 1) {
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const BFloat16 v(static_cast<float>(i));
      std::memcpy(bytes_.data() + 1 + 2 * i, &v, 2);
    }
  }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void read(std::int64_t, std::int64_t, float*) const override { throw Error("must be mapped"); }
  std::uint64_t fingerprint() const override { return 43; }
  std::string describe() const override { return "halves"; }
  std::span<const std::byte> mapped(DataType t) const override {
    return t == DataType::bf16 ? std::span(bytes_).subspan(1) : std::span<const std::byte>();
  }
  bool exact_in(DataType t) const override { return t == DataType::bf16 || t == DataType::f32; }

 private:
  std::int64_t rows_, cols_;
  std::vector<std::byte> bytes_;
};

std::vector<float> read_all(const WeightSource& s, std::int64_t step = 0) {
  std::vector<float> out(static_cast<std::size_t>(s.rows() * s.cols()));
  if (step == 0) step = std::max<std::int64_t>(s.rows(), 1);
  for (std::int64_t r = 0; r < s.rows(); r += step)
    s.read(r, std::min(step, s.rows() - r), out.data() + r * s.cols());
  return out;
}

void expect_checked(const WeightSource& s) {
  std::vector<float> out(static_cast<std::size_t>(2 * s.cols() * (s.rows() + 1)));
  EXPECT_THROW(s.read(-1, 1, out.data()), Error);
  EXPECT_THROW(s.read(0, -1, out.data()), Error);
  EXPECT_THROW(s.read(0, s.rows() + 1, out.data()), Error);
  EXPECT_THROW(s.read(s.rows() + 1, 0, out.data()), Error);
  EXPECT_THROW(s.read(1, std::numeric_limits<std::int64_t>::max(), out.data()), Error);
  EXPECT_NO_THROW(s.read(s.rows(), 0, out.data()));
}

TEST(WeightSource, Values) {
  const auto s = make_source(values(3, 4), 3, 4, "w");
  EXPECT_EQ(read_all(*s, 2), values(3, 4));
  EXPECT_EQ(s->describe(), "w");
  EXPECT_EQ(s->mapped(DataType::f32).size(), 48u);
  EXPECT_TRUE(s->mapped(DataType::bf16).empty());
  EXPECT_FALSE(s->exact_in(DataType::bf16));
  EXPECT_TRUE(make_source({1, 2, 256}, 1, 3)->exact_in(DataType::bf16));
  EXPECT_THROW(make_source({1, 2}, 1, 3), Error);
  EXPECT_THROW(make_source({}, -1, 0), Error);
  EXPECT_THROW(make_source({}, std::int64_t{1} << 62, 8), Error);
  expect_checked(*s);
}

TEST(WeightSource, Concat) {
  const auto a = make_source(values(2, 3), 2, 3, "a"), b = make_source(values(0, 3), 0, 3, "b"),
             c = make_source({7, 8, 9}, 1, 3, "c");
  const auto s = concat_rows({a, b, c});
  std::vector<float> expected = values(2, 3);
  expected.insert(expected.end(), {7, 8, 9});
  for (std::int64_t step : {1, 2, 3}) EXPECT_EQ(read_all(*s, step), expected);
  EXPECT_EQ(s->describe(), "a + b + c");
  EXPECT_TRUE(s->mapped(DataType::f32).empty());  // not neighbours in memory
  EXPECT_EQ(concat_rows({a}), a);
  EXPECT_THROW(concat_rows({}), Error);
  EXPECT_THROW(concat_rows({a, nullptr}), Error);
  EXPECT_THROW(concat_rows({a, make_source({1, 2}, 1, 2)}), Error);
  expect_checked(*s);
}

TEST(WeightSource, NeighboursStayMapped) {
  const auto s = std::make_shared<Halves>(6, 5);
  const auto first = gather_rows(s, {0, 1, 2}), second = gather_rows(s, {3, 4});
  EXPECT_EQ(first->mapped(DataType::bf16).data(), s->mapped(DataType::bf16).data());
  const auto both = concat_rows({first, second});
  ASSERT_EQ(both->mapped(DataType::bf16).size(), 50u);
  EXPECT_EQ(both->mapped(DataType::bf16).data(), s->mapped(DataType::bf16).data());
  EXPECT_TRUE(concat_rows({second, first})->mapped(DataType::bf16).empty());
  EXPECT_TRUE(gather_rows(s, {1, 3})->mapped(DataType::bf16).empty());
  EXPECT_TRUE(both->exact_in(DataType::bf16));
  EXPECT_EQ(reshape_source(s, 3, 10)->mapped(DataType::bf16).size(), 60u);
}

TEST(WeightSource, Gather) {
  const auto s = gather_rows(make_source(values(5, 3), 5, 3, "w"), {4, 1, 2, 2, 0});
  std::vector<float> expected;
  for (std::int64_t r : {4, 1, 2, 2, 0}) {
    for (std::int64_t c = 0; c < 3; ++c) expected.push_back(value(r, c));
  }
  for (std::int64_t step : {1, 2, 5}) EXPECT_EQ(read_all(*s, step), expected);
  EXPECT_THROW(gather_rows(make_source(values(2, 2), 2, 2), {2}), Error);
  EXPECT_THROW(gather_rows(make_source(values(2, 2), 2, 2), {-1}), Error);
  EXPECT_EQ(gather_rows(make_source(values(2, 2), 2, 2), {})->rows(), 0);
  expect_checked(*s);
}

TEST(WeightSource, SliceCols) {
  const auto whole = make_source(values(700, 900), 700, 900, "w");
  const auto s = slice_cols(whole, 3, 11);
  std::vector<float> expected;
  for (std::int64_t r = 0; r < 700; ++r) {
    for (std::int64_t c = 3; c < 11; ++c) expected.push_back(value(r, c));
  }
  EXPECT_EQ(read_all(*s), expected);
  EXPECT_EQ(read_all(*s, 13), expected);
  EXPECT_EQ(slice_cols(whole, 0, 900), whole);
  EXPECT_THROW(slice_cols(whole, 3, 901), Error);
  EXPECT_THROW(slice_cols(whole, 4, 3), Error);
  expect_checked(*s);
}

TEST(WeightSource, PadCols) {
  const auto whole = make_source(values(70, 9), 70, 9, "w");
  const auto s = pad_cols(whole, 13);
  std::vector<float> expected;
  for (std::int64_t r = 0; r < 70; ++r) {
    for (std::int64_t c = 0; c < 13; ++c) expected.push_back(c < 9 ? value(r, c) : 0.0f);
  }
  EXPECT_EQ(read_all(*s), expected);
  EXPECT_EQ(read_all(*s, 13), expected);
  EXPECT_EQ(pad_cols(whole, 9), whole);
  EXPECT_THROW(pad_cols(whole, 8), Error);
  expect_checked(*s);
}

TEST(WeightSource, Transpose) {
  const std::int64_t rows = 130, cols = 67;
  std::vector<float> expected;
  for (std::int64_t c = 0; c < cols; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) expected.push_back(value(r, c));
  }
  const auto mapped = transpose(make_source(values(rows, cols), rows, cols));
  EXPECT_EQ(read_all(*mapped), expected);
  EXPECT_EQ(read_all(*mapped, 10), expected);
  expect_checked(*mapped);

  const auto formula = std::make_shared<Formula>(rows, cols);
  const auto computed = transpose(formula);
  EXPECT_EQ(read_all(*computed, 5), expected);
  EXPECT_EQ(formula->rows_read, rows);  // one pass for all of it
  computed->release();
  EXPECT_EQ(read_all(*computed), expected);
  EXPECT_EQ(formula->rows_read, 2 * rows);
  expect_checked(*computed);

  const auto halves = transpose(std::make_shared<Halves>(3, 5));
  EXPECT_EQ(read_all(*halves), (std::vector<float>{0, 5, 10, 1, 6, 11, 2, 7, 12, 3, 8, 13, 4, 9, 14}));
  EXPECT_EQ(transpose(make_source({}, 0, 3))->cols(), 0);
}

TEST(WeightSource, TransposeInPanels) {
  const std::int64_t rows = 4096 * 5, cols = 2000;  // two and a half panels
  const auto source = std::make_shared<Formula>(rows, cols);
  const auto t = transpose(source);
  std::vector<float> row(static_cast<std::size_t>(rows));
  std::set<std::int64_t> passes;
  for (std::int64_t c = 0; c < cols; c += 100) {
    t->read(c, 1, row.data());
    for (std::int64_t r = 0; r < rows; r += 997) ASSERT_EQ(row[static_cast<std::size_t>(r)], value(r, c));
    passes.insert(source->rows_read / rows);
  }
  EXPECT_EQ(*passes.rbegin(), 3);
}

TEST(WeightSource, ThreadsReadAtOnce) {
  const auto t = transpose(std::make_shared<Formula>(300, 200));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int k = 0; k < 8; ++k) {
    threads.emplace_back([&, k] {
      std::vector<float> row(300);
      for (std::int64_t c = k; c < 200; c += 8) {
        t->read(c, 1, row.data());
        for (std::int64_t r = 0; r < 300; ++r) wrong += row[static_cast<std::size_t>(r)] != value(r, c);
        if (c % 50 == 0) t->release();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(WeightSource, Affine) {
  const auto s = make_source({1, 2, 3}, 1, 3);
  EXPECT_EQ(read_all(*affine(s, 2, 1)), (std::vector<float>{3, 5, 7}));
  EXPECT_EQ(affine(s, 1, 0), s);
  EXPECT_FALSE(affine(s, 1, 1)->exact_in(DataType::bf16));
  EXPECT_TRUE(affine(s, 1, 1)->mapped(DataType::f32).empty());
  expect_checked(*affine(s, 2, 1));
}

TEST(WeightSource, Reshape) {
  const auto source = make_source(values(6, 4), 6, 4);
  const std::vector<float> flat = values(6, 4);
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int64_t>{4, 6}, {24, 1}, {1, 24}, {3, 8}, {8, 3}}) {
    const auto s = reshape_source(source, rows, cols);
    for (std::int64_t step : {1, 2, 3, 24}) EXPECT_EQ(read_all(*s, step), flat) << rows << "x" << cols;
    expect_checked(*s);
  }
  EXPECT_EQ(reshape_source(source, 6, 4), source);
  EXPECT_THROW(reshape_source(source, 5, 5), Error);
  EXPECT_THROW(reshape_source(source, -6, -4), Error);
}

TEST(WeightSource, FingerprintsTellOperationsApart) {
  const auto s = make_source(values(4, 4), 4, 4), other = make_source(values(2, 8), 4, 4);
  const std::vector<std::uint64_t> prints = {s->fingerprint(),
                                             other->fingerprint(),
                                             transpose(s)->fingerprint(),
                                             transpose(transpose(s))->fingerprint(),
                                             affine(s, 1, 1)->fingerprint(),
                                             affine(s, 2, 0)->fingerprint(),
                                             gather_rows(s, {0, 1})->fingerprint(),
                                             gather_rows(s, {1, 0})->fingerprint(),
                                             concat_rows({s, other})->fingerprint(),
                                             concat_rows({other, s})->fingerprint(),
                                             slice_cols(s, 0, 2)->fingerprint(),
                                             slice_cols(s, 2, 4)->fingerprint(),
                                             pad_cols(s, 5)->fingerprint(),
                                             pad_cols(s, 6)->fingerprint(),
                                             reshape_source(s, 2, 8)->fingerprint(),
                                             reshape_source(s, 8, 2)->fingerprint()};
  EXPECT_EQ(std::set<std::uint64_t>(prints.begin(), prints.end()).size(), prints.size());
  EXPECT_EQ(make_source(values(4, 4), 4, 4, "elsewhere")->fingerprint(), s->fingerprint());
}

}  // namespace
}  // namespace ttt

#include "backends/cpu/support.h"
#include "ttt/tensor/block_float.h"

namespace ttt::cpu_tests {
namespace {

constexpr DataType weight_types[] = {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::bfp4_b};

// Packed weights hold what TTNN's formats hold: blocks of 16 along out, that is along the transposed rows.
TEST(CpuPacking, ValuesAreTtnns) {
  const auto d = device("portable");
  for (const DataType t : weight_types) {
    for (const auto& [out, in] : {std::pair<int, int>{1, 1}, {5, 3}, {16, 32}, {33, 65}, {100, 129}}) {
      std::vector<float> values = random_values(out * in, 7, 1);
      for (std::size_t i = 0; i < values.size(); i += 5)
        values[i] *= std::exp2f(static_cast<float>(static_cast<int>(i % 61) - 30));
      values[0] = 0, values[values.size() / 2] = -0.0f, values[values.size() - 1] = 1e-40f;
      const LazyWeight w = LazyWeight::from_values(values, out, in).bind(*d, t);
      std::vector<float> expected(values.size());  // [in, out]
      for (int o = 0; o < out; ++o) {
        for (int i = 0; i < in; ++i)
          expected[static_cast<std::size_t>(i * out + o)] = values[static_cast<std::size_t>(o * in + i)];
      }
      if (is_block_float(t)) round_to_block_float(expected, in, out, t);
      if (t == DataType::bf16) {
        for (float& v : expected) v = round_to_bf16(v);
      }
      EXPECT_TRUE(same_bits(to_host(w.get()), expected)) << name(t) << " " << out << " x " << in;
      EXPECT_TRUE(same_bits(to_host(ops::typecast(w.get(), DataType::f32)), expected));
    }
  }
}

TEST(CpuPacking, BlocksWithInfinityAndSaturation) {
  const auto d = device("portable");
  for (const DataType t : {DataType::bfp8_b, DataType::bfp4_b}) {
    std::vector<float> column = random_values(16, 3);
    column[3] = INFINITY;
    column[5] = NAN;
    const LazyWeight w = LazyWeight::from_values(column, 16, 1).bind(*d, t);
    std::vector<float> expected = column;
    round_to_block_float(expected, 1, 16, t);
    EXPECT_TRUE(same_bits(to_host(w.get()), expected)) << name(t);
  }
}

TEST(CpuPacking, SizesAndErrors) {
  const auto d = device("portable");
  const WeightSpec spec{.role = WeightRole::linear, .dtype = DataType::bfp8_b};
  EXPECT_EQ(d->packed_bytes(spec, 64, 64), 4u * 1088);
  EXPECT_THROW(d->packed_bytes(spec, std::int64_t{1} << 45, std::int64_t{1} << 45), Error);
  EXPECT_THROW(d->packed_bytes({.role = WeightRole::linear, .dtype = DataType::u8}, 64, 64), Error);
  std::vector<std::byte> wrong(100);
  EXPECT_THROW(d->adopt(spec, 64, 64, wrong, nullptr), Error);
}

struct ThrowingSource final : WeightSource {
  std::int64_t rows() const override { return 256; }
  std::int64_t cols() const override { return 64; }
  void read(std::int64_t begin, std::int64_t, float*) const override {
    if (begin >= 0) throw Error("damaged", "row " + std::to_string(begin));
  }
  std::uint64_t fingerprint() const override { return 1; }
  std::string describe() const override { return "a damaged file"; }
};

TEST(CpuPacking, ErrorsOfASourceArrive) {
  for (const int threads : {1, 2}) {
    const auto d = device("portable", threads);
    const WeightSpec spec{.role = WeightRole::linear, .dtype = DataType::bf16};
    std::vector<std::byte> out(d->packed_bytes(spec, 256, 64));
    EXPECT_THROW(d->pack(ThrowingSource{}, spec, out), Error);
  }
}

struct Case {
  std::int64_t rows, in, out;
};
constexpr Case cases[] = {{1, 1, 1},    {1, 31, 33},   {1, 576, 192}, {2, 100, 65},  {3, 129, 17},
                          {4, 64, 100}, {5, 33, 63},   {7, 63, 129},  {12, 96, 96},  {13, 65, 31},
                          {17, 5, 2},   {33, 129, 65}, {65, 100, 40}, {1, 2100, 40}, {6, 4200, 33}};

TEST(CpuLinear, AgreesWithItsFormula) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const Case& c : cases) {
      for (const DataType wt : weight_types) {
        const LazyWeight w = random_weight(*d, c.out, c.in, wt, 11);
        for (const DataType xt : {DataType::f32, DataType::bf16}) {
          const Tensor x = random_tensor(*d, {1, 1, c.rows, c.in}, xt, 12);
          const Tensor actual = ops::linear(x, w.get(), {.dtype = DataType::f32});
          const std::vector<float> xs = to_host(x), ws = to_host(w.get());
          std::vector<float> expected;
          for (std::int64_t r = 0; r < c.rows; ++r) {
            std::vector<double> row(static_cast<std::size_t>(c.out));
            for (std::int64_t i = 0; i < c.in; ++i) {
              const double factor = xs[static_cast<std::size_t>(r * c.in + i)];
              for (std::int64_t o = 0; o < c.out; ++o)
                row[static_cast<std::size_t>(o)] += factor * ws[static_cast<std::size_t>(i * c.out + o)];
            }
            expected.insert(expected.end(), row.begin(), row.end());
          }
          EXPECT_LE(difference(to_host(actual), expected), 3e-6)
              << isa + " " + std::string(name(wt)) + " " + std::string(name(xt)) + " rows " +
                     std::to_string(c.rows) + " in " + std::to_string(c.in) + " out " + std::to_string(c.out);
        }
      }
    }
  }
}

TEST(CpuLinear, BiasActivationAndRounding) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const std::int64_t rows : {1, 3, 9}) {
      for (const DataType t : {DataType::f32, DataType::bf16}) {
        const LazyWeight w = random_weight(*d, 70, 90, DataType::bfp8_b, 1);
        const Tensor x = random_tensor(*d, {1, 1, rows, 90}, t, 2),
                     bias = random_tensor(*d, {1, 1, 1, 70}, t, 3);
        for (const UnaryOp op : {UnaryOp::identity, UnaryOp::silu, UnaryOp::gelu, UnaryOp::relu2}) {
          const ops::LinearOptions options{.bias = &bias, .activation = {op}};
          const Tensor actual = ops::linear(x, w.get(), options);
          const Oracle oracle;
          expect_near(actual, ops::linear(x, w.get(), options), tolerance(t, 4e-6),
                      isa + " " + std::string(name(op)));
        }
      }
    }
  }
}

// The rows of a strided view, as heads and slices give them.
TEST(CpuLinear, ReadsViews) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    const LazyWeight w = random_weight(*d, 40, 48, DataType::bf16, 1);
    const Tensor wide = random_tensor(*d, {1, 1, 9, 100}, DataType::bf16, 2);
    const Tensor view = wide.narrow(-1, 20, 68);
    EXPECT_TRUE(same_bits(to_host(ops::linear(view, w.get())),
                          to_host(ops::linear(ops::to_contiguous(view), w.get()))))
        << isa;
  }
}

// A row's result is the same alone, in any batch, on any number of threads: in both modes, bit by bit.
TEST(CpuLinear, RowsAreIndependentOfBatchAndThreads) {
  for (const std::string& isa : isas()) {
    const auto one = device(isa, 1, true), two = device(isa, 2, true);
    for (const DataType wt : weight_types) {
      for (const DataType xt : {DataType::f32, DataType::bf16}) {
        const std::int64_t in = 4200, out = 100, rows = 29;
        const LazyWeight w1 = random_weight(*one, out, in, wt, 5), w2 = random_weight(*two, out, in, wt, 5);
        const std::vector<float> values = random_values(rows * in, 6);
        const Tensor all = from_host(*one, values, {1, 1, rows, in}, xt);
        const std::vector<float> together = to_host(ops::linear(all, w1.get(), {.dtype = DataType::f32}));
        for (const std::int64_t count : {1, 2, 3, 4, 5, 11, 12, 29}) {
          const std::vector<float> part(values.begin(), values.begin() + count * in);
          const Tensor x = from_host(*two, part, {1, 1, count, in}, xt);
          const std::vector<float> alone = to_host(ops::linear(x, w2.get(), {.dtype = DataType::f32}));
          EXPECT_TRUE(same_bits(alone, {together.begin(), together.begin() + count * out}))
              << isa << " " << name(wt) << " " << name(xt) << " " << count << " rows";
        }
      }
    }
  }
}

TEST(CpuSparseMatmul, AgreesWithItsFormula) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const DataType wt : weight_types) {
      for (const auto& [tokens, k, experts] :
           {std::tuple<int, int, int>{1, 2, 4}, {7, 2, 3}, {40, 3, 5}, {1, 1, 1}, {2, 2, 8}}) {
        const LazyWeight w = random_weight(*d, experts * 50, 70, wt, 3, experts);
        std::vector<std::int32_t> ids;
        for (int i = 0; i < tokens * k; ++i)
          ids.push_back(i % 7 == 5 ? experts + 1 : (i * 5 + i / 3) % experts);
        const Tensor indices = from_host(*d, ids, {1, 1, tokens, k});
        const Tensor bias = random_tensor(*d, {1, 1, experts, 50}, DataType::f32, 5);
        for (const DataType xt : {DataType::f32, DataType::bf16}) {
          for (const Shape& shape : {Shape{1, 1, tokens, 70}, Shape{1, tokens, k, 70}}) {
            const Tensor x = random_tensor(*d, shape, xt, 4);
            const Tensor actual = ops::sparse_matmul(x, w.get(), indices, &bias, DataType::f32);
            const Oracle oracle;
            expect_near(actual, ops::sparse_matmul(x, w.get(), indices, &bias, DataType::f32), 3e-6,
                        isa + " " + std::string(name(wt)) + " tokens " + std::to_string(tokens));
          }
        }
      }
    }
  }
}

TEST(CpuMatmul, AgreesWithTheDefinition) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const auto& [m, k, n] :
         {std::tuple<int, int, int>{1, 1, 1}, {3, 17, 5}, {14, 33, 65}, {31, 100, 2}}) {
      for (const bool ta : {false, true}) {
        for (const bool tb : {false, true}) {
          const std::vector<float> a = random_values(6 * m * k, 1), b = random_values(3 * k * n, 2);
          const Tensor ta_tensor =
              from_host(*d, a, ta ? Shape{2, 3, k, m} : Shape{2, 3, m, k}, DataType::f32);
          const Tensor tb_tensor =
              from_host(*d, b, tb ? Shape{1, 3, n, k} : Shape{1, 3, k, n}, DataType::f32);
          const std::vector<float> y =
              to_host(ops::matmul(ta_tensor, tb_tensor, {.transpose_a = ta, .transpose_b = tb}));
          std::vector<float> expected;
          for (int batch = 0; batch < 6; ++batch) {
            for (int i = 0; i < m; ++i) {
              for (int j = 0; j < n; ++j) {
                double total = 0;
                for (int l = 0; l < k; ++l) {
                  const double av = a[static_cast<std::size_t>(batch * m * k + (ta ? l * m + i : i * k + l))];
                  total += av * b[static_cast<std::size_t>(batch % 3 * k * n + (tb ? j * k + l : l * n + j))];
                }
                expected.push_back(static_cast<float>(total));
              }
            }
          }
          EXPECT_LE(difference(y, expected), 2e-6) << isa << " " << m << " " << k << " " << n << ta << tb;
        }
      }
    }
  }
}

}  // namespace
}  // namespace ttt::cpu_tests

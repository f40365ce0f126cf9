#include <algorithm>
#include <functional>
#include <numeric>

#include "backends/cpu/support.h"

namespace ttt::cpu_tests {
namespace {

constexpr std::int64_t lengths[] = {1, 2, 3, 5, 17, 31, 33, 63, 65, 100, 129, 3000};
constexpr DataType floats[] = {DataType::f32, DataType::bf16};

double formula(const Activation& f, double x) {
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  switch (f.op) {
    case UnaryOp::identity:
      return x;
    case UnaryOp::silu:
      return x * sigmoid(x);
    case UnaryOp::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case UnaryOp::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case UnaryOp::relu:
      return std::max(x, 0.0);
    case UnaryOp::relu2:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case UnaryOp::tanh:
      return std::tanh(x);
    case UnaryOp::sigmoid:
      return sigmoid(x);
    case UnaryOp::quick_gelu:
      return x * sigmoid(1.702 * x);
    case UnaryOp::softplus:
      return std::log1p(std::exp(x));
    case UnaryOp::exp:
      return std::exp(x);
    case UnaryOp::log:
      return std::log(x);
    case UnaryOp::sqrt:
      return std::sqrt(x);
    case UnaryOp::rsqrt:
      return 1 / std::sqrt(x);
    case UnaryOp::neg:
      return -x;
    case UnaryOp::abs:
      return std::abs(x);
    case UnaryOp::square:
      return x * x;
    case UnaryOp::reciprocal:
      return 1 / x;
    case UnaryOp::sin:
      return std::sin(x);
    case UnaryOp::cos:
      return std::cos(x);
    case UnaryOp::elu:
      return x > 0 ? x : std::expm1(x);
    case UnaryOp::hardswish:
      return x * std::clamp(x + 3, 0.0, 6.0) / 6;
    case UnaryOp::xielu:
      return x > 0 ? f.a * x * x + 0.5 * x : f.b * (std::expm1(std::min(x, -1e-6)) - x) + 0.5 * x;
    case UnaryOp::clamp:
      return std::clamp(x, static_cast<double>(f.a), static_cast<double>(f.b));
    case UnaryOp::add_scalar:
      return x + f.a;
    case UnaryOp::mul_scalar:
      return x * f.a;
    case UnaryOp::pow_scalar:
      return std::pow(x, static_cast<double>(f.a));
    case UnaryOp::floor:
      return std::floor(x);
    case UnaryOp::sign:
      return x > 0 ? 1 : x < 0 ? -1 : 0;
    case UnaryOp::log1p:
      return std::log1p(x);
    case UnaryOp::expm1:
      return std::expm1(x);
  }
  return NAN;
}

TEST(CpuUnary, FunctionsAreAccurate) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (int i = 0; i <= static_cast<int>(UnaryOp::expm1); ++i) {
      const auto op = static_cast<UnaryOp>(i);
      const Activation f{op, op == UnaryOp::clamp ? -0.5f : 1.7f, 0.9f};
      const bool positive = f.op == UnaryOp::log || f.op == UnaryOp::sqrt || f.op == UnaryOp::rsqrt ||
                            f.op == UnaryOp::pow_scalar || f.op == UnaryOp::log1p;
      for (const std::int64_t n : lengths) {
        std::vector<float> x = random_values(n, static_cast<unsigned>(n), 4);
        for (float& v : x) v = positive ? std::abs(v) + 1e-3f : v;
        const std::vector<float> y = to_host(ops::unary(from_host(*d, x, {1, 1, 1, n}, DataType::f32), f));
        for (std::size_t j = 0; j < x.size(); ++j) {
          const double expected = formula(f, x[j]);
          // Functions that cancel near zero are as accurate as their terms.
          ASSERT_NEAR(y[j], expected,
                      4e-7 * (std::abs(expected) + std::min(1.0, static_cast<double>(std::abs(x[j])))))
              << isa << " " << name(f.op) << "(" << x[j] << ")";
        }
      }
    }
  }
}

TEST(CpuUnary, LimitsOfTheRange) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    const auto values = [&](UnaryOp op, std::vector<float> x) {
      return to_host(
          ops::unary(from_host(*d, x, {1, 1, 1, static_cast<std::int64_t>(x.size())}, DataType::f32), {op}));
    };
    const float inf = INFINITY;
    EXPECT_EQ(values(UnaryOp::exp, {0, -inf, inf, 89, -104}), (std::vector<float>{1, 0, inf, inf, 0})) << isa;
    EXPECT_TRUE(std::isnan(values(UnaryOp::exp, {NAN})[0])) << isa;
    EXPECT_NEAR(values(UnaryOp::exp, {88.7f})[0] / std::exp(static_cast<double>(88.7f)), 1, 1e-6) << isa;
    EXPECT_NEAR(values(UnaryOp::exp, {-100.0f})[0] / std::exp(-100.0), 1, 0.03) << isa;  // denormal
    EXPECT_EQ(values(UnaryOp::tanh, {-inf, inf, 0, 50}), (std::vector<float>{-1, 1, 0, 1})) << isa;
    EXPECT_EQ(values(UnaryOp::sigmoid, {-inf, inf, 0, 200}), (std::vector<float>{0, 1, 0.5f, 1})) << isa;
    EXPECT_EQ(values(UnaryOp::gelu, {-30, 30}), (std::vector<float>{-0.0f, 30})) << isa;
    for (const UnaryOp op : {UnaryOp::silu, UnaryOp::gelu, UnaryOp::tanh, UnaryOp::relu}) {
      EXPECT_TRUE(std::isnan(values(op, {NAN})[0])) << isa << name(op);
    }
  }
}

TEST(CpuBinary, BroadcastsActivatesAndRounds) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    const std::pair<Shape, Shape> shapes[] = {
        {{1, 1, 3, 65}, {1, 1, 3, 65}},   {{1, 2, 5, 33}, {1, 1, 1, 33}}, {{1, 4, 3, 17}, {1, 4, 1, 1}},
        {{1, 1, 1, 129}, {1, 3, 2, 129}}, {{2, 3, 2, 1}, {1, 1, 1, 31}},  {{1, 1, 40, 700}, {1, 1, 40, 700}}};
    for (const auto& [sa, sb] : shapes) {
      for (const DataType ta : floats) {
        for (const DataType tb : floats) {
          const Tensor a = random_tensor(*d, sa, ta, 1), b = random_tensor(*d, sb, tb, 2);
          for (const ops::BinaryOptions& options :
               {ops::BinaryOptions{}, ops::BinaryOptions{.lhs_activation = {UnaryOp::silu}},
                ops::BinaryOptions{.rhs_activation = {UnaryOp::gelu},
                .activation = {UnaryOp::relu},
                .dtype = DataType::bf16}}) {
            for (int op = 0; op < 3; ++op) {
              const auto call = [&] {
                return op == 0   ? ops::mul(a, b, options)
                       : op == 1 ? ops::add(a, b, options)
                                 : ops::subtract(a, b, options);
              };
              const Tensor actual = call();
              const Oracle oracle;
              expect_near(actual, call(), tolerance(actual.dtype(), 1e-6), isa);
            }
          }
          EXPECT_TRUE(same_bits(to_host(ops::maximum(a, b)),
                                to_host(ops::where(ops::compare(BinaryOp::gt, a, b), a, b))))
              << isa;
        }
      }
    }
  }
}

TEST(CpuBinary, IntegersAreExact) {
  const auto d = device(isas().back());
  const std::vector<std::int32_t> x = {1 << 30, (1 << 24) + 1, -5};
  const Tensor a = from_host(*d, x, {1, 1, 1, 3});
  EXPECT_EQ(to_host_int(ops::add(a, from_host(*d, std::vector<std::int32_t>{1}, {1, 1, 1, 1}))),
            (std::vector<std::int32_t>{(1 << 30) + 1, (1 << 24) + 2, -4}));
  EXPECT_EQ(to_host_int(ops::typecast(
                ops::typecast(from_host(*d, std::vector<float>{-3.7f, 1e20f, 300}, {3}, DataType::f32),
                              DataType::i32),
                DataType::i32)),
            (std::vector<std::int32_t>{-3, 2147483647, 300}));
}

TEST(CpuBinary, ReusesMovedOperandsOnlyWhenNobodyElseHoldsThem) {
  const auto d = device(isas().back());
  Tensor a = random_tensor(*d, {1, 1, 2, 64}, DataType::f32, 1);
  const Tensor b = random_tensor(*d, {1, 1, 2, 64}, DataType::f32, 2);
  const float* memory = a.data<float>();
  const Tensor kept = a;
  const std::vector<float> before = to_host(a);
  const Tensor y = ops::add(std::move(a), b);
  EXPECT_NE(y.data<float>(), memory);
  EXPECT_TRUE(same_bits(to_host(kept), before));
  Tensor c = random_tensor(*d, {1, 1, 2, 64}, DataType::f32, 1);
  memory = c.data<float>();
  const Tensor z = ops::add(std::move(c), b);
  EXPECT_EQ(z.data<float>(), memory);
  EXPECT_TRUE(same_bits(to_host(z), to_host(y)));
}

TEST(CpuNorm, AgreesWithItsFormula) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const std::int64_t n : lengths) {
      for (const DataType t : floats) {
        const Tensor x = random_tensor(*d, {1, 2, 3, n}, t, 1, 3),
                     weight = random_tensor(*d, {1, 1, 1, n}, t, 2),
                     bias = random_tensor(*d, {1, 1, 1, n}, DataType::f32, 3),
                     residual = random_tensor(*d, {1, 2, 3, n}, t, 4);
        for (const ops::NormOptions& options :
             {ops::NormOptions{}, ops::NormOptions{.weight = &weight, .epsilon = 1e-3f},
              ops::NormOptions{.weight = &weight,
              .residual = &residual,
              .weight_plus_one = true,
              .dtype = DataType::f32}}) {
          const Tensor rms = ops::rms_norm(x, options);
          ops::NormOptions with_bias = options;
          with_bias.bias = &bias;
          with_bias.epsilon = 0.1f;
          const Tensor layer = ops::layer_norm(x, with_bias);
          const Tensor head_view = ops::rms_norm(x.swap_axes(1, 2), {.weight = options.weight});
          const Oracle oracle;
          expect_near(rms, ops::rms_norm(x, options), tolerance(rms.dtype()),
                      isa + " rms " + std::to_string(n));
          expect_near(layer, ops::layer_norm(x, with_bias), tolerance(layer.dtype()),
                      isa + " layer " + std::to_string(n));
          expect_near(head_view,
                      ops::rms_norm(ops::to_contiguous(x.swap_axes(1, 2)), {.weight = options.weight}),
                      tolerance(t), isa + " view");
        }
      }
    }
  }
}

TEST(CpuSoftmax, AgreesWithItsFormula) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const std::int64_t n : lengths) {
      for (const DataType t : floats) {
        const Tensor x = random_tensor(*d, {1, 1, 3, n}, t, 1, 5);
        const Tensor actual = ops::softmax(x);
        const Oracle oracle;
        expect_near(actual, ops::softmax(x), tolerance(t), isa + " " + std::to_string(n));
      }
    }
  }
}

TEST(CpuRotaryEmbedding, AgreesWithItsFormula) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const auto& [heads, tokens, dim, rotary] :
         {std::tuple<int, int, int, int>{1, 1, 2, 2}, {3, 5, 33, 32}, {4, 7, 64, 64}, {2, 17, 100, 30}}) {
      const Tensor cos = random_tensor(*d, {1, 1, tokens, rotary / 2}, DataType::f32, 1),
                   sin = random_tensor(*d, {1, 1, tokens, rotary / 2}, DataType::f32, 2);
      for (const DataType t : floats) {
        const Tensor fused = random_tensor(*d, {1, 1, tokens, heads * dim}, t, 3);
        const Tensor x = ops::nlp_create_qkv_heads(fused, heads, 0, dim).q;
        for (const bool interleaved : {false, true}) {
          const Tensor actual = ops::rotary_embedding(x, cos, sin, interleaved);
          const Oracle oracle;
          expect_near(actual, ops::rotary_embedding(x, cos, sin, interleaved), tolerance(t, 1e-6), isa);
        }
      }
    }
  }
}

TEST(CpuHeads, AreViewsThatAgreeWithTheirFormulas) {
  const auto d = device(isas().back());
  const Tensor x = random_tensor(*d, {1, 1, 5, 4 * 24 + 2 * 24 + 2 * 16}, DataType::bf16, 1);
  const ops::QkvHeads views = ops::nlp_create_qkv_heads(x, 4, 2, 24, 16);
  EXPECT_EQ(views.v.buffer_ptr(), x.buffer_ptr());
  const Tensor joined = ops::nlp_concat_heads(views.q),
               copied = ops::nlp_concat_heads(ops::to_contiguous(views.q));
  const Oracle oracle;
  const ops::QkvHeads expected = ops::nlp_create_qkv_heads(x, 4, 2, 24, 16);
  EXPECT_TRUE(same_bits(to_host(views.q), to_host(expected.q)));
  EXPECT_TRUE(same_bits(to_host(views.k), to_host(expected.k)));
  EXPECT_TRUE(same_bits(to_host(views.v), to_host(expected.v)));
  EXPECT_TRUE(same_bits(to_host(joined), to_host(ops::nlp_concat_heads(expected.q))));
  EXPECT_TRUE(same_bits(to_host(joined), to_host(copied)));
}

TEST(CpuReduce, EveryAxis) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    const Shape shape = {2, 3, 17, 65};
    const std::vector<float> x = random_values(shape.elements(), 1);
    const Tensor t = from_host(*d, x, shape, DataType::f32);
    for (int axis = 0; axis < 4; ++axis) {
      for (const ReduceOp op :
           {ReduceOp::sum, ReduceOp::mean, ReduceOp::max, ReduceOp::min, ReduceOp::prod}) {
        std::int64_t inner = 1, n = shape[axis];
        for (int i = axis + 1; i < 4; ++i) inner *= shape[i];
        std::vector<float> expected;
        for (std::int64_t o = 0; o < shape.elements() / (inner * n); ++o) {
          for (std::int64_t i = 0; i < inner; ++i) {
            double r = op == ReduceOp::prod  ? 1
                       : op == ReduceOp::max ? -INFINITY
                       : op == ReduceOp::min ? INFINITY
                                             : 0;
            for (std::int64_t j = 0; j < n; ++j) {
              const double v = x[static_cast<std::size_t>((o * n + j) * inner + i)];
              r = op == ReduceOp::prod  ? r * v
                  : op == ReduceOp::max ? std::max(r, v)
                  : op == ReduceOp::min ? std::min(r, v)
                                        : r + v;
            }
            expected.push_back(static_cast<float>(op == ReduceOp::mean ? r / static_cast<double>(n) : r));
          }
        }
        EXPECT_LE(difference(to_host(ops::reduce(t, op, axis)), expected), 2e-6)
            << isa << " " << name(op) << " axis " << axis;
        EXPECT_LE(
            difference(to_host(ops::reduce(t.swap_axes(0, 1).swap_axes(1, 0), op, axis, false)), expected),
            2e-6)
            << isa;
      }
    }
  }
}

TEST(CpuTopk, OrdersTiesByIndex) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const std::int64_t n : lengths) {
      std::vector<float> x = random_values(3 * n, 1, 3);
      for (float& v : x) v = std::round(v);  // many ties
      for (const DataType t : floats) {
        const Tensor tensor = from_host(*d, x, {1, 1, 3, n}, t);
        const std::int64_t k = std::min<std::int64_t>(n, 40);
        const ops::TopK top = ops::topk(tensor, k);
        const std::vector<float> values = to_host(top.values);
        const std::vector<std::int32_t> indices = to_host_int(top.indices),
                                        best = to_host_int(ops::argmax(tensor));
        for (std::int64_t row = 0; row < 3; ++row) {
          std::vector<std::int32_t> order(static_cast<std::size_t>(n));
          std::iota(order.begin(), order.end(), 0);
          const float* r = x.data() + row * n;
          std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return r[a] > r[b]; });
          for (std::int64_t i = 0; i < k; ++i) {
            ASSERT_EQ(indices[static_cast<std::size_t>(row * k + i)], order[static_cast<std::size_t>(i)])
                << isa << " " << n;
            ASSERT_EQ(values[static_cast<std::size_t>(row * k + i)], r[order[static_cast<std::size_t>(i)]]);
          }
          ASSERT_EQ(best[static_cast<std::size_t>(row)], order[0]);
        }
      }
    }
  }
}

TEST(CpuShapes, GatherAndScatter) {
  const auto d = device(isas().back());
  const std::vector<float> x = random_values(4 * 5, 1);
  const Tensor t = from_host(*d, x, {4, 5}, DataType::f32);
  const Tensor index = from_host(*d, std::vector<std::int32_t>{3, 0, 1, 2, 2, 0}, {2, 3});
  const std::vector<std::int32_t> ids = {3, 0, 1, 2, 2, 0};
  std::vector<float> rows, cols;
  for (std::size_t i = 0; i < 6; ++i) {
    rows.push_back(x[static_cast<std::size_t>(ids[i]) * 5 + i % 3]);
    cols.push_back(x[i / 3 * 5 + static_cast<std::size_t>(ids[i])]);
  }
  EXPECT_EQ(to_host(ops::gather(t, 0, index)), rows);
  EXPECT_EQ(to_host(ops::gather(t, 1, index)), cols);
  const std::vector<float> source = {10, 11, 12, 13, 14, 15};
  std::vector<float> expected = x;
  for (std::size_t i = 0; i < 6; ++i) expected[i / 3 * 5 + static_cast<std::size_t>(ids[i])] = source[i];
  EXPECT_EQ(to_host(ops::scatter(t, 1, index, from_host(*d, source, {2, 3}, DataType::f32))), expected);
  EXPECT_EQ(to_host(t), x);
}

TEST(CpuShapes, ConcatSlicePadPermuteRepeat) {
  const auto d = device(isas().back());
  const Shape shape = {2, 3, 5};
  std::vector<float> x(30);
  std::iota(x.begin(), x.end(), 0.0f);
  const auto at = [&](std::int64_t i, std::int64_t j, std::int64_t k) {
    return x[static_cast<std::size_t>((i * 3 + j) * 5 + k)];
  };
  const auto make = [](const Shape& s,
                       const std::function<float(std::int64_t, std::int64_t, std::int64_t)>& f) {
    std::vector<float> v;
    for (std::int64_t i = 0; i < s[0]; ++i) {
      for (std::int64_t j = 0; j < s[1]; ++j) {
        for (std::int64_t k = 0; k < s[2]; ++k) v.push_back(f(i, j, k));
      }
    }
    return v;
  };
  for (const DataType type : {DataType::f32, DataType::bf16}) {
    const Tensor t = from_host(*d, x, shape, type);
    for (int axis = 0; axis < 3; ++axis) {
      Shape doubled = shape;
      doubled[axis] *= 2;
      const auto wrapped = [&](std::int64_t i, std::int64_t j, std::int64_t k) {
        return at(i % 2, j % 3, k % 5);
      };
      EXPECT_EQ(to_host(ops::repeat(t, axis, 2)), make(doubled, wrapped));
      EXPECT_EQ(to_host(ops::concat(std::vector<Tensor>{t, t}, axis)), make(doubled, wrapped));
      Shape cut = shape;
      cut[axis] = 1;
      EXPECT_EQ(to_host(ops::slice(t, axis, 1, 2)), make(cut, [&](auto i, auto j, auto k) {
                  return at(i + (axis == 0), j + (axis == 1), k + (axis == 2));
                }));
      Shape padded = shape;
      padded[axis] += 3;
      EXPECT_EQ(to_host(ops::pad(t, axis, 1, 2, -7)),
                make(padded, [&](std::int64_t i, std::int64_t j, std::int64_t k) {
                  std::int64_t p[3] = {i, j, k};
                  p[axis] -= 1;
                  return p[axis] < 0 || p[axis] >= shape[axis] ? -7.0f : at(p[0], p[1], p[2]);
                }));
    }
    const int order[] = {2, 0, 1};
    EXPECT_EQ(to_host(ops::permute(t, order)),
              make({5, 2, 3}, [&](auto i, auto j, auto k) { return at(j, k, i); }));
    EXPECT_EQ(to_host(ops::all_reduce(t)), x);
  }
}

TEST(CpuTypecast, EveryPair) {
  const auto d = device(isas().back());
  const std::vector<float> x = {0, 1, 2, 3, 100, 7, 5, 6, 64, 32, 16, 8, 4, 2, 1, 0, 12, 24};
  const DataType types[] = {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::i32,
                            DataType::u32, DataType::u16,  DataType::u8};
  for (const DataType from : types) {
    const Tensor a = ops::typecast(from_host(*d, x, {1, 1, 2, 9}, DataType::f32), from);
    for (const DataType to : types)
      EXPECT_EQ(to_host(ops::typecast(a, to)), x) << name(from) << " to " << name(to);
  }
}

// Same instruction set: the number of threads changes no bit.
TEST(CpuOps, ResultsDoNotDependOnThreads) {
  for (const std::string& isa : isas()) {
    std::vector<float> reference;
    for (const int threads : {1, 2, 3}) {
      const auto d = device(isa, threads);
      const Tensor x = random_tensor(*d, {1, 4, 33, 300}, DataType::bf16, 1);
      std::vector<float> all;
      for (const Tensor& y :
           {ops::rms_norm(x), ops::layer_norm(x), ops::softmax(x), ops::unary(x, {UnaryOp::gelu}),
            ops::sum(x, 1), ops::sum(x, -1), ops::add(x, x, {.activation = {UnaryOp::silu}}),
            ops::matmul(x, x, {.transpose_b = true}), ops::topk(x, 9).values}) {
        const std::vector<float> values = to_host(y);
        all.insert(all.end(), values.begin(), values.end());
      }
      if (reference.empty()) reference = all;
      EXPECT_TRUE(same_bits(all, reference)) << isa << " " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace ttt::cpu_tests

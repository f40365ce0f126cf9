// The fallbacks against the formulas of ops.h, written out as loops in double precision.
#include "ops/composed.h"

#include <gtest/gtest.h>

#include <array>
#include <random>

#include "ops/reference_backend.h"
#include "ttt/ops/ops.h"
#include "ttt/tensor/lazy_weight.h"

namespace ttt {
namespace {

class Composed : public testing::Test {
 protected:
  ReferenceBackend device;
  std::mt19937 random{3};

  Tensor noise(const Shape& shape, DataType dtype = DataType::f32) {
    std::vector<float> v(static_cast<std::size_t>(shape.elements()));
    for (float& x : v) x = static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 500;
    return from_host(device, v, shape, dtype);
  }
  Tensor ints(std::vector<std::int32_t> v, const Shape& shape) { return from_host(device, v, shape); }
  std::vector<double> get(const Tensor& t) { return device.values(t); }

  void expect_near(const Tensor& t, const std::vector<double>& expected, double tolerance = 2e-5) {
    const std::vector<double> got = get(t);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], expected[i], tolerance * (1 + std::abs(expected[i])))
          << "element " << i << " of " << to_string(t.shape());
    }
  }
};

double at(const std::vector<double>& v, std::int64_t i) { return v.at(static_cast<std::size_t>(i)); }

TEST_F(Composed, Linear) {
  const Tensor x = noise({1, 1, 3, 5}), w = noise({1, 1, 5, 7}), bias = noise({1, 1, 1, 7});
  const auto xv = get(x), wv = get(w), bv = get(bias);
  std::vector<double> expected;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 7; ++j) {
      double sum = at(bv, j);
      for (int k = 0; k < 5; ++k) sum += at(xv, i * 5 + k) * at(wv, k * 7 + j);
      expected.push_back(sum / (1 + std::exp(-sum)));
    }
  }
  const Tensor y = ops::linear(x, w, {.bias = &bias, .activation = {UnaryOp::silu}});
  EXPECT_EQ(y.shape(), (Shape{1, 1, 3, 7}));
  expect_near(y, expected);
  EXPECT_GT(device.ran["matmul"], 0);
}

TEST_F(Composed, LinearRoundsOnce) {
  const Tensor x = noise({1, 1, 2, 64}, DataType::bf16), w = noise({1, 1, 64, 8}, DataType::bf16),
               bias = noise({1, 1, 1, 8}, DataType::bf16);
  const Tensor wide = ops::linear(x, w, {.bias = &bias, .dtype = DataType::f32});
  std::vector<double> expected = get(wide);
  for (double& v : expected) v = round_to_bf16(static_cast<float>(v));
  const Tensor y = ops::linear(x, w, {.bias = &bias});
  EXPECT_EQ(y.dtype(), DataType::bf16);
  EXPECT_EQ(get(y), expected);
}

TEST_F(Composed, LinearOfAPackedWeight) {
  std::vector<float> hf = {1, 2, 3, 4, 5, 6};  // [out 2, in 3]
  const LazyWeight w = LazyWeight::from_values(hf, 2, 3).bind(device, DataType::f32);
  const Tensor y =
      ops::linear(from_host(device, std::vector<float>{1, 10, 100}, {1, 1, 1, 3}, DataType::f32), w.get());
  EXPECT_EQ(get(y), (std::vector<double>{321, 654}));
}

TEST_F(Composed, PlainKernelThenTheRest) {
  // A backend that has only the plain product: bias and activation are added to it in float32.
  int plain = 0;
  device.also_supports = [](const OpCall& c) {
    return c.op == OpKind::linear && !c.has(2) &&
           c.as<LinearAttributes>().activation.op == UnaryOp::identity &&
           c.output_specs[0].dtype == DataType::f32;
  };
  device.fused = [&](OpCall& c) { ++plain, c.outputs[0] = ops::matmul(c.in(0), c.in(1)); };
  const Tensor x = noise({1, 1, 3, 5}), w = noise({1, 1, 5, 7}), bias = noise({1, 1, 1, 7});
  const Tensor y = ops::linear(x, w, {.bias = &bias, .activation = {UnaryOp::relu}, .dtype = DataType::bf16});
  EXPECT_EQ(plain, 1);
  const ops::composed::OracleScope oracle;
  EXPECT_EQ(get(ops::linear(x, w, {.bias = &bias, .activation = {UnaryOp::relu}, .dtype = DataType::bf16})),
            get(y));
  EXPECT_EQ(plain, 1);
}

TEST_F(Composed, OracleScopeGoesAroundKernels) {
  int fused = 0;
  device.also_supports = [](const OpCall& c) { return c.op == OpKind::rms_norm; };
  device.fused = [&](OpCall& c) { ++fused, c.outputs[0] = c.in(0); };
  const Tensor x = noise({1, 1, 2, 4});
  ops::rms_norm(x);
  EXPECT_EQ(fused, 1);
  {
    const ops::composed::OracleScope oracle;
    ops::rms_norm(x);
    EXPECT_TRUE(ops::composed::forced());
  }
  EXPECT_EQ(fused, 1);
  EXPECT_FALSE(ops::composed::forced());
}

TEST_F(Composed, SparseMatmul) {
  const std::int64_t tokens = 5, k = 2, experts = 4, in = 3, out = 6;
  const Tensor w = noise({1, experts, in, out}), bias = noise({1, 1, experts, out});
  const std::vector<std::int32_t> ids = {3, 0, 1, 4, 0, 3, 3, 1, 99, 0};
  const auto wv = get(w), bv = get(bias);
  for (const bool shared : {true, false}) {
    const Tensor x = noise(shared ? Shape{1, 1, tokens, in} : Shape{1, tokens, k, in});
    const auto xv = get(x);
    std::vector<double> expected;
    for (std::int64_t s = 0; s < tokens * k; ++s) {
      const std::int64_t e = ids[static_cast<std::size_t>(s)], row = shared ? s / k : s;
      for (std::int64_t j = 0; j < out; ++j) {
        double sum = e < experts ? at(bv, e * out + j) : 0;
        for (std::int64_t i = 0; i < in && e < experts; ++i)
          sum += at(xv, row * in + i) * at(wv, (e * in + i) * out + j);
        expected.push_back(sum);
      }
    }
    const Tensor y = ops::sparse_matmul(x, w, ints(ids, {1, 1, tokens, k}), &bias);
    EXPECT_EQ(y.shape(), (Shape{1, tokens, k, out}));
    expect_near(y, expected);
  }
}

TEST_F(Composed, Norms) {
  const std::int64_t rows = 3, n = 7;
  const Tensor x = noise({1, 1, rows, n}), r = noise({1, 1, rows, n}), w = noise({1, 1, 1, n}),
               b = noise({1, 1, 1, n});
  const auto xv = get(x), rv = get(r), wv = get(w), bv = get(b);
  for (const bool layer : {false, true}) {
    for (const bool plus_one : {false, true}) {
      std::vector<double> expected;
      for (std::int64_t i = 0; i < rows; ++i) {
        double mean = 0, square = 0;
        for (std::int64_t j = 0; j < n; ++j) mean += (at(xv, i * n + j) + at(rv, i * n + j)) / n;
        if (!layer) mean = 0;
        for (std::int64_t j = 0; j < n; ++j)
          square += std::pow(at(xv, i * n + j) + at(rv, i * n + j) - mean, 2) / n;
        for (std::int64_t j = 0; j < n; ++j) {
          const double v = at(xv, i * n + j) + at(rv, i * n + j) - mean;
          expected.push_back(v / std::sqrt(square + 1e-3) * (at(wv, j) + plus_one) + (layer ? at(bv, j) : 0));
        }
      }
      const ops::NormOptions options{.weight = &w,
                                     .bias = layer ? &b : nullptr,
                                     .residual = &r,
                                     .epsilon = 1e-3f,
                                     .weight_plus_one = plus_one};
      expect_near(layer ? ops::layer_norm(x, options) : ops::rms_norm(x, options), expected);
    }
  }
}

TEST_F(Composed, SoftmaxAlongAnyAxis) {
  const Tensor x = noise({2, 3, 4});
  const auto xv = get(x);
  for (int axis = 0; axis < 3; ++axis) {
    const std::int64_t steps[] = {12, 4, 1}, extents[] = {2, 3, 4};
    std::vector<double> expected(24);
    for (std::int64_t i = 0; i < 24; ++i) {
      const std::int64_t base = i - i / steps[axis] % extents[axis] * steps[axis];
      double sum = 0;
      for (std::int64_t k = 0; k < extents[axis]; ++k) sum += std::exp(at(xv, base + k * steps[axis]));
      expected[static_cast<std::size_t>(i)] = std::exp(at(xv, i)) / sum;
    }
    expect_near(ops::softmax(x, axis), expected);
  }
  const Tensor large = from_host(device, std::vector<float>{1e30f, -1e30f}, {1, 2}, DataType::f32);
  EXPECT_EQ(get(ops::softmax(large)), (std::vector<double>{1, 0}));
}

TEST_F(Composed, Embedding) {
  const Tensor table = noise({1, 1, 5, 3});
  const auto v = get(table);
  const Tensor y = ops::embedding(ints({4, 0, 0, 7, -1}, {1, 1, 1, 5}), table);
  EXPECT_EQ(get(y),
            (std::vector<double>{v[12], v[13], v[14], v[0], v[1], v[2], v[0], v[1], v[2], 0, 0, 0, 0, 0, 0}));
}

TEST_F(Composed, RotaryEmbedding) {
  const std::int64_t heads = 2, tokens = 3, width = 10, half = 3;
  const Tensor x = noise({1, heads, tokens, width}), c = noise({1, 1, tokens, half}),
               s = noise({1, 1, tokens, half});
  const auto xv = get(x), cv = get(c), sv = get(s);
  for (const bool interleaved : {false, true}) {
    std::vector<double> expected = xv;
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t i = 0; i < half; ++i) {
          const std::int64_t row = (h * tokens + t) * width, a = row + (interleaved ? 2 * i : i),
                             b = row + (interleaved ? 2 * i + 1 : i + half);
          const double cos = at(cv, t * half + i), sin = at(sv, t * half + i);
          expected[static_cast<std::size_t>(a)] = at(xv, a) * cos - at(xv, b) * sin;
          expected[static_cast<std::size_t>(b)] = at(xv, b) * cos + at(xv, a) * sin;
        }
      }
    }
    expect_near(ops::rotary_embedding(x, c, s, interleaved), expected);
  }
}

// What ops.h says of attention: q[h][i], key head h / group, one loop for each sum. Position of query i is
// first + i.
struct Naive {
  ops::AttentionOptions options;
  std::int64_t heads, kv_heads, queries, keys, d, dv, first;
  std::vector<double> q, k, v, mask, sink, slopes;  // k, v [kv_heads][keys][..]
  std::int64_t mask_heads = 1;

  std::vector<double> run() const {
    std::vector<double> out;
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t g = h / (heads / kv_heads);
      for (std::int64_t i = 0; i < queries; ++i) {
        std::vector<double> p(static_cast<std::size_t>(keys), 0);
        double total = sink.empty() ? 0 : std::exp(at(sink, h));
        for (std::int64_t j = 0; j < keys; ++j) {
          const std::int64_t position = first + i, window = options.sliding_window_size,
                             chunk = options.chunk_size;
          if (options.is_causal && (j > position || (window > 0 && j <= position - window) ||
                                    (chunk > 0 && j / chunk != position / chunk)))
            continue;
          if (!options.is_causal && window > 0 && std::abs(j - position) > window / 2) continue;
          double s = 0;
          for (std::int64_t t = 0; t < d; ++t)
            s += at(q, (h * queries + i) * d + t) * at(k, (g * keys + j) * d + t);
          s *= options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<double>(d));
          if (options.softcap != 0) s = options.softcap * std::tanh(s / options.softcap);
          if (!slopes.empty()) s += at(slopes, h) * static_cast<double>(j);
          if (!mask.empty()) s += at(mask, ((mask_heads == 1 ? 0 : h) * queries + i) * keys + j);
          p[static_cast<std::size_t>(j)] = std::exp(s);
          total += std::exp(s);
        }
        for (std::int64_t t = 0; t < dv; ++t) {
          double sum = 0;
          for (std::int64_t j = 0; j < keys; ++j) sum += at(p, j) * at(v, (g * keys + j) * dv + t);
          out.push_back(total > 0 ? sum / total : 0);
        }
      }
    }
    return out;
  }
};

TEST_F(Composed, ScaledDotProductAttention) {
  for (int variant = 0; variant < 12; ++variant) {
    Naive n{{}, 4, 2, 5, 9, 6, 3, 4, {}, {}, {}, {}, {}, {}};
    const Tensor q = noise({1, n.heads, n.queries, n.d}), k = noise({1, n.kv_heads, n.keys, n.d}),
                 v = noise({1, n.kv_heads, n.keys, n.dv});
    const Tensor mask1 = noise({1, 1, n.queries, n.keys}), mask4 = noise({1, n.heads, n.queries, n.keys});
    const Tensor sink = noise({1, 1, 1, n.heads}), slopes = noise({1, 1, 1, n.heads});
    n.q = get(q), n.k = get(k), n.v = get(v);
    switch (variant) {
      case 1:
        n.options.is_causal = false;
        break;
      case 2:
        n.options.sliding_window_size = 3;
        break;
      case 3:
        n.options.chunk_size = 4;
        break;
      case 4:
        n.options.softcap = 1.5f;
        break;
      case 5:
        n.options.scale = 0.3f;
        break;
      case 6:
        n.options.attn_mask = &mask1, n.mask = get(mask1), n.options.is_causal = false;
        break;
      case 7:
        n.options.attn_mask = &mask4, n.mask = get(mask4), n.mask_heads = 4;
        break;
      case 8:
        n.options.attention_sink = &sink, n.sink = get(sink);
        break;
      case 9:
        n.options.alibi_slopes = &slopes, n.slopes = get(slopes);
        break;
      case 10:
        n.options.is_causal = false, n.options.sliding_window_size = 4;
        break;
      case 11:
        n.options.attention_sink = &sink, n.sink = get(sink), n.options.softcap = 2,
        n.options.sliding_window_size = 2;
        n.options.alibi_slopes = &slopes, n.slopes = get(slopes);
        break;
      default:
        break;
    }
    SCOPED_TRACE(variant);
    const Tensor y = ops::scaled_dot_product_attention(q, k, v, n.options);
    EXPECT_EQ(y.shape(), (Shape{1, n.heads, n.queries, n.dv}));
    expect_near(y, n.run());
  }
}

TEST_F(Composed, AQueryThatSeesNothingGivesZeros) {
  const Tensor q = noise({1, 2, 2, 4}), k = noise({1, 2, 3, 4});
  std::vector<float> closed = {-INFINITY, -INFINITY, -INFINITY, 0, 0, 0};
  const Tensor mask = from_host(device, closed, {1, 1, 2, 3}, DataType::f32);
  ops::AttentionOptions options;
  options.is_causal = false;
  options.attn_mask = &mask;
  const auto y = get(ops::scaled_dot_product_attention(q, k, k, options));
  for (int h = 0; h < 2; ++h) {
    for (int d = 0; d < 4; ++d) {
      EXPECT_EQ(at(y, h * 8 + d), 0);
      EXPECT_NE(at(y, h * 8 + 4 + d), 0);
    }
  }
}

class Paged : public Composed {
 protected:
  static constexpr std::int64_t blocks = 11, block = 4, kv_heads = 2, heads = 6, d = 5, dv = 3, width = 5;
  // Three sequences of at most 20 positions, their blocks in no order.
  const std::vector<std::int32_t> pages = {7, 2, 9, 0, 1, 3, 10, 4, 5, 6, 8, 8, 8, 8, 8};
  Tensor page_table() { return ints(pages, {3, width}); }

  // Keys of positions 0.. of a row as the caches hold them.
  std::vector<double> rows(const Tensor& cache, std::int64_t row, std::int64_t count) {
    const auto held = get(cache);
    const std::int64_t dim = cache.dim(3), n = cache.dim(1);
    std::vector<double> out;
    for (std::int64_t h = 0; h < n; ++h) {
      for (std::int64_t p = 0; p < count; ++p) {
        const std::int64_t id = pages[static_cast<std::size_t>(row * width + p / block)];
        for (std::int64_t t = 0; t < dim; ++t)
          out.push_back(at(held, ((id * n + h) * block + p % block) * dim + t));
      }
    }
    return out;
  }
  // The first `columns` of rows of d.
  static std::vector<double> columns(const std::vector<double>& x, std::int64_t columns) {
    std::vector<double> out;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(x.size()); ++i)
      if (i % d < columns) out.push_back(at(x, i));
    return out;
  }
};

TEST_F(Paged, ChunkedAttention) {
  const Tensor kc = noise({blocks, kv_heads, block, d}), vc = noise({blocks, kv_heads, block, dv}),
               q = noise({1, heads, 4, d});
  const Tensor sink = noise({1, 1, 1, heads});
  for (const std::int64_t start : {0, 3, 9, 16}) {
    Naive n{{},
            heads,
            kv_heads,
            4,
            start + 4,
            d,
            dv,
            start,
            get(q),
            rows(kc, 1, start + 4),
            rows(vc, 1, start + 4),
            {},
            get(sink),
            {}};
    n.options.chunk_start = start, n.options.page_row = 1, n.options.sliding_window_size = 6,
    n.options.attention_sink = &sink;
    expect_near(ops::chunked_scaled_dot_product_attention(q, kc, vc, page_table(), n.options), n.run());
    const Tensor mask = noise({1, heads, 4, start + 4});
    n.options.attn_mask = &mask, n.mask = get(mask), n.mask_heads = heads;
    expect_near(ops::chunked_scaled_dot_product_attention(q, kc, vc, page_table(), n.options), n.run());
  }
}

TEST_F(Paged, Decode) {
  const Tensor kc = noise({blocks, kv_heads, block, d}, DataType::bfp8_b),
               vc = noise({blocks, kv_heads, block, dv}, DataType::bfp8_b);
  const Tensor q = noise({1, 3, heads, d});
  const std::vector<std::int32_t> positions = {12, 0, -1};
  const Tensor y =
      ops::paged_scaled_dot_product_attention_decode(q, kc, vc, page_table(), ints(positions, {3}));
  EXPECT_EQ(y.shape(), (Shape{1, 3, heads, dv}));
  std::vector<double> expected;
  const auto qv = get(q);
  for (std::int64_t r = 0; r < 3; ++r) {
    const std::int64_t p = positions[static_cast<std::size_t>(r)];
    if (p < 0) {
      expected.resize(expected.size() + heads * dv);
      continue;
    }
    const std::vector<double> query(qv.begin() + r * heads * d, qv.begin() + (r + 1) * heads * d);
    const Naive n{{}, heads, kv_heads, 1, p + 1, d, dv, p, query, rows(kc, r, p + 1), rows(vc, r, p + 1),
                  {}, {},    {}};
    const auto row = n.run();
    expected.insert(expected.end(), row.begin(), row.end());
  }
  expect_near(y, expected);
}

TEST_F(Paged, LatentAttentionTakesItsValuesFromTheKeys) {
  const Tensor cache = noise({blocks, kv_heads, block, d}), q = noise({1, heads, 4, d}),
               q3 = noise({1, 3, heads, d}), sink = noise({1, 1, 1, heads});
  Naive n{
      {}, heads,     kv_heads, 4, 13, d, dv, 9, get(q), rows(cache, 1, 13), columns(rows(cache, 1, 13), dv),
      {}, get(sink), {}};
  n.options.chunk_start = 9, n.options.page_row = 1, n.options.sliding_window_size = 6,
  n.options.attention_sink = &sink, n.options.scale = 0.3f;
  const Tensor y = ops::chunked_flash_mla_prefill(q, cache, page_table(), dv, n.options);
  EXPECT_EQ(y.shape(), (Shape{1, heads, 4, dv}));
  expect_near(y, n.run());

  const std::vector<std::int32_t> positions = {12, -1, 0};
  std::vector<double> expected;
  const auto qv = get(q3);
  for (std::int64_t r = 0; r < 3; ++r) {
    const std::int64_t p = positions[static_cast<std::size_t>(r)];
    const std::vector<double> query(qv.begin() + r * heads * d, qv.begin() + (r + 1) * heads * d);
    const auto keys = p < 0 ? std::vector<double>{} : rows(cache, r, p + 1);
    const auto row =
        p < 0 ? std::vector<double>(heads * dv)
              : Naive{{}, heads, kv_heads, 1, p + 1, d, dv, p, query, keys, columns(keys, dv), {}, {}, {}}
                    .run();
    expected.insert(expected.end(), row.begin(), row.end());
  }
  expect_near(
      ops::paged_flash_multi_latent_attention_decode(q3, cache, page_table(), ints(positions, {3}), dv),
      expected);
}

TEST_F(Paged, SparseAttentionSeesTheChosenKeys) {
  const Tensor cache = noise({blocks, 1, block, d}), q = noise({1, heads, 3, d}),
               sink = noise({1, 1, 1, heads});
  // Rows of two sequences and one of none. Of the chosen keys 9 comes after position 7.
  const std::vector<std::int32_t> positions = {7, 12, -1}, page_rows = {0, 1, 1},
                                  chosen = {5, 9, 0, 2, 12, 3, 4, 11, 0, 1, 2, 3};
  ops::AttentionOptions options;
  options.attention_sink = &sink, options.scale = 0.4f;
  const Tensor y = ops::sparse_sdpa(q, cache, ints(chosen, {1, 1, 3, 4}), page_table(), ints(positions, {3}),
                                    ints(page_rows, {3}), dv, options);
  const auto qv = get(q), yv = get(y);
  for (std::int64_t t = 0; t < 3; ++t) {
    const std::int64_t p = positions[static_cast<std::size_t>(t)];
    std::vector<double> expected(heads * dv);
    if (p >= 0) {
      std::vector<double> query, mask(static_cast<std::size_t>(p + 1), -INFINITY);
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < d; ++i) query.push_back(at(qv, (h * 3 + t) * d + i));
      for (std::int64_t i = 0; i < 4; ++i)
        if (const std::int32_t key = chosen[static_cast<std::size_t>(t * 4 + i)]; key <= p)
          mask[static_cast<std::size_t>(key)] = 0;
      const auto keys = rows(cache, page_rows[static_cast<std::size_t>(t)], p + 1);
      const Naive n{options,           heads, 1,         1, p + 1, d, dv, p, query, keys,
                    columns(keys, dv), mask,  get(sink), {}};
      expected = n.run();
    }
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < dv; ++i)
        EXPECT_NEAR(at(yv, (h * 3 + t) * dv + i), at(expected, h * dv + i), 1e-5) << t;
  }
}

TEST_F(Paged, IndexerScores) {
  const Tensor cache = noise({blocks, 1, block, d}), q = noise({1, heads, 3, d}), w = noise({1, 1, 3, heads});
  const std::vector<std::int32_t> positions = {7, 12, 3}, page_rows = {0, 1, 1};
  const auto qv = get(q), wv = get(w);
  const auto score = [&](std::int64_t t, std::int64_t s) {
    const auto keys = rows(cache, page_rows[static_cast<std::size_t>(t)], 13);
    double sum = 0;
    for (std::int64_t h = 0; h < heads; ++h) {
      double dot = 0;
      for (std::int64_t i = 0; i < d; ++i) dot += at(qv, (h * 3 + t) * d + i) * at(keys, s * d + i);
      sum += at(wv, t * heads + h) * std::max(dot, 0.0);
    }
    return sum;
  };
  for (const std::int64_t keys : {13, 5}) {
    const Tensor y =
        ops::indexer_score_dsa(q, cache, w, page_table(), ints(positions, {3}), ints(page_rows, {3}), keys);
    EXPECT_EQ(y.shape(), (Shape{1, 1, 3, keys}));
    const auto yv = get(y);
    for (std::int64_t t = 0; t < 3; ++t)
      for (std::int64_t s = 0; s < keys; ++s) {
        const double actual = at(yv, t * keys + s);
        if (s > positions[static_cast<std::size_t>(t)]) {
          EXPECT_EQ(actual, -INFINITY);
        } else {
          EXPECT_NEAR(actual, score(t, s), 1e-5);
        }
      }
  }
}

TEST_F(Paged, ContentsOfThePageTableAreChecked) {
  const Tensor cache = noise({blocks, kv_heads, block, d}), q = noise({1, 1, heads, d});
  const auto decode = [&](std::vector<std::int32_t> table, std::int32_t position) {
    ops::paged_scaled_dot_product_attention_decode(q, cache, cache, ints(std::move(table), {1, 2}),
                                                   ints({position}, {1}));
  };
  EXPECT_NO_THROW(decode({0, 10}, 7));
  EXPECT_THROW(decode({0, 11}, 7), Error);
  EXPECT_THROW(decode({-1, 0}, 7), Error);
  EXPECT_NO_THROW(decode({0, 11}, 3));  // the second block is not touched
  EXPECT_THROW(decode({0, 1}, 8), Error);
}

TEST_F(Paged, CachesAreWrittenInPlace) {
  const Tensor cache = noise({blocks, kv_heads, block, d});
  const Tensor x = noise({1, kv_heads, 6, d}), one = noise({1, 3, kv_heads, d});
  ops::paged_fill_cache(cache, x, page_table(), 1, 3);
  const auto filled = rows(cache, 1, 9), xv = get(x);
  for (std::int64_t h = 0; h < kv_heads; ++h) {
    for (std::int64_t i = 0; i < 6 * d; ++i)
      EXPECT_EQ(at(filled, (h * 9 + 3) * d + i), at(xv, h * 6 * d + i));
  }
  ops::paged_update_cache(cache, one, ints({5, -1, 0}, {3}), page_table());
  const auto updated = rows(cache, 0, 6), ov = get(one);
  for (std::int64_t h = 0; h < kv_heads; ++h) {
    for (std::int64_t i = 0; i < d; ++i) EXPECT_EQ(at(updated, (h * 6 + 5) * d + i), at(ov, h * d + i));
  }
  EXPECT_EQ(rows(cache, 1, 9), filled);  // skipped
}

TEST_F(Composed, Heads) {
  const std::int64_t tokens = 3, heads = 4, kv = 2, d = 2, dv = 3;
  const Tensor x = noise({1, 1, tokens, (heads + kv) * d + kv * dv});
  const auto xv = get(x);
  const ops::QkvHeads h = ops::nlp_create_qkv_heads(x, heads, kv, d, dv);
  const std::array<std::pair<Tensor, std::array<std::int64_t, 3>>, 3> parts = {
      {{h.q, {0, heads, d}}, {h.k, {heads * d, kv, d}}, {h.v, {(heads + kv) * d, kv, dv}}}};
  for (const auto& [t, where] : parts) {
    const auto [begin, count, dim] = where;
    EXPECT_EQ(t.shape(), (Shape{1, count, tokens, dim}));
    const auto v = get(t);
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t r = 0; r < tokens; ++r) {
        for (std::int64_t c = 0; c < dim; ++c)
          EXPECT_EQ(at(v, (i * tokens + r) * dim + c), at(xv, r * x.dim(3) + begin + i * dim + c));
      }
    }
  }
  const ops::QkvHeads q_only = ops::nlp_create_qkv_heads(x, 9, 0, 2);
  EXPECT_EQ(q_only.q.shape(), (Shape{1, 9, tokens, 2}));
  EXPECT_FALSE(q_only.k || q_only.v);
  EXPECT_EQ(get(ops::nlp_concat_heads(q_only.q)), xv);
}

TEST_F(Composed, BinaryWithActivations) {
  const Tensor a = noise({2, 1, 3}), b = noise({4, 1});
  const auto av = get(a), bv = get(b);
  std::vector<double> expected;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      for (int k = 0; k < 3; ++k) {
        const double x = at(av, i * 3 + k), y = at(bv, j);
        expected.push_back(std::max(0.0, x / (1 + std::exp(-x)) * std::tanh(y)));
      }
    }
  }
  const ops::BinaryOptions options{
      .lhs_activation = {UnaryOp::silu}, .rhs_activation = {UnaryOp::tanh}, .activation = {UnaryOp::relu}};
  const Tensor y = ops::mul(a, b, options);
  EXPECT_EQ(y.shape(), (Shape{2, 4, 3}));
  expect_near(y, expected);
}

TEST_F(Composed, Shapes) {
  const Tensor x = from_host(device, std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3}, DataType::f32);
  EXPECT_EQ(get(ops::slice(x, 1, 1, 3)), (std::vector<double>{1, 2, 4, 5}));
  EXPECT_EQ(get(ops::repeat(x, 0, 2)), (std::vector<double>{0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(get(ops::repeat(x, 1, 2)), (std::vector<double>{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5}));
  EXPECT_EQ(get(ops::permute(x, std::array{1, 0})), (std::vector<double>{0, 3, 1, 4, 2, 5}));
  const Tensor y = noise({2, 3, 4, 5});
  const auto yv = get(y), pv = get(ops::permute(y, std::array{2, 0, 3, 1}));
  for (std::int64_t i = 0; i < 120; ++i) {
    const std::int64_t a = i / 60, b = i / 20 % 3, c = i / 5 % 4, e = i % 5;
    EXPECT_EQ(at(pv, ((c * 2 + a) * 5 + e) * 3 + b), at(yv, i));
  }
  std::vector<Tensor> parts;
  std::vector<double> expected;
  for (int i = 0; i < 123; ++i) {
    parts.push_back(from_host(device, std::vector<float>{static_cast<float>(i)}, {1, 1}, DataType::f32));
    expected.push_back(i);
  }
  EXPECT_EQ(get(ops::concat(parts, 1)), expected);
  EXPECT_EQ(get(ops::argmax(x)), (std::vector<double>{2, 2}));
}

TEST_F(Composed, AllReduce) {
  device.devices = {1, 3};
  const Tensor x = noise({1, 2, 3}, DataType::bf16);
  std::vector<double> expected = get(x);
  for (double& v : expected) v = round_to_bf16(static_cast<float>(3 * v));
  EXPECT_EQ(get(ops::all_reduce(x)), expected);
  EXPECT_EQ(get(ops::all_reduce(x, 0)), get(x));
}

TEST_F(Composed, PrimitivesInOtherDtypesGoThroughFloat32) {
  const Tensor a = noise({3, 4}, DataType::bf16), b = noise({3, 4}, DataType::bfp8_b);
  std::vector<double> expected;
  for (std::size_t i = 0; i < 12; ++i)
    expected.push_back(round_to_bf16(static_cast<float>(get(a)[i] + get(b)[i])));
  const Tensor y = ops::add(a, b);
  EXPECT_EQ(y.dtype(), DataType::bf16);
  EXPECT_EQ(get(y), expected);
  EXPECT_EQ(get(ops::unary(a.swap_axes(0, 1), {UnaryOp::relu})).size(), 12u);  // a view
  const ops::TopK top = ops::topk(ints({5, 9, 7}, {1, 3}), 2);
  EXPECT_EQ(get(top.values), (std::vector<double>{9, 7}));
  EXPECT_EQ(get(top.indices), (std::vector<double>{1, 2}));
  EXPECT_EQ(top.values.dtype(), DataType::i32);
}

TEST_F(Composed, NothingIsRunForEmptyResults) {
  const Tensor x = device.allocate({.shape = {1, 1, 0, 5}, .dtype = DataType::bf16});
  const Tensor y = ops::linear(x, noise({1, 1, 5, 3}));
  EXPECT_EQ(y.shape(), (Shape{1, 1, 0, 3}));
  EXPECT_EQ(ops::rms_norm(x).shape(), x.shape());
  EXPECT_TRUE(device.ran.empty());
}

}  // namespace
}  // namespace ttt

// Latent attention, attention to chosen keys and the indexer's scores against their composed forms.
#include <numeric>

#include "backends/cpu/support.h"

namespace ttt::cpu_tests {
namespace {

struct Latents {
  Tensor cache, page_table;
};

// Two sequences of `n` positions in pages of `block` that are not in order, of `kv_heads` keys.
Latents latents(Backend& d, std::int64_t n, std::int64_t kv_heads, std::int64_t dim, std::int64_t block,
                DataType t, DataType cache_type) {
  const std::int64_t width = (n + block - 1) / block;
  Latents l;
  l.cache = d.allocate({.shape = {2 * width, kv_heads, block, dim}, .dtype = cache_type});
  d.write(l.cache, std::vector<float>(static_cast<std::size_t>(l.cache.shape().elements()),
                                      cache_type == DataType::f32 ? NAN : 1e4f));
  std::vector<std::int32_t> table(static_cast<std::size_t>(2 * width));
  std::iota(table.rbegin(), table.rend(), 0);
  l.page_table = from_host(d, table, {2, width});
  for (std::int64_t row = 0; row < 2; ++row)
    ops::paged_fill_cache(l.cache,
                          random_tensor(d, {1, kv_heads, n, dim}, t, static_cast<unsigned>(30 + row)),
                          l.page_table, row);
  return l;
}

struct Sizes {
  std::int64_t heads, kv_heads, dim, v_dim, block;
};
constexpr Sizes cases[] = {{1, 1, 16, 16, 16}, {5, 1, 33, 17, 5}, {70, 1, 40, 32, 8}, {4, 2, 24, 8, 7}};

TEST(CpuLatentAttention, AgreesWithItsFormula) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const Sizes& s : cases) {
      const Tensor sink = random_tensor(*d, {1, 1, 1, s.heads}, DataType::f32, 8);
      for (const DataType t : {DataType::f32, DataType::bf16}) {
        for (const DataType cache : {t, DataType::bfp8_b}) {
          const Latents l = latents(*d, 100, s.kv_heads, s.dim, s.block, t, cache);
          ops::AttentionOptions options;
          options.scale = 0.3f, options.attention_sink = &sink;
          const Tensor q = random_tensor(*d, {1, 2, s.heads, s.dim}, t, 4),
                       q2 = random_tensor(*d, {1, s.heads, 17, s.dim}, t, 5);
          const Tensor positions = from_host(*d, std::vector<std::int32_t>{99, 0}, {2});
          const auto decode = [&] {
            return ops::paged_flash_multi_latent_attention_decode(q, l.cache, l.page_table, positions,
                                                                  s.v_dim, options);
          };
          const auto prefill = [&] {
            ops::AttentionOptions o = options;
            o.chunk_start = 20, o.page_row = 1, o.sliding_window_size = 30;
            return ops::chunked_flash_mla_prefill(q2, l.cache, l.page_table, s.v_dim, o);
          };
          const Tensor decoded = decode(), prefilled = prefill();
          const Oracle oracle;
          const std::string what = isa + " " + std::to_string(s.heads) + " heads " + std::string(name(cache));
          expect_near(decoded, decode(), tolerance(t, 5e-6), what + " decode");
          expect_near(prefilled, prefill(), tolerance(t, 5e-6), what);
        }
      }
    }
  }
}

TEST(CpuLatentAttention, ChosenKeysAndTheirScoresAgreeWithTheirFormulas) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const Sizes& s : cases) {
      if (s.kv_heads > 1) continue;
      for (const DataType t : {DataType::f32, DataType::bf16}) {
        for (const DataType cache : {t, DataType::bfp8_b}) {
          const std::int64_t n = 150, tokens = 9;
          const Latents l = latents(*d, n, 1, s.dim, s.block, t, cache);
          const Tensor q = random_tensor(*d, {1, s.heads, tokens, s.dim}, t, 4),
                       weights = random_tensor(*d, {1, 1, tokens, s.heads}, DataType::f32, 6),
                       sink = random_tensor(*d, {1, 1, 1, s.heads}, DataType::f32, 8);
          const Tensor positions =
              from_host(*d, std::vector<std::int32_t>{149, 3, 60, 61, 62, 0, -1, 127, 128}, {tokens});
          const Tensor rows = from_host(*d, std::vector<std::int32_t>{0, 1, 1, 1, 1, 0, 0, 1, 0}, {tokens});
          const auto score = [&](std::int64_t keys) {
            return ops::indexer_score_dsa(q, l.cache, weights, l.page_table, positions, rows, keys);
          };
          const Tensor scores = score(n), few = score(70);
          const Tensor chosen = ops::topk(scores, 33).indices;
          ops::AttentionOptions options;
          options.attention_sink = &sink;
          const auto attend = [&] {
            return ops::sparse_sdpa(q, l.cache, chosen, l.page_table, positions, rows, s.v_dim, options);
          };
          const Tensor attended = attend();
          const Oracle oracle;
          const std::string what = isa + " " + std::to_string(s.heads) + " heads " + std::string(name(cache));
          expect_near(scores, score(n), tolerance(DataType::f32, 1e-4), what + " scores");
          expect_near(few, score(70), tolerance(DataType::f32, 1e-4), what + " first scores");
          expect_near(attended, attend(), tolerance(t, 5e-6), what);
        }
      }
    }
  }
}

// A row's result does not depend on its chunk, its batch, threads, prefill or decode; and choosing every key
// is attention to all of them, to the bit.
TEST(CpuLatentAttention, RowsAreTheirOwnHoweverTheyCome) {
  const std::int64_t n = 1100, heads = 70, dim = 40, v_dim = 24, first = n - 7;
  for (const std::string& isa : isas()) {
    for (const DataType cache : {DataType::f32, DataType::bfp8_b}) {
      std::vector<float> reference;
      for (const int threads : {1, 2}) {
        const auto d = device(isa, threads, true);
        const Latents l = latents(*d, n, 1, dim, 16, DataType::f32, cache);
        const Tensor q = random_tensor(*d, {1, heads, 7, dim}, DataType::f32, 4);
        const auto by_token = [](const Tensor& y) { return to_host(ops::to_contiguous(y.swap_axes(1, 2))); };
        const auto prefill = [&](std::int64_t begin, std::int64_t end) {
          ops::AttentionOptions o;
          o.chunk_start = first + begin;
          return by_token(
              ops::chunked_flash_mla_prefill(q.narrow(2, begin, end), l.cache, l.page_table, v_dim, o));
        };
        const std::vector<float> whole = prefill(0, 7);
        if (reference.empty()) reference = whole;
        EXPECT_TRUE(same_bits(whole, reference)) << isa << " threads";
        std::vector<float> pieces, decoded;
        for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 2}, {2, 6}, {6, 7}}) {
          const std::vector<float> piece = prefill(begin, end);
          pieces.insert(pieces.end(), piece.begin(), piece.end());
        }
        EXPECT_TRUE(same_bits(pieces, reference)) << isa << " chunks";
        for (std::int64_t t = 0; t < 7; ++t) {
          const Tensor one = ops::to_contiguous(q.narrow(2, t, t + 1).swap_axes(1, 2));
          const Tensor two = ops::concat(std::vector<Tensor>{one, one}, 1);
          const Tensor positions =
              from_host(*d, std::vector<std::int32_t>{static_cast<std::int32_t>(first + t), 3}, {2});
          const std::vector<float> y = to_host(
              ops::paged_flash_multi_latent_attention_decode(two, l.cache, l.page_table, positions, v_dim));
          decoded.insert(decoded.end(), y.begin(), y.begin() + heads * v_dim);
        }
        EXPECT_TRUE(same_bits(decoded, reference)) << isa << " decode";
        std::vector<std::int32_t> every(static_cast<std::size_t>(7 * n)), at(7), rows(7, 0);
        for (std::size_t i = 0; i < every.size(); ++i)
          every[i] = static_cast<std::int32_t>((i * 7) % static_cast<std::size_t>(n));
        std::iota(at.begin(), at.end(), static_cast<std::int32_t>(first));
        EXPECT_TRUE(
            same_bits(by_token(ops::sparse_sdpa(q, l.cache, from_host(*d, every, {1, 1, 7, n}), l.page_table,
                                                from_host(*d, at, {7}), from_host(*d, rows, {7}), v_dim)),
                      reference))
            << isa << " every key chosen";
      }
    }
  }
}

// One packed matrix per batch of x.
TEST(CpuLinear, AMatrixForEachBatch) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const DataType weight : {DataType::f32, DataType::bf16, DataType::bfp8_b}) {
      for (const std::int64_t tokens : {1, 3, 40}) {
        const LazyWeight w =
            LazyWeight::from_values(random_values(6 * 50 * 33, 1), 6 * 50, 33, WeightRole::experts)
                .experts(6)
                .bind(*d, weight);
        const Tensor heads = random_tensor(*d, {1, 6, tokens, 40}, DataType::f32, 2);
        const Tensor x = heads.narrow(3, 0, 33);  // a view, as a split head is
        const Tensor y = ops::matmul(x, w.get());
        ASSERT_EQ(y.shape(), (Shape{1, 6, tokens, 50}));
        const Oracle oracle;
        expect_near(y, ops::matmul(ops::to_contiguous(x), ops::typecast(w.get(), DataType::f32)),
                    tolerance(DataType::f32, 1e-5), isa + " " + std::string(name(weight)));
      }
    }
  }
}

}  // namespace
}  // namespace ttt::cpu_tests

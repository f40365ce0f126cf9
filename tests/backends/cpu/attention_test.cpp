#include "backends/cpu/support.h"

namespace ttt::cpu_tests {
namespace {

struct Heads {
  std::int64_t heads, kv_heads, head_dim, v_head_dim, block;
};
constexpr Heads head_cases[] = {{1, 1, 16, 16, 16}, {3, 1, 33, 17, 5}, {4, 2, 64, 64, 32}, {6, 2, 24, 40, 7}};

struct Variant {
  const char* name;
  AttentionAttributes attributes;
  bool sink = false, slopes = false;
};
std::vector<Variant> variants() {
  return {{"plain", {}},
          {"scale", {.scale = 0.3f}},
          {"window", {.sliding_window_size = 9}},
          {"wide window", {.sliding_window_size = 70}},
          {"chunk", {.chunk_size = 16}},
          {"softcap", {.softcap = 2.5f}},
          {"sink", {}, true},
          {"sink and window", {.sliding_window_size = 3}, true},
          {"alibi", {}, false, true}};
}

ops::AttentionOptions options_of(const Variant& v, const Tensor& sink, const Tensor& slopes) {
  ops::AttentionOptions o;
  static_cast<AttentionAttributes&>(o) = v.attributes;
  if (v.sink) o.attention_sink = &sink;
  if (v.slopes) o.alibi_slopes = &slopes;
  return o;
}

TEST(CpuAttention, AgreesWithItsFormula) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const Heads& s : head_cases) {
      const Tensor sink = random_tensor(*d, {1, 1, 1, s.heads}, DataType::f32, 8),
                   slopes = random_tensor(*d, {1, 1, 1, s.heads}, DataType::f32, 9, 0.1f);
      for (const auto& [queries, keys] : {std::pair<int, int>{1, 1}, {5, 5}, {17, 31}, {65, 100}, {3, 129}}) {
        for (const DataType t : {DataType::f32, DataType::bf16}) {
          const Tensor q = random_tensor(*d, {1, s.heads, queries, s.head_dim}, t, 1);
          const Tensor k = random_tensor(*d, {1, s.kv_heads, keys, s.head_dim}, t, 2);
          const Tensor v = random_tensor(*d, {1, s.kv_heads, keys, s.v_head_dim}, t, 3);
          for (Variant variant : variants()) {
            for (const bool causal : {true, false}) {
              if (variant.attributes.chunk_size > 0 && !causal)
                continue;  // only defined for causal attention
              variant.attributes.is_causal = causal;
              const ops::AttentionOptions options = options_of(variant, sink, slopes);
              const Tensor actual = ops::scaled_dot_product_attention(q, k, v, options);
              const Oracle oracle;
              expect_near(actual, ops::scaled_dot_product_attention(q, k, v, options), tolerance(t, 5e-6),
                          isa + " " + variant.name + " queries " + std::to_string(queries) + " keys " +
                              std::to_string(keys) + (causal ? " causal" : ""));
            }
          }
          for (const std::int64_t mask_heads : {std::int64_t{1}, s.heads}) {
            std::vector<float> mask = random_values(mask_heads * queries * keys, 5);
            for (std::size_t i = 0; i < mask.size(); i += 3) mask[i] = -INFINITY;
            const Tensor attn_mask = from_host(*d, mask, {1, mask_heads, queries, keys}, DataType::f32);
            ops::AttentionOptions options;
            options.is_causal = false;
            options.attn_mask = &attn_mask;
            const Tensor actual = ops::scaled_dot_product_attention(q, k, v, options);
            const Oracle oracle;
            expect_near(actual, ops::scaled_dot_product_attention(q, k, v, options), tolerance(t, 5e-6),
                        isa + " mask");
          }
        }
      }
    }
  }
}

// Two sequences in pages that are not in order, filled in pieces.
struct Paged {
  Tensor k_cache, v_cache, page_table;
  std::vector<std::int64_t> lengths;
};

Paged fill(Backend& d, const Heads& s, DataType t, DataType cache_type,
           const std::vector<std::int64_t>& lengths) {
  Paged p;
  p.lengths = lengths;
  std::int64_t width = 0;
  for (const std::int64_t n : lengths) width = std::max(width, (n + s.block - 1) / s.block);
  const auto rows = static_cast<std::int64_t>(lengths.size());
  const std::int64_t blocks = width * rows + 1;
  p.k_cache = d.allocate({.shape = {blocks, s.kv_heads, s.block, s.head_dim}, .dtype = cache_type});
  p.v_cache = d.allocate({.shape = {blocks, s.kv_heads, s.block, s.v_head_dim}, .dtype = cache_type});
  // What was never written must not matter.
  d.write(p.k_cache, std::vector<float>(static_cast<std::size_t>(p.k_cache.shape().elements()),
                                        cache_type == DataType::f32 ? NAN : 1e4f));
  d.write(p.v_cache, std::vector<float>(static_cast<std::size_t>(p.v_cache.shape().elements()),
                                        cache_type == DataType::f32 ? NAN : 1e4f));
  std::vector<std::int32_t> table;
  for (std::int64_t i = 0; i < rows * width; ++i)
    table.push_back(static_cast<std::int32_t>((i * 7 + 3) % blocks));
  bool distinct = blocks % 7 != 0;
  if (!distinct) {
    for (std::size_t i = 0; i < table.size(); ++i)
      table[i] = static_cast<std::int32_t>(blocks - 1 - static_cast<std::int64_t>(i));
  }
  p.page_table = from_host(d, table, {rows, width});
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t n = lengths[static_cast<std::size_t>(row)];
    const auto seed = static_cast<unsigned>(20 + row);
    const Tensor k = random_tensor(d, {1, s.kv_heads, n, s.head_dim}, t, seed),
                 v = random_tensor(d, {1, s.kv_heads, n, s.v_head_dim}, t, seed + 10);
    for (std::int64_t at = 0; at < n;) {
      const std::int64_t end = std::min(n, at + 13);
      ops::paged_fill_cache(p.k_cache, k.narrow(2, at, end), p.page_table, row, at);
      ops::paged_fill_cache(p.v_cache, v.narrow(2, at, end), p.page_table, row, at);
      at = end;
    }
  }
  return p;
}

TEST(CpuPagedAttention, PrefillAndDecodeAgreeWithTheirFormulas) {
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const Heads& s : head_cases) {
      const Tensor sink = random_tensor(*d, {1, 1, 1, s.heads}, DataType::f32, 8),
                   slopes = random_tensor(*d, {1, 1, 1, s.heads}, DataType::f32, 9, 0.1f);
      for (const DataType t : {DataType::f32, DataType::bf16}) {
        for (const DataType cache : {t, DataType::bfp8_b}) {
          const Paged p = fill(*d, s, t, cache, {100, 37, 1});
          for (const Variant& variant : variants()) {
            ops::AttentionOptions options = options_of(variant, sink, slopes);
            const std::string what = isa + " " + variant.name + " " + std::string(name(cache));
            const Tensor q = random_tensor(*d, {1, 3, s.heads, s.head_dim}, t, 4);
            const Tensor positions = from_host(*d, std::vector<std::int32_t>{99, -1, 0}, {3});
            const Tensor decoded = ops::paged_scaled_dot_product_attention_decode(
                q, p.k_cache, p.v_cache, p.page_table, positions, options);
            options.chunk_start = 20;
            options.page_row = 1;
            const Tensor q2 = random_tensor(*d, {1, s.heads, 17, s.head_dim}, t, 5);
            const Tensor mask = random_tensor(*d, {1, s.heads, 17, 37}, DataType::f32, 6);
            ops::AttentionOptions masked = options;
            masked.attn_mask = &mask;
            const auto chunked = [&](const ops::AttentionOptions& o) {
              return ops::chunked_scaled_dot_product_attention(q2, p.k_cache, p.v_cache, p.page_table, o);
            };
            const Tensor prefilled = chunked(options), prefilled_masked = chunked(masked);
            const Oracle oracle;
            expect_near(prefilled, chunked(options), tolerance(t, 5e-6), what);
            expect_near(prefilled_masked, chunked(masked), tolerance(t, 5e-6), what + " mask");
            options.chunk_start = options.page_row = 0;
            expect_near(decoded,
                        ops::paged_scaled_dot_product_attention_decode(q, p.k_cache, p.v_cache, p.page_table,
                                                                       positions, options),
                        tolerance(t, 5e-6), what + " decode");
          }
        }
      }
    }
  }
}

TEST(CpuPagedAttention, UpdateWritesOneRowOfEachSequence) {
  for (const DataType t : {DataType::f32, DataType::bf16, DataType::bfp8_b}) {
    const auto d = device(isas().back());
    const Tensor cache = d->allocate({.shape = {4, 2, 3, 16}, .dtype = t});
    d->write(cache, std::vector<float>(4 * 2 * 3 * 16, 0.5f));
    const std::vector<float> values = random_values(3 * 2 * 16, 1);
    const Tensor x = from_host(*d, values, {1, 3, 2, 16}, DataType::f32);
    const Tensor table = from_host(*d, std::vector<std::int32_t>{3, 0, 1, 2, 0, 9}, {3, 2});
    const Tensor positions = from_host(*d, std::vector<std::int32_t>{4, -1, 5},
                                       {3});  // page 0 row 1; nothing; a page that is not there
    ops::paged_update_cache(cache, x, positions, table);
    std::vector<float> expected(4 * 2 * 3 * 16, 0.5f);
    const Tensor rounded = ops::typecast(ops::typecast(x, t), DataType::f32);
    const std::vector<float> stored = to_host(rounded);
    for (std::size_t head = 0; head < 2; ++head) {
      for (std::size_t i = 0; i < 16; ++i) expected[(head * 3 + 1) * 16 + i] = stored[head * 16 + i];
    }
    EXPECT_TRUE(same_bits(to_host(cache), expected)) << name(t);
  }
}

// A query's result does not depend on how its sequence was cut into chunks, on its batch, on threads, or on
// whether it came as a prefill or a decode step.
TEST(CpuPagedAttention, RowsAreIndependentOfChunkBatchAndThreads) {
  struct Case {
    Heads heads;
    DataType activations, cache;
  };
  constexpr Heads odd{6, 2, 40, 40, 16}, even{6, 2, 64, 64, 32};
  for (const std::string& isa : isas()) {
    for (const Case& c : {Case{odd, DataType::f32, DataType::f32},
                          {odd, DataType::f32, DataType::bf16},
                          {odd, DataType::f32, DataType::bfp8_b},
                          {even, DataType::bf16, DataType::bf16},
                          {even, DataType::bf16, DataType::bfp8_b}}) {
      const Heads& s = c.heads;
      const DataType cache = c.cache;
      const std::int64_t n = 1100;
      for (const std::int64_t window : {0, 600}) {
        ops::AttentionOptions options;
        options.sliding_window_size = window;
        std::vector<float> reference;
        const std::vector<float> values = random_values(s.heads * n * s.head_dim, 4);
        for (const int threads : {1, 2}) {
          const auto d = device(isa, threads, true);
          const Paged p = fill(*d, s, c.activations, cache, {n, 40});
          const Tensor q = from_host(*d, values, {1, s.heads, n, s.head_dim}, c.activations);
          const std::int64_t tail = n - 70;
          const auto chunked = [&](std::int64_t begin, std::int64_t end) {
            options.chunk_start = begin;
            return ops::to_contiguous(ops::chunked_scaled_dot_product_attention(q.narrow(2, begin, end),
                                                                                p.k_cache, p.v_cache,
                                                                                p.page_table, options)
                                          .swap_axes(1, 2));
          };
          const std::vector<float> whole = to_host(chunked(tail, n));
          if (reference.empty()) reference = whole;
          EXPECT_TRUE(same_bits(whole, reference)) << isa << " threads";
          const std::size_t token = static_cast<std::size_t>(s.heads * s.head_dim);
          for (const std::int64_t step : {5, 33}) {
            std::vector<float> pieces;
            for (std::int64_t at = tail; at < n; at += step) {
              const std::vector<float> piece = to_host(chunked(at, std::min(n, at + step)));
              pieces.insert(pieces.end(), piece.begin(), piece.end());
            }
            EXPECT_TRUE(same_bits(pieces, reference))
                << isa << " chunks of " << step << " " << name(cache) << " window " << window;
          }
          for (const std::int64_t position : {n - 1, n - 70}) {
            options.chunk_start = 0;
            const Tensor one = ops::to_contiguous(q.narrow(2, position, position + 1).swap_axes(1, 2));
            const Tensor two = ops::concat(std::vector<Tensor>{one, one}, 1);
            const Tensor positions =
                from_host(*d, std::vector<std::int32_t>{static_cast<std::int32_t>(position), 3}, {2});
            const std::vector<float> decoded = to_host(ops::paged_scaled_dot_product_attention_decode(
                two, p.k_cache, p.v_cache, p.page_table, positions, options));
            const std::size_t at = static_cast<std::size_t>(position - tail) * token;
            EXPECT_TRUE(same_bits({decoded.begin(), decoded.begin() + static_cast<std::ptrdiff_t>(token)},
                                  {reference.begin() + static_cast<std::ptrdiff_t>(at),
                                   reference.begin() + static_cast<std::ptrdiff_t>(at + token)}))
                << isa << " decode at " << position << " " << name(cache);
          }
        }
      }
    }
  }
}

// Infinities and NaNs of a block format are themselves again wherever it is read.
TEST(CpuPagedAttention, InfinitiesInBlocksAreKept) {
  constexpr Heads s{4, 2, 64, 64, 32};
  for (const std::string& isa : isas()) {
    const auto d = device(isa);
    for (const float special : {INFINITY, NAN}) {
      for (const bool in_keys : {true, false}) {
        const Paged p = fill(*d, s, DataType::bf16, DataType::bfp8_b, {70});
        std::vector<float> row = random_values(s.kv_heads * s.head_dim, 3);
        row[s.head_dim + 5] = special;
        ops::paged_update_cache(in_keys ? p.k_cache : p.v_cache,
                                from_host(*d, row, {1, 1, s.kv_heads, s.head_dim}, DataType::f32),
                                from_host(*d, std::vector<std::int32_t>{40}, {1}), p.page_table);
        const Tensor q = random_tensor(*d, {1, 1, s.heads, s.head_dim}, DataType::bf16, 4),
                     positions = from_host(*d, std::vector<std::int32_t>{69}, {1});
        const auto decode = [&] {
          return to_host(ops::paged_scaled_dot_product_attention_decode(q, p.k_cache, p.v_cache, p.page_table,
                                                                        positions));
        };
        const std::vector<float> actual = decode();
        const Oracle oracle;
        const std::vector<float> expected = decode();
        std::size_t specials = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
          if (std::isfinite(expected[i])) {
            EXPECT_NEAR(actual[i], expected[i], 0.01) << isa << " " << i;
            continue;
          }
          ++specials;
          EXPECT_TRUE(in_keys || std::isnan(actual[i]) == std::isnan(expected[i])) << isa << " " << i;
          EXPECT_FALSE(std::isfinite(actual[i])) << isa << " " << i;
        }
        EXPECT_GT(specials, 0u) << isa;
      }
    }
  }
}

// Prefill leaves heads beside each other within a token, so that they are joined without a copy.
TEST(CpuAttention, ConcatOfHeadsIsAView) {
  const auto d = device(isas().back());
  const Tensor q = random_tensor(*d, {1, 4, 9, 16}, DataType::bf16, 1),
               k = random_tensor(*d, {1, 2, 9, 16}, DataType::bf16, 2);
  const Tensor y = ops::scaled_dot_product_attention(q, k, k);
  const Tensor joined = ops::nlp_concat_heads(y);
  EXPECT_EQ(joined.buffer_ptr(), y.buffer_ptr());
  const Oracle oracle;
  EXPECT_TRUE(same_bits(to_host(joined), to_host(ops::nlp_concat_heads(y))));
}

}  // namespace
}  // namespace ttt::cpu_tests

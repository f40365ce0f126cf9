// Checks of attention over contiguous and paged keys, and of the caches.
#include <limits>

#include "ops/checks.h"

namespace ttt::inline v2::ops {

// Checks what all kinds share; `heads` of q.
static void check_queries_and_keys(const OpCall& call, std::int64_t heads, const AttentionAttributes& o) {
  const Tensor &q = call.in(0), &k = call.in(1);
  require_rank(call, q, "q", 4), require_rank(call, k, "k", 4);
  require_float(call, q, "q"), require_float(call, k, "k");
  if (q.dim(0) != 1) fail(call, "q has the shape " + to_string(q.shape()) + ", not [1, ...]");
  if (q.dim(3) != k.dim(3)) fail(call, "q has head_dim " + str(q.dim(3)) + ", k " + str(k.dim(3)));
  if (k.dim(1) == 0 || heads % k.dim(1) != 0)
    fail(call, str(heads) + " heads are no multiple of " + str(k.dim(1)) + " key/value heads");
  require_vector(call, 4, "attention_sink", heads);
  require_vector(call, 5, "alibi_slopes", heads);
  if (o.sliding_window_size < 0 || o.chunk_size < 0) fail(call, "negative window or chunk");
  if (o.chunk_size > 0 && !o.is_causal) fail(call, "chunk_size needs is_causal");
}

static void check_attention(const OpCall& call, std::int64_t heads, const AttentionOptions& o) {
  check_queries_and_keys(call, heads, o);
  const Tensor &k = call.in(1), &v = call.in(2);
  require_rank(call, v, "v", 4), require_float(call, v, "v");
  for (int axis = 0; axis < 3; ++axis) {
    if (k.dim(axis) != v.dim(axis))
      fail(call, "k has the shape " + to_string(k.shape()) + ", v " + to_string(v.shape()));
  }
}

// The values are the keys' first columns.
static void check_latent(const OpCall& call, std::int64_t heads, const AttentionOptions& o,
                         std::int64_t head_dim_v) {
  check_queries_and_keys(call, heads, o);
  if (head_dim_v < 1 || head_dim_v > call.in(1).dim(3))
    fail(call, "head_dim_v is " + str(head_dim_v) + ", keys have " + str(call.in(1).dim(3)) + " columns");
}

// The paged kinds.
static void check_paged(const OpCall& call, const AttentionOptions& o) {
  if (o.attn_mask != nullptr && !call.has(3)) fail(call, "takes no attn_mask");
  if (!o.is_causal) fail(call, "is causal");
  if (!call.has(6)) fail(call, "page_table is an undefined tensor");
  require_rank(call, call.in(0), "q", 4);
}

static void check_pages(const OpCall& call, const Tensor& page_table) {
  require_rank(call, page_table, "page_table", 2);
  if (page_table.dtype() != DataType::i32) fail(call, "page_table is " + str(page_table) + ", not i32");
}

// Row `page_row` of the table holds positions up to `end`.
static void check_page_row(const OpCall& call, const Tensor& page_table, std::int64_t block_size,
                           std::int64_t page_row, std::int64_t start, std::int64_t tokens) {
  if (page_row < 0 || page_row >= page_table.dim(0)) {
    fail(call, "row " + str(page_row) + " of a page table of shape " + to_string(page_table.shape()));
  }
  if (start < 0 || start > page_table.dim(1) * block_size - tokens) {
    const std::int64_t end =
        start > std::numeric_limits<std::int64_t>::max() - tokens ? start : start + tokens;
    fail(call, "positions " + str(start) + " to " + str(end) + ", a row of the page table holds " +
                   str(page_table.dim(1) * block_size));
  }
}

static void check_positions(const OpCall& call, const Tensor& positions, const Tensor& page_table,
                            std::int64_t batch) {
  if (positions.dtype() != DataType::i32) fail(call, "positions are " + str(positions) + ", not i32");
  if (positions.shape().elements() != batch || positions.shape().rank() < 1 || positions.dim(-1) != batch) {
    fail(call, "positions have the shape " + to_string(positions.shape()) + ", not [" + str(batch) + "]");
  }
  if (page_table.dim(0) < batch)
    fail(call, "the page table has " + str(page_table.dim(0)) + " rows for a batch of " + str(batch));
}

static void check_mask(const OpCall& call, const Tensor& q, std::int64_t keys) {
  if (!call.has(3)) return;
  require_float(call, call.in(3), "attn_mask");
  const Shape& m = call.in(3).shape();
  if (m != Shape{1, 1, q.dim(2), keys} && m != Shape{1, q.dim(1), q.dim(2), keys}) {
    fail(call, "attn_mask has the shape " + to_string(m) + ", not [1, 1 or " + str(q.dim(1)) + ", " +
                   str(q.dim(2)) + ", " + str(keys) + "]");
  }
}

Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& o) {
  OpCall call =
      make(OpKind::scaled_dot_product_attention, {&q, &k, &v, o.attn_mask, o.attention_sink, o.alibi_slopes},
           static_cast<const AttentionAttributes&>(o));
  require(call, {"q", "k", "v"});
  require_rank(call, q, "q", 4);
  check_attention(call, q.dim(1), o);
  if (k.dim(0) != 1)
    fail(call, "k has the shape " + to_string(k.shape()) + ", not [1, kv_heads, keys, head_dim]");
  if (o.is_causal && q.dim(2) > k.dim(2))
    fail(call, str(q.dim(2)) + " causal queries, only " + str(k.dim(2)) + " keys");
  check_mask(call, q, k.dim(2));
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), v.dim(3)}, q.dtype());
  return finish(call);
}

Tensor chunked_scaled_dot_product_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                                            const Tensor& page_table, const AttentionOptions& o) {
  OpCall call = make(OpKind::chunked_scaled_dot_product_attention,
                     {&q, &k_cache, &v_cache, o.attn_mask, o.attention_sink, o.alibi_slopes, &page_table},
                     static_cast<const AttentionAttributes&>(o));
  require(call, {"q", "k_cache", "v_cache"});
  check_paged(call, o);
  check_attention(call, q.dim(1), o);
  check_pages(call, page_table);
  check_page_row(call, page_table, k_cache.dim(2), o.page_row, o.chunk_start, q.dim(2));
  check_mask(call, q, o.chunk_start + q.dim(2));
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), v_cache.dim(3)}, q.dtype());
  return finish(call);
}

Tensor paged_scaled_dot_product_attention_decode(const Tensor& q, const Tensor& k_cache,
                                                 const Tensor& v_cache, const Tensor& page_table,
                                                 const Tensor& positions, const AttentionOptions& o) {
  OpCall call =
      make(OpKind::paged_scaled_dot_product_attention_decode,
           {&q, &k_cache, &v_cache, nullptr, o.attention_sink, o.alibi_slopes, &page_table, &positions},
           static_cast<const AttentionAttributes&>(o));
  require(call, {"q", "k_cache", "v_cache"});
  check_paged(call, o);
  if (!call.has(7)) fail(call, "positions is an undefined tensor");
  check_attention(call, q.dim(2), o);
  check_pages(call, page_table);
  check_positions(call, positions, page_table, q.dim(1));
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), v_cache.dim(3)}, q.dtype());
  return finish(call);
}

// The attributes of a call whose values are columns of its keys.
static AttentionAttributes latent(const AttentionOptions& o, std::int64_t head_dim_v) {
  AttentionAttributes a = o;
  a.head_dim_v = head_dim_v;
  return a;
}

Tensor chunked_flash_mla_prefill(const Tensor& q, const Tensor& kv_cache, const Tensor& page_table,
                                 std::int64_t head_dim_v, const AttentionOptions& o) {
  OpCall call = make(OpKind::chunked_flash_mla_prefill,
                     {&q, &kv_cache, nullptr, nullptr, o.attention_sink, o.alibi_slopes, &page_table},
                     latent(o, head_dim_v));
  require(call, {"q", "kv_cache"});
  check_paged(call, o);
  check_latent(call, q.dim(1), o, head_dim_v);
  check_pages(call, page_table);
  check_page_row(call, page_table, kv_cache.dim(2), o.page_row, o.chunk_start, q.dim(2));
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), head_dim_v}, q.dtype());
  return finish(call);
}

Tensor paged_flash_multi_latent_attention_decode(const Tensor& q, const Tensor& kv_cache,
                                                 const Tensor& page_table, const Tensor& positions,
                                                 std::int64_t head_dim_v, const AttentionOptions& o) {
  OpCall call =
      make(OpKind::paged_flash_multi_latent_attention_decode,
           {&q, &kv_cache, nullptr, nullptr, o.attention_sink, o.alibi_slopes, &page_table, &positions},
           latent(o, head_dim_v));
  require(call, {"q", "kv_cache"});
  check_paged(call, o);
  if (!call.has(7)) fail(call, "positions is an undefined tensor");
  check_latent(call, q.dim(2), o, head_dim_v);
  check_pages(call, page_table);
  check_positions(call, positions, page_table, q.dim(1));
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), head_dim_v}, q.dtype());
  return finish(call);
}

// Where the rows of x [1, heads, tokens, ..] stand: input 7 their positions, input 8 their rows of the page
// table.
static void check_rows(const OpCall& call, std::int64_t tokens) {
  check_pages(call, call.in(6));
  for (int i = 7; i < 9; ++i) {
    const char* operand = i == 7 ? "positions" : "page_rows";
    const Tensor& t = call.in(i);
    if (t.dtype() != DataType::i32) fail(call, std::string(operand) + " are " + str(t) + ", not i32");
    if (t.shape() != Shape{tokens})
      fail(call,
           std::string(operand) + " have the shape " + to_string(t.shape()) + ", not [" + str(tokens) + "]");
  }
  if (call.in(1).dim(1) != 1)
    fail(call, "the cache has " + str(call.in(1).dim(1)) + " heads of keys, not one that all heads share");
}

Tensor sparse_sdpa(const Tensor& q, const Tensor& kv_cache, const Tensor& indices, const Tensor& page_table,
                   const Tensor& positions, const Tensor& page_rows, std::int64_t v_dim,
                   const AttentionOptions& o) {
  OpCall call =
      make(OpKind::sparse_sdpa,
           {&q, &kv_cache, &indices, nullptr, o.attention_sink, nullptr, &page_table, &positions, &page_rows},
           latent(o, v_dim));
  require(call, {"q", "kv_cache", "indices"});
  for (int i = 6; i < 9; ++i)
    if (!call.has(i)) fail(call, "page_table, positions or page_rows is an undefined tensor");
  check_paged(call, o);
  if (o.alibi_slopes != nullptr || o.sliding_window_size != 0 || o.chunk_size != 0)
    fail(call, "takes neither slopes nor a window: the indices say which keys are seen");
  check_latent(call, q.dim(1), o, v_dim);
  check_rows(call, q.dim(2));
  require_int(call, indices, "indices");
  if (indices.shape().rank() != 4 || indices.dim(0) != 1 || indices.dim(1) != 1 || indices.dim(2) != q.dim(2))
    fail(call,
         "indices have the shape " + to_string(indices.shape()) + ", not [1, 1, " + str(q.dim(2)) + ", k]");
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), v_dim}, q.dtype());
  return finish(call);
}

Tensor indexer_score_dsa(const Tensor& q, const Tensor& k_cache, const Tensor& weights,
                         const Tensor& page_table, const Tensor& positions, const Tensor& page_rows,
                         std::int64_t keys) {
  OpCall call = make(OpKind::indexer_score_dsa, {&q, &k_cache, &weights, nullptr, nullptr, nullptr,
                                                 &page_table, &positions, &page_rows});
  require(call, {"q", "k_cache", "weights"});
  for (int i = 6; i < 9; ++i)
    if (!call.has(i)) fail(call, "page_table, positions or page_rows is an undefined tensor");
  require_rank(call, q, "q", 4), require_rank(call, k_cache, "k_cache", 4);
  require_float(call, q, "q"), require_float(call, k_cache, "k_cache"),
      require_float(call, weights, "weights");
  if (q.dim(0) != 1 || q.dim(3) != k_cache.dim(3))
    fail(call,
         "q has the shape " + to_string(q.shape()) + ", the keys have " + str(k_cache.dim(3)) + " columns");
  check_rows(call, q.dim(2));
  if (weights.shape() != Shape{1, 1, q.dim(2), q.dim(1)})
    fail(call, "weights have the shape " + to_string(weights.shape()) + ", not " +
                   to_string(Shape{1, 1, q.dim(2), q.dim(1)}));
  if (keys < 1 || keys > page_table.dim(1) * k_cache.dim(2))
    fail(call, str(keys) + " keys, a row of the page table holds " + str(page_table.dim(1) * k_cache.dim(2)));
  call.output_specs[0] = spec({1, 1, q.dim(2), keys}, DataType::f32);
  return finish(call);
}

// x holds [1, a, b, head_dim] for a cache [blocks, kv_heads, block_size, head_dim].
static void check_cache(const OpCall& call, int heads_axis) {
  const Tensor &cache = call.in(0), &x = call.in(1);
  require_rank(call, cache, "cache", 4), require_rank(call, x, "x", 4);
  require_float(call, cache, "cache"), require_float(call, x, "x");
  if (x.dim(0) != 1 || x.dim(heads_axis) != cache.dim(1) || x.dim(3) != cache.dim(3)) {
    fail(call, "x has the shape " + to_string(x.shape()) + ", the cache holds " + str(cache.dim(1)) +
                   " heads of " + str(cache.dim(3)));
  }
  check_pages(call, call.in(2));
}

void paged_update_cache(const Tensor& cache, const Tensor& x, const Tensor& positions,
                        const Tensor& page_table) {
  OpCall call = make(OpKind::paged_update_cache, {&cache, &x, &page_table, &positions}, CacheAttributes{});
  call.outputs_count = 0;
  require(call, {"cache", "x", "page_table", "positions"});
  check_cache(call, 2);
  check_positions(call, positions, page_table, x.dim(1));
  finish(call);
}

void paged_fill_cache(const Tensor& cache, const Tensor& x, const Tensor& page_table, std::int64_t page_row,
                      std::int64_t start) {
  OpCall call = make(OpKind::paged_fill_cache, {&cache, &x, &page_table}, CacheAttributes{start, page_row});
  call.outputs_count = 0;
  require(call, {"cache", "x", "page_table"});
  check_cache(call, 1);
  check_page_row(call, page_table, cache.dim(2), page_row, start, x.dim(2));
  finish(call);
}

QkvHeads nlp_create_qkv_heads(const Tensor& x, std::int64_t num_heads, std::int64_t num_kv_heads,
                              std::int64_t head_dim, std::int64_t v_head_dim) {
  if (v_head_dim == 0) v_head_dim = head_dim;
  OpCall call = make(OpKind::nlp_create_qkv_heads, {&x},
                     HeadsAttributes{num_heads, num_kv_heads, head_dim, v_head_dim});
  require(call, {"x"});
  require_rank(call, x, "x", 4);
  require_float(call, x, "x");
  if (num_heads < 1 || num_kv_heads < 0 || head_dim < 1 || v_head_dim < 1) {
    fail(call, str(num_heads) + " heads and " + str(num_kv_heads) + " key/value heads of " + str(head_dim) +
                   " and " + str(v_head_dim));
  }
  const std::int64_t width = (num_heads + num_kv_heads) * head_dim + num_kv_heads * v_head_dim;
  if (x.dim(0) != 1 || x.dim(1) != 1 || x.dim(3) != width) {
    fail(call, "x has the shape " + to_string(x.shape()) + ", not [1, 1, tokens, " + str(width) + "]");
  }
  const std::int64_t tokens = x.dim(2);
  call.outputs_count = num_kv_heads > 0 ? 3 : 1;
  call.output_specs[0] = spec({1, num_heads, tokens, head_dim}, x.dtype());
  if (num_kv_heads > 0) {
    call.output_specs[1] = spec({1, num_kv_heads, tokens, head_dim}, x.dtype());
    call.output_specs[2] = spec({1, num_kv_heads, tokens, v_head_dim}, x.dtype());
  }
  execute(call);
  return {std::move(call.outputs[0]), std::move(call.outputs[1]), std::move(call.outputs[2])};
}

Tensor nlp_concat_heads(const Tensor& x) {
  OpCall call = make(OpKind::nlp_concat_heads, {&x});
  require(call, {"x"});
  require_rank(call, x, "x", 4);
  require_float(call, x, "x");
  if (x.dim(0) != 1)
    fail(call, "x has the shape " + to_string(x.shape()) + ", not [1, heads, tokens, head_dim]");
  call.output_specs[0] = spec({1, 1, x.dim(2), x.dim(1) * x.dim(3)}, x.dtype());
  return finish(call);
}

}  // namespace ttt::inline v2::ops

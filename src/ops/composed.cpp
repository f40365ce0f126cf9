#include "ops/composed.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "ops/dispatch.h"
#include "ttt/ops/ops.h"

namespace ttt::inline v2::ops::composed {

namespace {

thread_local int scopes = 0;   // OracleScopes alive on this thread
thread_local int running = 0;  // fallbacks under way on this thread

struct Running {
  Running() { ++running; }
  ~Running() { --running; }
};

Tensor f32(const Tensor& x) { return typecast(x, DataType::f32); }
Tensor flat(const Tensor& x, const Shape& shape) { return to_contiguous(x).reshape(shape); }
Tensor apply(Tensor x, const Activation& a) { return a.op == UnaryOp::identity ? x : unary(std::move(x), a); }
Tensor join(std::initializer_list<Tensor> parts, int axis) {
  return concat(std::vector<Tensor>(parts), axis);
}

Tensor transposed(const Tensor& x, std::initializer_list<int> order) {
  return permute(x, std::span<const int>(order.begin(), order.size()));
}

Tensor zeros(Device& device, const Shape& shape) {
  return from_host(device, std::vector<float>(static_cast<std::size_t>(shape.elements())), shape,
                   DataType::f32);
}

void set(OpCall& call, int i, const Tensor& value) {
  const auto at = static_cast<std::size_t>(i);
  const TensorSpec& spec = call.output_specs[at];
  Tensor y = typecast(value, spec.dtype);
  call.outputs[at] = y.shape() == spec.shape ? y : flat(y, spec.shape);
}

// act(x w + bias)
void linear(OpCall& call) {
  Tensor y = matmul(f32(call.in(0)), f32(call.in(1)));
  if (call.has(2)) y = add(std::move(y), f32(call.in(2)));
  set(call, 0, apply(std::move(y), call.as<LinearAttributes>().activation));
}

// Tokens sorted by expert, one matrix product for each expert that somebody was routed to, and back into
// their order.
void sparse_matmul(OpCall& call) {
  const Tensor &x = call.in(0), &w = call.in(1), &indices = call.in(2);
  Device& device = x.device();
  const std::int64_t tokens = indices.dim(2), k = indices.dim(3), experts = w.dim(1), in = w.dim(2),
                     out = w.dim(3);
  const bool shared = x.dim(1) == 1 && x.dim(2) == tokens;
  const Tensor rows = flat(f32(x), {1, 1, shared ? tokens : tokens * k, in});
  const std::vector<std::int32_t> ids = to_host_int(indices);
  std::vector<std::vector<std::int32_t>> routed(static_cast<std::size_t>(experts));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < experts)
      routed[static_cast<std::size_t>(ids[i])].push_back(static_cast<std::int32_t>(i));
  }
  std::vector<std::int32_t> place(ids.size(), 0);  // row 0 of the products is zero: nobody's expert
  std::vector<Tensor> products = {zeros(device, {1, 1, 1, out})};
  std::int32_t next = 1;
  for (std::int64_t e = 0; e < experts; ++e) {
    const auto& slots = routed[static_cast<std::size_t>(e)];
    if (slots.empty()) continue;
    std::vector<std::int32_t> sources;
    for (std::int32_t slot : slots) {
      sources.push_back(shared ? slot / static_cast<std::int32_t>(k) : slot);
      place[static_cast<std::size_t>(slot)] = next++;
    }
    const Tensor chosen =
        embedding(from_host(device, sources, {1, 1, 1, static_cast<std::int64_t>(sources.size())}), rows);
    Tensor y = matmul(chosen, f32(w.narrow(1, e, e + 1)));
    if (call.has(3)) y = add(std::move(y), f32(call.in(3).narrow(2, e, e + 1)));
    products.push_back(std::move(y));
  }
  const Tensor order = from_host(device, place, {1, 1, 1, static_cast<std::int64_t>(place.size())});
  set(call, 0, flat(embedding(order, concat(products, 2)), {1, tokens, k, out}));
}

// x / sqrt(mean(x^2) + eps) * weight; for layer_norm of x - mean(x), and + bias
void norm(OpCall& call) {
  const auto& attributes = call.as<NormAttributes>();
  Tensor x = f32(call.in(0));
  if (call.has(3)) x = add(x, f32(call.in(3)));
  if (call.op == OpKind::layer_norm) x = subtract(x, mean(x));
  const Tensor variance = mean(mul(x, x));
  Tensor y = mul(x, unary(add(variance, attributes.epsilon), {UnaryOp::rsqrt}));
  if (call.has(1)) {
    const Tensor weight = f32(call.in(1));
    y = mul(y, attributes.weight_plus_one ? add(weight, 1.0f) : weight);
  }
  if (call.has(2)) y = add(std::move(y), f32(call.in(2)));
  set(call, 0, y);
}

Tensor softmax_of(const Tensor& x, int axis) {
  const Tensor e = unary(subtract(x, reduce(x, ReduceOp::max, axis)), {UnaryOp::exp});
  return div(e, sum(e, axis));
}

void softmax(OpCall& call) { set(call, 0, softmax_of(f32(call.in(0)), call.as<AxisAttributes>().axis)); }

// table[ids[i]][j] by gather; an id outside the table gives zeros, so a row of zeros stands behind it.
void embedding_fallback(OpCall& call) {
  const Tensor &ids = call.in(0), &table = call.in(1);
  const std::int64_t entries = table.dim(-2), dim = table.dim(-1), tokens = ids.dim(-1);
  std::vector<std::int32_t> rows = to_host_int(ids);
  for (std::int32_t& row : rows) {
    if (row < 0 || row >= entries) row = static_cast<std::int32_t>(entries);
  }
  const Tensor padded = pad(flat(f32(table), {1, 1, entries, dim}), 2, 0, 1);
  const Tensor index = repeat(from_host(ids.device(), rows, {1, 1, tokens, 1}), 3, dim);
  set(call, 0, gather(padded, 2, index));
}

// (x1 cos - x2 sin, x2 cos + x1 sin), the rest passes through
void rotary_embedding(OpCall& call) {
  const Tensor x = f32(call.in(0)), &cos = call.in(1), &sin = call.in(2);
  const std::int64_t heads = x.dim(1), tokens = x.dim(2), width = x.dim(3), half = cos.dim(3);
  const Tensor rotated = slice(x, 3, 0, 2 * half);
  const bool interleaved = call.as<RotaryAttributes>().interleaved;
  Tensor x1, x2;
  if (interleaved) {
    const Tensor pairs = flat(rotated, {1, heads, tokens, half, 2});
    x1 = flat(slice(pairs, 4, 0, 1), {1, heads, tokens, half});
    x2 = flat(slice(pairs, 4, 1, 2), {1, heads, tokens, half});
  } else {
    x1 = slice(rotated, 3, 0, half);
    x2 = slice(rotated, 3, half, 2 * half);
  }
  Tensor y1 = subtract(mul(x1, cos), mul(x2, sin)), y2 = add(mul(x2, cos), mul(x1, sin));
  Tensor y;
  if (interleaved) {
    const Shape column = {1, heads, tokens, half, 1};
    y = flat(join({flat(y1, column), flat(y2, column)}, 4), {1, heads, tokens, 2 * half});
  } else {
    y = join({y1, y2}, 3);
  }
  if (2 * half < width) y = join({y, slice(x, 3, 2 * half, width)}, 3);
  set(call, 0, y);
}

// 0 where the query at first + i may see key j, -infinity elsewhere; undefined when every query sees every
// key.
Tensor position_mask(Device& device, std::int64_t first, std::int64_t queries, std::int64_t keys,
                     const AttentionAttributes& a) {
  std::vector<float> mask(static_cast<std::size_t>(queries * keys));
  bool any = false;
  for (std::int64_t i = 0; i < queries; ++i) {
    const std::int64_t position = first + i;
    for (std::int64_t j = 0; j < keys; ++j) {
      bool seen = true;
      if (a.is_causal) {
        seen = j <= position && (a.sliding_window_size == 0 || position - j < a.sliding_window_size) &&
               (a.chunk_size == 0 || position / a.chunk_size == j / a.chunk_size);
      } else if (a.sliding_window_size > 0) {
        seen = std::abs(position - j) <= a.sliding_window_size / 2;
      }
      if (seen) continue;
      mask[static_cast<std::size_t>(i * keys + j)] = -std::numeric_limits<float>::infinity();
      any = true;
    }
  }
  return any ? from_host(device, mask, {1, 1, queries, keys}, DataType::f32) : Tensor();
}

struct Extras {
  Tensor mask, sink, slopes;  // see AttentionOptions
};

// softmax(cap(q k^T scale) + masks) v in float32. q [1, heads, queries, d], k and v [1, kv_heads, keys, ..],
// the first query at absolute position `first`, the first key at 0. Query heads are grouped by the key head
// that they share.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t first,
              const AttentionAttributes& a, const Extras& extras) {
  Device& device = q.device();
  const std::int64_t heads = q.dim(1), queries = q.dim(2), kv_heads = k.dim(1), keys = k.dim(2),
                     group = heads / kv_heads;
  const float scale = a.scale != 0 ? a.scale : 1.0f / std::sqrt(static_cast<float>(q.dim(3)));
  const Tensor q32 = flat(f32(q), {kv_heads, group, queries, q.dim(3)});
  const Tensor k32 = flat(f32(k), {kv_heads, 1, keys, k.dim(3)}),
               v32 = flat(f32(v), {kv_heads, 1, keys, v.dim(3)});
  Tensor s = mul(matmul(q32, k32, {.transpose_b = true}), scale);
  if (a.softcap != 0) s = mul(unary(mul(std::move(s), 1.0f / a.softcap), {UnaryOp::tanh}), a.softcap);
  const auto per_head = [&](const Tensor& t) { return flat(f32(t), {kv_heads, group, 1, 1}); };
  if (extras.slopes) {
    std::vector<float> ramp(static_cast<std::size_t>(keys));
    std::iota(ramp.begin(), ramp.end(), 0.0f);
    s = add(std::move(s),
            mul(per_head(extras.slopes), from_host(device, ramp, {1, 1, 1, keys}, DataType::f32)));
  }
  if (extras.mask) {
    const Shape grouped =
        extras.mask.dim(1) == 1 ? Shape{1, 1, queries, keys} : Shape{kv_heads, group, queries, keys};
    s = add(std::move(s), flat(f32(extras.mask), grouped));
  }
  if (const Tensor mask = position_mask(device, first, queries, keys, a)) s = add(std::move(s), mask);
  if (extras.sink) s = join({s, repeat(per_head(extras.sink), 2, queries)}, 3);
  // The limits keep a row of -infinity from becoming NaN: its weights are zero.
  constexpr float largest = std::numeric_limits<float>::max(), smallest = std::numeric_limits<float>::min();
  const Tensor top = clamp(reduce(s, ReduceOp::max), -largest, largest);
  const Tensor e = unary(subtract(s, top), {UnaryOp::exp});
  Tensor p = div(e, clamp(sum(e), smallest, largest));
  if (extras.sink) p = slice(p, 3, 0, keys);
  return flat(matmul(p, v32), {1, heads, queries, v.dim(3)});
}

Extras extras_of(const OpCall& call) {
  Extras extras;
  if (call.has(3)) extras.mask = call.in(3);
  if (call.has(4)) extras.sink = call.in(4);
  if (call.has(5)) extras.slopes = call.in(5);
  return extras;
}

void attention(OpCall& call) {
  const Tensor &q = call.in(0), &k = call.in(1);
  set(call, 0,
      attend(q, k, call.in(2), k.dim(2) - q.dim(2), call.as<AttentionAttributes>(), extras_of(call)));
}

// Keys or values [1, kv_heads, count, head_dim] at positions 0.. of one row of the page table.
Tensor gather_pages(const OpCall& call, const Tensor& cache, const std::vector<std::int32_t>& pages,
                    std::int64_t width, std::int64_t row, std::int64_t count) {
  const std::int64_t block = cache.dim(2);
  std::vector<Tensor> parts;
  for (std::int64_t i = 0; i * block < count; ++i) {
    const std::int64_t id = pages[static_cast<std::size_t>(row * width + i)];
    if (id < 0 || id >= cache.dim(0)) {
      fail(call, "the page table names block " + std::to_string(id) + ", the cache has " +
                     std::to_string(cache.dim(0)));
    }
    parts.push_back(f32(cache.narrow(0, id, id + 1)));
  }
  return slice(concat(parts, 2), 2, 0, count);
}

void check_position(const OpCall& call, std::int64_t position, std::int64_t capacity) {
  if (position < capacity) return;
  fail(call, "position " + std::to_string(position) + ", a row of the page table holds " +
                 std::to_string(capacity));
}

// The values of those keys: an operand's, or columns of the keys.
Tensor gather_values(const OpCall& call, const Tensor& k, const std::vector<std::int32_t>& pages,
                     std::int64_t width, std::int64_t row, std::int64_t count) {
  const std::int64_t head_dim_v = call.as<AttentionAttributes>().head_dim_v;
  return head_dim_v > 0 ? slice(k, 3, 0, head_dim_v)
                        : gather_pages(call, call.in(2), pages, width, row, count);
}

void chunked_attention(OpCall& call) {
  const auto& a = call.as<AttentionAttributes>();
  const Tensor &q = call.in(0), &page_table = call.in(6);
  const std::int64_t keys = a.chunk_start + q.dim(2), width = page_table.dim(1);
  const std::vector<std::int32_t> pages = to_host_int(page_table);
  const Tensor k = gather_pages(call, call.in(1), pages, width, a.page_row, keys);
  const Tensor v = gather_values(call, k, pages, width, a.page_row, keys);
  set(call, 0, attend(q, k, v, a.chunk_start, a, extras_of(call)));
}

void paged_decode(OpCall& call) {
  const auto& a = call.as<AttentionAttributes>();
  const Tensor &q = call.in(0), &k_cache = call.in(1), &page_table = call.in(6);
  const std::vector<std::int32_t> pages = to_host_int(page_table), positions = to_host_int(call.in(7));
  const std::int64_t heads = q.dim(2), width = page_table.dim(1), v_dim = call.output_specs[0].shape[3];
  std::vector<Tensor> rows;
  for (std::int64_t i = 0; i < q.dim(1); ++i) {
    const std::int64_t position = positions[static_cast<std::size_t>(i)];
    if (position < 0) {
      rows.push_back(zeros(q.device(), {1, 1, heads, v_dim}));
      continue;
    }
    check_position(call, position, width * k_cache.dim(2));
    const Tensor k = gather_pages(call, k_cache, pages, width, i, position + 1);
    const Tensor v = gather_values(call, k, pages, width, i, position + 1);
    const Tensor query = flat(f32(q.narrow(1, i, i + 1)), {1, heads, 1, q.dim(3)});
    rows.push_back(flat(attend(query, k, v, position, a, extras_of(call)), {1, 1, heads, v_dim}));
  }
  set(call, 0, concat(rows, 1));
}

// Calls f(row, its position, the keys [1, 1, position + 1, head_dim] up to there) for the rows of sparse_sdpa
// and indexer_score_dsa. A negative position, or a row that the page table lacks, sees no key: undefined.
template <class F>
void for_each_row(const OpCall& call, F&& f) {
  const Tensor &cache = call.in(1), &page_table = call.in(6);
  const std::vector<std::int32_t> pages = to_host_int(page_table), positions = to_host_int(call.in(7)),
                                  page_rows = to_host_int(call.in(8));
  const std::int64_t width = page_table.dim(1);
  for (std::size_t t = 0; t < positions.size(); ++t) {
    const std::int64_t position = positions[t], row = page_rows[t];
    Tensor keys;
    if (position >= 0 && row >= 0 && row < page_table.dim(0)) {
      check_position(call, position, width * cache.dim(2));
      keys = gather_pages(call, cache, pages, width, row, position + 1);
    }
    f(static_cast<std::int64_t>(t), position, keys);
  }
}

// A mask keeps the chosen keys; the rest is attention of one query.
void sparse_sdpa(OpCall& call) {
  AttentionAttributes a = call.as<AttentionAttributes>();
  a.is_causal = false;  // no key after the query is there
  const Tensor &q = call.in(0), &indices = call.in(2);
  const std::int64_t heads = q.dim(1), k = indices.dim(3);
  const std::vector<std::int32_t> chosen = to_host_int(indices);
  std::vector<Tensor> rows;
  for_each_row(call, [&](std::int64_t t, std::int64_t position, const Tensor& keys) {
    if (!keys) return rows.push_back(zeros(q.device(), {1, heads, 1, a.head_dim_v}));
    std::vector<float> mask(static_cast<std::size_t>(position + 1), -std::numeric_limits<float>::infinity());
    for (std::int64_t i = 0; i < k; ++i) {
      const std::int32_t index = chosen[static_cast<std::size_t>(t * k + i)];
      if (index >= 0 && index <= position) mask[static_cast<std::size_t>(index)] = 0;
    }
    Extras extras = extras_of(call);
    extras.mask = from_host(q.device(), mask, {1, 1, 1, position + 1}, DataType::f32);
    rows.push_back(attend(f32(q.narrow(2, t, t + 1)), keys, slice(keys, 3, 0, a.head_dim_v), 0, a, extras));
  });
  set(call, 0, concat(rows, 2));
}

// sum_h w_h relu(q_h . k_s) of one query after the other, -infinity behind its own position
void indexer_score_dsa(OpCall& call) {
  const Tensor &q = call.in(0), &weights = call.in(2);
  const std::int64_t keys_wanted = call.output_specs[0].shape[3];
  constexpr float nothing = -std::numeric_limits<float>::infinity();
  std::vector<Tensor> rows;
  for_each_row(call, [&](std::int64_t t, std::int64_t position, const Tensor& keys) {
    Tensor row;
    if (keys) {
      const Tensor query = flat(f32(q.narrow(2, t, t + 1)), {1, 1, q.dim(1), q.dim(3)});
      const Tensor scores = unary(matmul(query, keys, {.transpose_b = true}), {UnaryOp::relu});
      row = matmul(f32(weights.narrow(2, t, t + 1)), scores);
      if (position + 1 > keys_wanted) row = slice(row, 3, 0, keys_wanted);
    }
    const std::int64_t missing = keys_wanted - (keys ? row.dim(3) : 0);
    if (missing > 0) {
      const Tensor rest =
          from_host(q.device(), std::vector<float>(static_cast<std::size_t>(missing), nothing),
                    {1, 1, 1, missing}, DataType::f32);
      row = keys ? join({row, rest}, 3) : rest;
    }
    rows.push_back(row);
  });
  set(call, 0, concat(rows, 2));
}

void create_heads(OpCall& call) {
  const Tensor& x = call.in(0);
  const auto& a = call.as<HeadsAttributes>();
  std::int64_t begin = 0;
  for (int i = 0; i < call.outputs_count; ++i) {
    const std::int64_t heads = i == 0 ? a.num_heads : a.num_kv_heads,
                       dim = i == 2 ? a.v_head_dim : a.head_dim;
    const Tensor part = flat(slice(x, 3, begin, begin + heads * dim), {1, x.dim(2), heads, dim});
    set(call, i, transposed(part, {0, 2, 1, 3}));
    begin += heads * dim;
  }
}

void concat_heads(OpCall& call) {
  set(call, 0, flat(transposed(call.in(0), {0, 2, 1, 3}), call.output_specs[0].shape));
}

// A binary op is a primitive; its fused activations are not.
void binary(OpCall& call) {
  const auto& a = call.as<BinaryAttributes>();
  const Tensor x = apply(f32(call.in(0)), a.lhs_activation), y = apply(f32(call.in(1)), a.rhs_activation);
  Tensor z;
  switch (a.op) {
    case BinaryOp::add:
      z = add(x, y);
      break;
    case BinaryOp::subtract:
      z = subtract(x, y);
      break;
    case BinaryOp::multiply:
      z = mul(x, y);
      break;
    case BinaryOp::divide:
      z = div(x, y);
      break;
    case BinaryOp::maximum:
      z = maximum(x, y);
      break;
    case BinaryOp::minimum:
      z = minimum(x, y);
      break;
    default:
      z = compare(a.op, x, y);
      break;
  }
  set(call, 0, apply(std::move(z), a.activation));
}

void argmax(OpCall& call) { set(call, 0, topk(call.in(0), 1).indices); }

void slice_fallback(OpCall& call) {
  const auto& a = call.as<AxisAttributes>();
  set(call, 0, to_contiguous(call.in(0).narrow(a.axis, a.begin, a.end)));
}

void permute_fallback(OpCall& call) {
  // Each exchange of two axes puts one axis in its place.
  Tensor x = call.in(0);
  std::array<int, Shape::max_rank> at{};
  std::iota(at.begin(), at.end(), 0);
  const auto& order = call.as<AxisAttributes>().order;
  for (int i = 0; i < x.shape().rank(); ++i) {
    const auto wanted = std::find(at.begin() + i, at.end(), order[static_cast<std::size_t>(i)]);
    const int j = static_cast<int>(wanted - at.begin());
    if (j == i) continue;
    x = x.swap_axes(i, j);
    std::swap(at[static_cast<std::size_t>(i)], at[static_cast<std::size_t>(j)]);
  }
  set(call, 0, to_contiguous(x));
}

void repeat_fallback(OpCall& call) {
  const auto& a = call.as<AxisAttributes>();
  set(call, 0, concat(std::vector<Tensor>(static_cast<std::size_t>(a.count), call.in(0)), a.axis));
}

// Everybody's part side by side along a new axis, then summed in float32.
void all_reduce(OpCall& call) {
  const Tensor& x = call.in(0);
  const Tensor parts =
      all_gather(flat(f32(x), {1, x.shape().elements()}), 0, call.as<AxisAttributes>().mesh_axis);
  set(call, 0, flat(sum(parts, 0), x.shape()));
}

using Fallback = void (*)(OpCall&);

Fallback fallback(OpKind op) {
  switch (op) {
    case OpKind::linear:
      return linear;
    case OpKind::sparse_matmul:
      return sparse_matmul;
    case OpKind::rms_norm:
    case OpKind::layer_norm:
      return norm;
    case OpKind::softmax:
      return softmax;
    case OpKind::embedding:
      return embedding_fallback;
    case OpKind::rotary_embedding:
      return rotary_embedding;
    case OpKind::scaled_dot_product_attention:
      return attention;
    case OpKind::chunked_scaled_dot_product_attention:
    case OpKind::chunked_flash_mla_prefill:
      return chunked_attention;
    case OpKind::paged_scaled_dot_product_attention_decode:
    case OpKind::paged_flash_multi_latent_attention_decode:
      return paged_decode;
    case OpKind::sparse_sdpa:
      return sparse_sdpa;
    case OpKind::indexer_score_dsa:
      return indexer_score_dsa;
    case OpKind::nlp_create_qkv_heads:
      return create_heads;
    case OpKind::nlp_concat_heads:
      return concat_heads;
    case OpKind::argmax:
      return argmax;
    case OpKind::slice:
      return slice_fallback;
    case OpKind::permute:
      return permute_fallback;
    case OpKind::repeat:
      return repeat_fallback;
    case OpKind::all_reduce:
      return all_reduce;
    case OpKind::causal_conv1d:
    case OpKind::selective_scan:
    case OpKind::gated_delta_rule:
    case OpKind::linear_recurrence:
      return recurrent;
    default:
      return nullptr;
  }
}

bool has_activations(const OpCall& call) {
  const auto& a = call.as<BinaryAttributes>();
  return a.lhs_activation.op != UnaryOp::identity || a.rhs_activation.op != UnaryOp::identity ||
         a.activation.op != UnaryOp::identity;
}

}  // namespace

bool has(const OpCall& call) {
  return call.op == OpKind::binary ? has_activations(call) : fallback(call.op) != nullptr;
}

void run(OpCall& call) {
  const Running guard;
  if (call.op == OpKind::binary) return binary(call);
  fallback(call.op)(call);
}

OracleScope::OracleScope() { ++scopes; }
OracleScope::~OracleScope() { --scopes; }
bool forced() { return scopes > 0 && running == 0; }

}  // namespace ttt::inline v2::ops::composed

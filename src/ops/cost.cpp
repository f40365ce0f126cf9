#include <algorithm>
#include <set>

#include "ops/experts_used.h"
#include "ttt/ops/op_call.h"

namespace ttt::inline v2 {

namespace {

std::uint64_t size(const Tensor& t) { return bytes(t.spec()); }
std::uint64_t u64(std::int64_t n) { return n > 0 ? static_cast<std::uint64_t>(n) : 0; }

// Bytes of `n` of the `of` equal parts of a tensor.
std::uint64_t share(const Tensor& t, std::int64_t n, std::int64_t of) {
  return of <= 0 ? 0
                 : static_cast<std::uint64_t>(static_cast<double>(size(t)) * static_cast<double>(n) /
                                              static_cast<double>(of));
}

const std::int32_t* host_ints(const Tensor& t) {
  return element_size(t.dtype()) == 4 && t.contiguous() ? t.data<std::int32_t>() : nullptr;
}

// Keys that a query at absolute position `position` sees.
std::int64_t visible(std::int64_t position, const AttentionAttributes& a) {
  std::int64_t n = position + 1;
  if (a.sliding_window_size > 0) n = std::min(n, a.sliding_window_size);
  if (a.chunk_size > 0) n = std::min(n, position % a.chunk_size + 1);
  return std::max<std::int64_t>(n, 0);
}

// Queries at positions [first, first + queries) see `pairs` keys altogether.
std::int64_t visible_pairs(std::int64_t first, std::int64_t queries, const AttentionAttributes& a) {
  std::int64_t pairs = 0;
  for (std::int64_t i = 0; i < queries; ++i) pairs += visible(first + i, a);
  return pairs;
}

OpCost attention(const OpCall& call) {
  const auto& a = call.as<AttentionAttributes>();
  const Tensor &q = call.in(0), &k = call.in(1);
  const std::int64_t v_dim = call.output_specs[0].shape[3];
  std::int64_t heads = q.dim(1), pairs = 0, keys_read = 0, keys_held = 1;
  if (call.op == OpKind::scaled_dot_product_attention) {
    const std::int64_t queries = q.dim(2), keys = k.dim(2);
    pairs = a.is_causal ? visible_pairs(keys - queries, queries, a) : queries * keys;
    keys_read = keys_held = keys;
  } else if (call.op == OpKind::chunked_scaled_dot_product_attention ||
             call.op == OpKind::chunked_flash_mla_prefill) {
    pairs = visible_pairs(a.chunk_start, q.dim(2), a);
    keys_read = a.chunk_start + q.dim(2);
    keys_held = k.dim(0) * k.dim(2);
  } else {
    heads = q.dim(2);
    const std::int64_t batch = q.dim(1), longest = call.in(6).dim(1) * k.dim(2);
    const std::int32_t* positions = host_ints(call.in(7));
    for (std::int64_t i = 0; i < batch; ++i) pairs += visible(positions ? positions[i] : longest - 1, a);
    keys_read = pairs;
    keys_held = k.dim(0) * k.dim(2);
  }
  OpCost cost;
  cost.flops = 2 * u64(heads) * u64(pairs) * u64(k.dim(3) + v_dim);
  cost.bytes = size(q) + share(k, keys_read, keys_held);
  if (call.has(2)) cost.bytes += share(call.in(2), keys_read, keys_held);
  for (int i = 3; i < 8; ++i) cost.bytes += call.has(i) ? size(call.in(i)) : 0;
  return cost;
}

// Rows of any sequences: each reads the keys up to its position, of sparse_sdpa those that it has chosen.
OpCost rows_of_sequences(const OpCall& call) {
  const Tensor &q = call.in(0), &cache = call.in(1), &page_table = call.in(6);
  const std::int64_t longest = page_table.dim(1) * cache.dim(2), held = cache.dim(0) * cache.dim(2);
  const bool sparse = call.op == OpKind::sparse_sdpa;
  const std::int32_t* positions = host_ints(call.in(7));
  std::int64_t pairs = 0;
  for (std::int64_t t = 0; t < q.dim(2); ++t) {
    const std::int64_t seen = std::max<std::int64_t>(positions ? positions[t] + 1 : longest, 0);
    pairs += sparse ? std::min(seen, call.in(2).dim(3)) : seen;
  }
  const std::int64_t width = cache.dim(3) + (sparse ? call.output_specs[0].shape[3] : 1);
  OpCost cost;
  cost.flops = 2 * u64(q.dim(1)) * u64(pairs) * u64(width);
  cost.bytes = size(q) + share(cache, sparse ? pairs : std::min(pairs, held), held);
  for (int i = 2; i < 9; ++i) cost.bytes += call.has(i) ? size(call.in(i)) : 0;
  return cost;
}

}  // namespace

std::int64_t experts_used(const Tensor& indices, std::int64_t experts) {
  const std::int32_t* ids = host_ints(indices);
  if (ids == nullptr) return std::min(indices.shape().elements(), experts);
  std::set<std::int32_t> used;
  for (std::int64_t i = 0; i < indices.shape().elements(); ++i) {
    if (ids[i] >= 0 && ids[i] < experts) used.insert(ids[i]);
  }
  return static_cast<std::int64_t>(used.size());
}

OpCost cost(const OpCall& call) {
  OpCost total;
  std::uint64_t in = 0, out = 0, elements = 0;
  for (int i = 0; i < OpCall::max_inputs; ++i) in += call.has(i) ? size(call.in(i)) : 0;
  for (int i = 0; i < call.outputs_count; ++i) {
    out += bytes(call.output_specs[static_cast<std::size_t>(i)]);
    elements += u64(call.output_specs[static_cast<std::size_t>(i)].shape.elements());
  }
  total.bytes = in;
  switch (call.op) {
    case OpKind::linear:
      total.flops = 2 * elements * u64(call.in(0).dim(-1));
      break;
    case OpKind::matmul:
      total.flops = 2 * elements * u64(call.in(0).dim(call.as<LinearAttributes>().transpose_a ? -2 : -1));
      break;
    case OpKind::sparse_matmul:
      total.flops = 2 * elements * u64(call.in(0).dim(-1));
      total.bytes += share(call.in(1), experts_used(call.in(2), call.in(1).dim(1)), call.in(1).dim(1)) -
                     size(call.in(1));
      break;
    case OpKind::embedding:
      total.bytes = size(call.in(0)) + share(call.in(1), call.in(0).shape().elements(), call.in(1).dim(-2));
      break;
    case OpKind::scaled_dot_product_attention:
    case OpKind::chunked_scaled_dot_product_attention:
    case OpKind::paged_scaled_dot_product_attention_decode:
    case OpKind::chunked_flash_mla_prefill:
    case OpKind::paged_flash_multi_latent_attention_decode:
      total = attention(call);
      break;
    case OpKind::sparse_sdpa:
    case OpKind::indexer_score_dsa:
      total = rows_of_sequences(call);
      break;
    case OpKind::paged_update_cache:
    case OpKind::paged_fill_cache: {
      TensorSpec written = call.in(1).spec();
      written.dtype = call.in(0).dtype();
      total.bytes = size(call.in(1)) + bytes(written);
      break;
    }
    case OpKind::slice:
      total.bytes = out;
      break;
    case OpKind::rms_norm:
    case OpKind::layer_norm:
      total.flops = (call.op == OpKind::rms_norm ? 4 : 7) * elements;
      break;
    case OpKind::softmax:
      total.flops = 4 * elements;
      break;
    case OpKind::rotary_embedding:
      total.flops = 6 * u64(call.in(1).dim(-1)) * u64(call.in(0).dim(1) * call.in(0).dim(2));
      break;
    case OpKind::causal_conv1d:
      total.flops = 2 * elements * u64(call.in(1).dim(-1));
      break;
    case OpKind::selective_scan:
    case OpKind::gated_delta_rule:
    case OpKind::linear_recurrence: {
      // Every token passes over its sequence's state; of all slots only those of the sequences are touched.
      const Tensor &state = call.in(in_place_operand(call.op)),
                   &segments = call.in(in_place_operand(call.op) + 1);
      total.flops = 6 * u64(call.in(0).dim(2)) * u64(state.dim(1));
      total.bytes += 2 * share(state, segments.dim(0), state.dim(0)) - size(state);
      break;
    }
    case OpKind::reduce:
      total.flops = u64(call.in(0).shape().elements());
      break;
    case OpKind::binary:
    case OpKind::unary:
      total.flops = elements;
      break;
    default:
      break;
  }
  total.bytes += out;
  return total;
}

}  // namespace ttt::inline v2

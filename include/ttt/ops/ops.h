// Operations, with TTNN's names, arguments and semantics. Free functions: each checks its operands, builds an
// OpCall and hands it to the backend of its first operand's device.
//
// Conventions. Shapes are TTNN's: x [1, 1, tokens, dim], heads [1, heads, tokens, head_dim]. The result has
// the dtype of the first operand unless `dtype` says otherwise (embedding: the table's, bf16 for a block
// format); accumulation is float32 and a result is rounded once. Operands may be views. A tensor passed with
// std::move may lend its memory to the result and is undefined afterwards. Errors (shapes, dtypes, devices
// that do not fit) throw ttt::Error with the op's name first: "[softmax] axis 4 of a tensor of shape [1, 1,
// 2, 8]". A fused op is specified by its composed fallback in src/ops/composed.cpp, which also runs where the
// backend has no kernel; docs/ops.md has the table.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ttt/ops/op_call.h"

namespace ttt::inline v2::ops {

// An operand; binds to a tensor, and remembers when it was moved in.
class Operand {
 public:
  Operand(const Tensor& t) : tensor_(&t) {}
  Operand(Tensor&& t) : tensor_(&t), moved_(&t) {}
  const Tensor& tensor() const { return *tensor_; }
  bool reusable() const { return moved_ != nullptr; }
  // Drops the handle of a tensor that was moved in.
  void release() const {
    if (moved_ != nullptr) *moved_ = Tensor();
  }

 private:
  const Tensor* tensor_;
  Tensor* moved_ = nullptr;
};

struct LinearOptions {
  const Tensor* bias = nullptr;  // [1, 1, 1, out]
  Activation activation{};       // after the bias
  std::optional<DataType> dtype{};
  MemoryConfig memory_config{};
  MatmulProgramConfig program_config{};
  ComputeKernelConfig compute_kernel_config{};
};
// y = act(x w + bias).  x [.., tokens, in], w [1, 1, in, out] (a weight of role linear) -> [.., tokens, out].
Tensor linear(Operand x, const Tensor& w, const LinearOptions& = {});

// a [.., m, k] times b [.., k, n] -> [.., m, n]; leading axes are equal or 1 (repeated). transpose_x
// exchanges the last two axes first.
struct MatmulOptions {
  bool transpose_a = false, transpose_b = false;
  std::optional<DataType> dtype{};
};
Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& = {});

// Each token times the experts that it was routed to. x [1, 1, tokens, in] (the same input for all of a
// token's experts) or [1, tokens, k, in]; w [1, experts, in, out] (role experts); indices [1, 1, tokens, k]
// u32, an index >= experts gives zeros; bias [1, 1, experts, out] or null -> [1, tokens, k, out].
Tensor sparse_matmul(const Tensor& x, const Tensor& w, const Tensor& indices, const Tensor* bias = nullptr,
                     std::optional<DataType> dtype = {});

struct NormOptions {
  const Tensor* weight = nullptr;    // [1, 1, 1, n]; null: ones
  const Tensor* bias = nullptr;      // layer_norm: [1, 1, 1, n]
  const Tensor* residual = nullptr;  // added to x first, as ttnn's residual_input_tensor
  float epsilon = 1e-5f;
  bool weight_plus_one = false;  // multiply by (1 + weight)
  std::optional<DataType> dtype{};
};
// x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019).
Tensor rms_norm(Operand x, const NormOptions& = {});
// (x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al. 2016).
Tensor layer_norm(Operand x, const NormOptions& = {});
Tensor softmax(Operand x, int axis = -1);  // numerically stable; last axis only on devices

// Rows of `table` [1, 1, entries, dim] (role embedding or vector) for ids [1, 1, 1, tokens] u32/i32; an id
// outside of it gives zeros -> [1, 1,
// tokens, dim].
Tensor embedding(const Tensor& ids, const Tensor& table, std::optional<DataType> dtype = {});
// x [1, heads, tokens, head_dim]; cos, sin [1, 1, tokens, rotary_dim / 2] f32; the dimensions from rotary_dim
// on pass through. Half layout: (x1, x2) = (x[i], x[i + rotary_dim / 2]); interleaved: (x[2i], x[2i + 1]) ->
// (x1 cos - x2 sin, x2 cos + x1 sin).
Tensor rotary_embedding(Operand x, const Tensor& cos, const Tensor& sin, bool interleaved = false);

struct AttentionOptions : AttentionAttributes {
  const Tensor* attn_mask = nullptr;  // added to the scores: [1, 1 or heads, queries, keys]; not in decode
  const Tensor* attention_sink =
      nullptr;  // [1, 1, 1, heads] f32: a logit that takes part in the softmax and has no value
  const Tensor* alibi_slopes = nullptr;  // [1, 1, 1, heads] f32: adds slope * key_position
};
// q [1, heads, queries, head_dim], k and v [1, kv_heads, keys, head_dim] (v may have another head_dim); heads
// is a multiple of kv_heads
// -> [1, heads, queries, v_head_dim]. Causal: query i sees the keys up to i + keys - queries. Scores are
// scaled, soft-capped, then masks and slopes are added. A query that sees no key gives zeros.
Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& = {});
// The queries of one sequence at positions [chunk_start, chunk_start + queries), keys from the paged caches
// up to the last query. q [1, heads, queries, head_dim]; caches [blocks, kv_heads, block_size, head_dim];
// page_table [rows, width] i32.
Tensor chunked_scaled_dot_product_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                                            const Tensor& page_table, const AttentionOptions& = {});
// One query per sequence. q [1, batch, heads, head_dim]; positions [batch] i32 is the position of the query,
// keys 0..position of row i of page_table -> [1, batch, heads, v_head_dim]. A negative position gives zeros.
// The paged ones are causal.
Tensor paged_scaled_dot_product_attention_decode(const Tensor& q, const Tensor& k_cache,
                                                 const Tensor& v_cache, const Tensor& page_table,
                                                 const Tensor& positions, const AttentionOptions& = {});

// Multi-head latent attention after absorption: the keys' first head_dim_v columns are the values too, and
// are read once for both. kv_cache [blocks, kv_heads, block_size, head_dim], mostly of one head that all
// queries share; everything else as for the two above.
Tensor chunked_flash_mla_prefill(const Tensor& q, const Tensor& kv_cache, const Tensor& page_table,
                                 std::int64_t head_dim_v, const AttentionOptions& = {});
Tensor paged_flash_multi_latent_attention_decode(const Tensor& q, const Tensor& kv_cache,
                                                 const Tensor& page_table, const Tensor& positions,
                                                 std::int64_t head_dim_v, const AttentionOptions& = {});
// Latent attention of every query to keys of its own choice. q [1, heads, tokens, head_dim] are rows of any
// sequences: row t stands at positions[t] of the sequence whose pages are row page_rows[t] of the table (both
// [tokens] i32). indices [1, 1, tokens, k] u32 or i32: positions of its keys, in any order, none twice; those
// after its own position do not count. kv_cache has one head -> [1, heads, tokens, v_dim].
Tensor sparse_sdpa(const Tensor& q, const Tensor& kv_cache, const Tensor& indices, const Tensor& page_table,
                   const Tensor& positions, const Tensor& page_rows, std::int64_t v_dim,
                   const AttentionOptions& = {});
// What an indexer thinks of each key: score[t][s] = sum_h weights[t][h] relu(q[h][t] . k[s]), -infinity for
// keys after the query's position. Rows as for sparse_sdpa; q [1, heads, tokens, head_dim], k_cache [blocks,
// 1, block_size, head_dim], weights [1, 1, tokens, heads] -> [1, 1, tokens, keys] f32.
Tensor indexer_score_dsa(const Tensor& q, const Tensor& k_cache, const Tensor& weights,
                         const Tensor& page_table, const Tensor& positions, const Tensor& page_rows,
                         std::int64_t keys);

// cache [blocks, kv_heads, block_size, head_dim] in place: x [1, batch, kv_heads, head_dim] at positions
// [batch] i32 of rows 0..batch-1 of page_table. A negative position skips its row.
void paged_update_cache(const Tensor& cache, const Tensor& x, const Tensor& positions,
                        const Tensor& page_table);
// x [1, kv_heads, tokens, head_dim] at positions start.. of row page_row of page_table.
void paged_fill_cache(const Tensor& cache, const Tensor& x, const Tensor& page_table,
                      std::int64_t page_row = 0, std::int64_t start = 0);

struct QkvHeads {
  Tensor q, k, v;
};
// x [1, 1, tokens, (heads + kv_heads) * head_dim + kv_heads * v_head_dim] -> q [1, heads, tokens, head_dim],
// k, v [1, kv_heads, tokens, ..]. v_head_dim 0: head_dim. Also for one or two parts: kv_heads 0 gives q only.
QkvHeads nlp_create_qkv_heads(const Tensor& x, std::int64_t num_heads, std::int64_t num_kv_heads,
                              std::int64_t head_dim, std::int64_t v_head_dim = 0);
// x [1, heads, tokens, head_dim] -> [1, 1, tokens, heads * head_dim].
Tensor nlp_concat_heads(const Tensor& x);

struct BinaryOptions {
  Activation lhs_activation{}, rhs_activation{}, activation{};
  std::optional<DataType> dtype{};
};
// Elementwise; an axis of extent 1 is repeated.
Tensor add(Operand a, Operand b, const BinaryOptions& = {});
Tensor subtract(Operand a, Operand b, const BinaryOptions& = {});
Tensor mul(Operand a, Operand b, const BinaryOptions& = {});
Tensor div(Operand a, Operand b, const BinaryOptions& = {});
Tensor maximum(Operand a, Operand b);
Tensor minimum(Operand a, Operand b);
Tensor compare(BinaryOp, const Tensor& a, const Tensor& b);  // eq, lt, gt, le, ge: 1 or 0 in a's dtype
Tensor unary(Operand x, Activation, std::optional<DataType> dtype = {});
Tensor add(Operand x, float value);
Tensor mul(Operand x, float value);
Tensor clamp(Operand x, float low, float high);
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);  // condition != 0 ? a : b

Tensor reduce(const Tensor& x, ReduceOp, int axis = -1, bool keepdim = true);
Tensor sum(const Tensor& x, int axis = -1, bool keepdim = true);
Tensor mean(const Tensor& x, int axis = -1, bool keepdim = true);
// The k largest of the last axis, in descending order; equal values in ascending order of index.
struct TopK {
  Tensor values, indices;  // indices u32
};
TopK topk(const Tensor& x, std::int64_t k);
Tensor argmax(const Tensor& x);  // last axis, keepdim, u32; the lowest index of equal values
Tensor gather(const Tensor& x, int axis, const Tensor& index);                   // as torch.gather
Tensor scatter(Operand x, int axis, const Tensor& index, const Tensor& source);  // as torch.scatter
Tensor concat(std::span<const Tensor> parts, int axis);
Tensor slice(const Tensor& x, int axis, std::int64_t begin, std::int64_t end);
Tensor pad(const Tensor& x, int axis, std::int64_t before, std::int64_t after, float value = 0);
Tensor permute(const Tensor& x, std::span<const int> order);
Tensor repeat(const Tensor& x, int axis, std::int64_t count);  // whole copies one after the other
Tensor typecast(Operand x, DataType);
Tensor to_contiguous(Operand x);  // x itself where it already is
// x placed as `memory` says; x itself where it lies so already or where the backend knows no placement.
Tensor to_memory_config(Operand x, const MemoryConfig& memory);

// Recurrences: what sequences keep between steps is a row of `state` [slots, n] f32, read and written in
// place. segments [sequences, 4] i32 says whose the rows of x are: first row, rows, slot, 1 where the
// sequence begins (the state's row counts as zeros then). A token follows the other in float32, so a row's
// result does not depend on how its sequence was cut into steps. Every row belongs to one sequence, every
// slot to at most one.

// y[t][c] = act(bias[c] + sum_i weight[c][i] x[t - kernel + 1 + i][c]).  x [1, 1, tokens, channels], weight
// [1, 1, channels, kernel], bias [1, 1, 1, channels] or null; state: the last kernel - 1 inputs [kernel - 1,
// channels].
Tensor causal_conv1d(const Tensor& x, const Tensor& weight, const Tensor* bias, const Tensor& state,
                     const Tensor& segments, Activation activation = {});

struct SelectiveScanOptions {
  const Tensor* dt = nullptr;       // [1, 1, tokens, heads]; null: ones
  const Tensor* dt_bias = nullptr;  // [1, 1, 1, heads], added to dt
  const Tensor* a = nullptr;        // [1, 1, heads, n], or heads values that hold for all n; null: ones
  const Tensor* d = nullptr;        // [1, 1, 1, heads]; null: zeros
  bool softplus = false;            // dt = softplus(dt + dt_bias), then clamped
  std::optional<float> dt_min{}, dt_max{};
  bool scale_input = true;  // false: dt says the decay only
};
// Selective state space (Gu and Dao 2023; with one a per head, Dao and Gu 2024). For every head h of group g
// and each of its head_dim channels p:  s[p][n] = exp(dt[h] a[h][n]) s[p][n] + dt[h] b[g][n] x[h][p]; y[h][p]
// = sum_n c[g][n] s[p][n] + d[h] x[h][p].  x [1, 1, tokens, heads * head_dim]; b, c [1, 1, tokens, groups *
// n]; state [heads, head_dim, n].
Tensor selective_scan(const Tensor& x, const Tensor& b, const Tensor& c, const Tensor& state,
                      const Tensor& segments, std::int64_t heads, std::int64_t groups,
                      const SelectiveScanOptions& = {});

struct DeltaRuleOptions {
  float scale = 0;                    // of q; 0: key_dim^-1/2
  std::optional<float> l2norm_eps{};  // q / sqrt(sum(q^2) + eps), k likewise; unset: as they are
};
// Gated delta rule (Yang et al. 2024):  S = exp(g) S;  S = S + k (beta (v - S^T k))^T;  y = S^T (scale q). q,
// k [1, 1, tokens, key_heads * key_dim]; v [1, 1, tokens, heads * value_dim]; beta [1, 1, tokens, heads]; g
// the same, or one per row of S: [1, 1, tokens, heads * key_dim]. Each key head serves heads / key_heads
// neighbours. State [heads, key_dim, value_dim].
Tensor gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                        const Tensor& beta, const Tensor& state, const Tensor& segments, std::int64_t heads,
                        std::int64_t key_heads, const DeltaRuleOptions& = {});

struct RecurrenceOptions {
  bool max_plus = false;   // h = max(a + h, b)
  bool exclusive = false;  // y is h before the token
  float initial = 0;       // h where a sequence begins
};
// h[c] = a[t][c] h[c] + b[t][c];  y[t] = h.  a, b [1, 1, tokens, channels]; state [channels].
Tensor linear_recurrence(const Tensor& a, const Tensor& b, const Tensor& state, const Tensor& segments,
                         const RecurrenceOptions& = {});

// Collectives over a mesh axis (0: rows, 1: columns); the identity on one device.
Tensor all_gather(const Tensor& x, int axis, int mesh_axis = 1);
Tensor reduce_scatter(const Tensor& x, int axis, int mesh_axis = 1);
Tensor all_reduce(Operand x, int mesh_axis = 1);
// The opposite of all_gather: each device keeps its own of the equal parts of `axis`.
Tensor mesh_partition(const Tensor& x, int axis, int mesh_axis = 1);

}  // namespace ttt::inline v2::ops

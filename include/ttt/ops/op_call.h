// OpCall: one operation with its operands, attributes and results. Every op of ops.h becomes one, and goes
// through the single seam Backend::run(); capture, profiling and the hunt for NaNs sit there.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "ttt/hw/program_config.h"
#include "ttt/tensor/tensor.h"

namespace ttt::inline v2 {

// Inputs of each kind, by index; those in parentheses may be absent.
enum class OpKind : std::uint8_t {
  linear,                                     // x, w, (bias)
  matmul,                                     // a, b
  sparse_matmul,                              // x, w, indices, (bias)
  rms_norm,                                   // x, (weight), -, (residual)
  layer_norm,                                 // x, (weight), (bias), (residual)
  softmax,                                    // x
  embedding,                                  // ids, table
  rotary_embedding,                           // x, cos, sin
  scaled_dot_product_attention,               // q, k, v, (attn_mask), (attention_sink), (alibi_slopes)
  chunked_scaled_dot_product_attention,       // q, k_cache, v_cache, (attn_mask), (attention_sink),
                                              // (alibi_slopes), page_table
  paged_scaled_dot_product_attention_decode,  // q, k_cache, v_cache, -, (attention_sink), (alibi_slopes),
                                              // page_table, positions
  chunked_flash_mla_prefill,                  // q, kv_cache, -, -, (attention_sink), (alibi_slopes),
                                              // page_table
  paged_flash_multi_latent_attention_decode,  // q, kv_cache, -, -, (attention_sink), (alibi_slopes),
                                              // page_table, positions
  sparse_sdpa,                                // q, kv_cache, indices, -, (attention_sink), -, page_table,
                                              // positions, page_rows
  indexer_score_dsa,                          // q, k_cache, weights, -, -, -, page_table, positions,
                                              // page_rows
  paged_update_cache,                         // cache, x, page_table, positions; no output
  paged_fill_cache,                           // cache, x, page_table; no output
  nlp_create_qkv_heads,                       // x -> q, (k), (v)
  nlp_concat_heads,                           // x
  binary,                                     // a, b
  unary,                                      // x
  ternary,                                    // condition, a, b (where)
  reduce,                                     // x
  topk,                                       // x -> values, indices
  argmax,                                     // x
  gather,                                     // x, index
  scatter,                                    // x, index, source
  concat,                                     // parts, at most max_inputs
  slice,                                      // x
  pad,                                        // x
  permute,                                    // x
  repeat,                                     // x
  typecast,                                   // x
  to_contiguous,                              // x
  to_memory_config,                           // x
  all_gather,                                 // x
  reduce_scatter,                             // x
  all_reduce,                                 // x
  mesh_partition,                             // x
  causal_conv1d,                              // x, weight, (bias), state, segments
  selective_scan,                             // x, (dt), (a), b, c, (d), (dt_bias), state, segments
  gated_delta_rule,                           // q, k, v, g, beta, state, segments
  linear_recurrence,                          // a, b, state, segments
  count_
};
std::string_view name(OpKind);  // TTNN's name

enum class UnaryOp : std::uint8_t {
  identity,
  silu,
  gelu,
  gelu_tanh,
  relu,
  relu2,
  tanh,
  sigmoid,
  quick_gelu,
  softplus,
  exp,
  log,
  sqrt,
  rsqrt,
  neg,
  abs,
  square,
  reciprocal,
  sin,
  cos,
  elu,
  hardswish,
  xielu,
  clamp,
  add_scalar,
  mul_scalar,
  pow_scalar,
  floor,
  sign,
  log1p,
  expm1
};
std::string_view name(UnaryOp);
enum class BinaryOp : std::uint8_t { add, subtract, multiply, divide, maximum, minimum, eq, lt, gt, le, ge };
std::string_view name(BinaryOp);
enum class ReduceOp : std::uint8_t { sum, mean, max, min, prod };
std::string_view name(ReduceOp);

// A unary function with its parameters (clamp: a = low, b = high; add_scalar, mul_scalar, pow_scalar: a).
struct Activation {
  UnaryOp op = UnaryOp::identity;
  float a = 0, b = 0;
  bool operator==(const Activation&) const = default;
};

struct NoAttributes {
  bool operator==(const NoAttributes&) const = default;
};
struct LinearAttributes {
  Activation activation{};
  MatmulProgramConfig program_config{};
  ComputeKernelConfig compute_kernel_config{};
  bool transpose_a = false, transpose_b = false;  // matmul only
  bool operator==(const LinearAttributes&) const = default;
};
struct NormAttributes {
  float epsilon = 1e-5f;
  bool weight_plus_one = false;
  bool operator==(const NormAttributes&) const = default;
};
struct RotaryAttributes {
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + rotary_dim/2)
  bool operator==(const RotaryAttributes&) const = default;
};
struct AttentionAttributes {
  float scale = 0;  // multiplies q.k; 0: head_dim^-1/2
  bool is_causal = true;
  // Causal: a query sees this many latest keys, itself included; else those at most half of it away on either
  // side. 0: all.
  std::int64_t sliding_window_size = 0;
  std::int64_t chunk_size = 0;   // attention within chunks of absolute positions; 0: none
  float softcap = 0;             // s -> c tanh(s / c); 0: none
  std::int64_t chunk_start = 0;  // chunked: absolute position of the first query
  std::int64_t page_row = 0;     // chunked: row of the page table
  std::int64_t head_dim_v = 0;   // values are so many first columns of the keys; 0: they are an operand
  SDPAProgramConfig program_config{};
  ComputeKernelConfig compute_kernel_config{};
  bool operator==(const AttentionAttributes&) const = default;
};
struct CacheAttributes {
  std::int64_t start = 0;     // paged_fill_cache: absolute position of the first token
  std::int64_t page_row = 0;  // paged_fill_cache: row of the page table
  bool operator==(const CacheAttributes&) const = default;
};
struct HeadsAttributes {
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0, v_head_dim = 0;
  bool operator==(const HeadsAttributes&) const = default;
};
struct BinaryAttributes {
  BinaryOp op = BinaryOp::add;
  Activation lhs_activation{}, rhs_activation{}, activation{};  // of the operands, of the result
  bool operator==(const BinaryAttributes&) const = default;
};
struct UnaryAttributes {
  Activation activation{};
  bool operator==(const UnaryAttributes&) const = default;
};
struct AxisAttributes {  // softmax, reduce, topk, argmax, gather, scatter, concat, slice, pad, permute,
                         // repeat, collectives
  int axis = -1;
  ReduceOp reduce = ReduceOp::sum;
  bool keepdim = true;
  std::int64_t k = 1;                        // topk
  std::int64_t begin = 0, end = 0;           // slice: range of the axis; pad: elements before and after
  std::int64_t count = 1;                    // repeat
  int mesh_axis = 1;                         // collectives: 0 rows of the mesh, 1 columns
  float value = 0;                           // pad
  std::array<int, Shape::max_rank> order{};  // permute
  bool operator==(const AxisAttributes&) const = default;
};

struct RecurrentAttributes {  // causal_conv1d, selective_scan, gated_delta_rule, linear_recurrence
  Activation activation{};    // causal_conv1d: of the result
  std::int64_t heads = 0, groups = 1;
  bool softplus = false;  // selective_scan: dt = softplus(dt + dt_bias)
  std::optional<float> dt_min{}, dt_max{};
  bool scale_input = true;            // selective_scan: the input is multiplied by dt
  float scale = 1;                    // gated_delta_rule: of q
  std::optional<float> l2norm_eps{};  // gated_delta_rule: q and k are divided by their length; unset: not
  bool max_plus = false;              // linear_recurrence
  bool exclusive = false;             // linear_recurrence
  float initial = 0;                  // linear_recurrence: the state where a sequence begins
  bool operator==(const RecurrentAttributes&) const = default;
};

using OpAttributes = std::variant<NoAttributes, LinearAttributes, NormAttributes, RotaryAttributes,
                                  AttentionAttributes, CacheAttributes, HeadsAttributes, BinaryAttributes,
                                  UnaryAttributes, AxisAttributes, RecurrentAttributes>;

struct OpCall {
  static constexpr int max_inputs = 10, max_outputs = 3;

  OpKind op = OpKind::binary;
  std::array<const Tensor*, max_inputs> inputs{};  // valid during run(); null: absent
  std::uint32_t reusable = 0;  // bit i: the caller has moved input i in, its memory may become the output
  int outputs_count = 1;
  std::array<TensorSpec, max_outputs> output_specs{};  // decided by ops.h before run()
  std::array<Tensor, max_outputs> outputs{};           // run() fills them
  OpAttributes attributes{};

  // inputs[i], which must be there.
  const Tensor& in(int i) const { return *inputs[static_cast<std::size_t>(i)]; }
  bool has(int i) const {
    return inputs[static_cast<std::size_t>(i)] != nullptr && inputs[static_cast<std::size_t>(i)]->defined();
  }
  template <class T>
  const T& as() const {
    return std::get<T>(attributes);
  }
};

// What the call is in words: the kind's name, of the elementwise ones the function's ("mul", "silu", "sum").
std::string_view label(const OpCall&);
// Its operands, for messages: "[1, 1, 32, 64] bf16 ...; ...".
std::string operands(const OpCall&);

// The operand that a call writes in place, -1: none. It must stay the caller's.
int in_place_operand(OpKind);

// Work of a call as its operands' sizes say: bytes read and written, floating-point operations. Tables,
// caches and experts count as far as they are used; where positions or indices lie in device memory, as much
// as could be.
struct OpCost {
  std::uint64_t bytes = 0, flops = 0;
};
OpCost cost(const OpCall&);

}  // namespace ttt::inline v2

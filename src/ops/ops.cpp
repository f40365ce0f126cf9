#include "ttt/ops/ops.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "ops/dispatch.h"

namespace ttt::inline v2::ops {

namespace {

std::string str(std::int64_t n) { return std::to_string(n); }
std::string str(const Tensor& t) { return to_string(t.shape()) + " " + std::string(name(t.dtype())); }

// Layout and placement are ops' own: tiles for values, rows for integers.
TensorSpec spec(Shape shape, DataType dtype, MemoryConfig memory = {}) {
  return {std::move(shape), dtype, is_float(dtype) ? Layout::tile : Layout::row_major, std::move(memory)};
}

OpCall make(OpKind op, std::initializer_list<const Tensor*> inputs,
            OpAttributes attributes = NoAttributes{}) {
  OpCall call;
  call.op = op;
  call.attributes = std::move(attributes);
  std::size_t i = 0;
  for (const Tensor* input : inputs) {
    if (input != nullptr && input->defined()) call.inputs[i] = input;
    ++i;
  }
  return call;
}

void require(const OpCall& call, std::initializer_list<const char*> names) {
  int i = 0;
  for (const char* operand : names) {
    if (!call.has(i++)) fail(call, std::string(operand) + " is an undefined tensor");
  }
}

void require_rank(const OpCall& call, const Tensor& t, const char* operand, int rank) {
  if (t.shape().rank() != rank)
    fail(call, std::string(operand) + " has the shape " + to_string(t.shape()) + ", not rank " + str(rank));
}

void require_float(const OpCall& call, const Tensor& t, const char* operand) {
  if (!is_float(t.dtype())) fail(call, std::string(operand) + " is " + str(t) + ", not floating-point");
}

void require_int(const OpCall& call, const Tensor& t, const char* operand) {
  if (t.dtype() != DataType::i32 && t.dtype() != DataType::u32) {
    fail(call, std::string(operand) + " is " + str(t) + ", not i32 or u32");
  }
}

// An operand that holds exactly `n` values along its last axis, as biases and norm weights do.
void require_vector(const OpCall& call, int input, const char* operand, std::int64_t n) {
  if (!call.has(input)) return;
  const Tensor& t = call.in(input);
  if (t.shape().rank() < 1 || t.dim(-1) != n || t.shape().elements() != n) {
    fail(call,
         std::string(operand) + " has the shape " + to_string(t.shape()) + ", not [1, 1, 1, " + str(n) + "]");
  }
  require_float(call, t, operand);
}

int checked_axis(const OpCall& call, const Tensor& x, int axis) {
  const int i = axis < 0 ? axis + x.shape().rank() : axis;
  if (i < 0 || i >= x.shape().rank())
    fail(call, "axis " + str(axis) + " of a tensor of shape " + to_string(x.shape()));
  return i;
}

Tensor finish(OpCall& call, std::initializer_list<const Operand*> operands = {}) {
  for (std::uint32_t i = 0; const Operand* operand : operands) {
    if (operand->reusable()) call.reusable |= 1u << i;
    ++i;
  }
  execute(call);
  for (const Operand* operand : operands) operand->release();
  return std::move(call.outputs[0]);
}

// Axes are aligned at the last one; an extent of 1 is repeated.
Shape broadcast(const OpCall& call, const Shape& a, const Shape& b, int keep = 0) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out;
  for (int i = rank; i > keep; --i) {
    const std::int64_t x = i <= a.rank() ? a[-i] : 1, y = i <= b.rank() ? b[-i] : 1;
    if (x != y && x != 1 && y != 1)
      fail(call, "the shapes " + to_string(a) + " and " + to_string(b) + " do not fit together");
    out.push_back(x == 1 ? y : x);
  }
  return out;
}

}  // namespace

// --- matrices ---

Tensor linear(Operand x_, const Tensor& w, const LinearOptions& o) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::linear, {&x, &w, o.bias},
                     LinearAttributes{.activation = o.activation,
                                      .program_config = o.program_config,
                                      .compute_kernel_config = o.compute_kernel_config});
  require(call, {"x", "w"});
  require_float(call, x, "x"), require_float(call, w, "w");
  const Shape& s = w.shape();
  if (s.rank() < 2 || s.elements() != s[-1] * s[-2])
    fail(call, "w has the shape " + to_string(s) + ", not [1, 1, in, out]");
  if (x.shape().rank() < 1 || x.dim(-1) != s[-2]) {
    fail(call, "x has the shape " + to_string(x.shape()) + ", w takes " + str(s[-2]) + " columns");
  }
  require_vector(call, 2, "bias", s[-1]);
  Shape out = x.shape();
  out[-1] = s[-1];
  call.output_specs[0] = spec(out, o.dtype.value_or(x.dtype()), o.memory_config);
  return finish(call, {&x_});
}

Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& o) {
  OpCall call = make(OpKind::matmul, {&a, &b},
                     LinearAttributes{.transpose_a = o.transpose_a, .transpose_b = o.transpose_b});
  require(call, {"a", "b"});
  require_float(call, a, "a"), require_float(call, b, "b");
  if (a.shape().rank() < 2 || b.shape().rank() < 2)
    fail(call, "a is " + str(a) + " and b " + str(b) + ", not matrices");
  const std::int64_t k = a.dim(o.transpose_a ? -2 : -1), inner = b.dim(o.transpose_b ? -1 : -2);
  if (k != inner) {
    fail(call, "a " + to_string(a.shape()) + (o.transpose_a ? " transposed" : "") + " has " + str(k) +
                   " columns, b " + to_string(b.shape()) + (o.transpose_b ? " transposed" : "") + " has " +
                   str(inner) + " rows");
  }
  Shape out = broadcast(call, a.shape(), b.shape(), 2);
  out.push_back(a.dim(o.transpose_a ? -1 : -2));
  out.push_back(b.dim(o.transpose_b ? -2 : -1));
  call.output_specs[0] = spec(out, o.dtype.value_or(a.dtype()));
  return finish(call);
}

Tensor sparse_matmul(const Tensor& x, const Tensor& w, const Tensor& indices, const Tensor* bias,
                     std::optional<DataType> dtype) {
  OpCall call = make(OpKind::sparse_matmul, {&x, &w, &indices, bias}, LinearAttributes{});
  require(call, {"x", "w", "indices"});
  require_float(call, x, "x"), require_float(call, w, "w"), require_int(call, indices, "indices");
  require_rank(call, x, "x", 4), require_rank(call, w, "w", 4), require_rank(call, indices, "indices", 4);
  const std::int64_t tokens = indices.dim(2), k = indices.dim(3), experts = w.dim(1), in = w.dim(2),
                     out = w.dim(3);
  const bool shared = x.dim(1) == 1 && x.dim(2) == tokens, routed = x.dim(1) == tokens && x.dim(2) == k;
  if (indices.dim(0) != 1 || indices.dim(1) != 1)
    fail(call, "indices have the shape " + to_string(indices.shape()) + ", not [1, 1, tokens, k]");
  if (w.dim(0) != 1) fail(call, "w has the shape " + to_string(w.shape()) + ", not [1, experts, in, out]");
  if (x.dim(0) != 1 || x.dim(3) != in || !(shared || routed)) {
    fail(call, "x has the shape " + to_string(x.shape()) + ", not [1, 1, " + str(tokens) + ", " + str(in) +
                   "] or [1, " + str(tokens) + ", " + str(k) + ", " + str(in) + "]");
  }
  if (call.has(3)) {
    require_float(call, *bias, "bias");
    if (bias->shape() != Shape{1, 1, experts, out}) {
      fail(call, "bias has the shape " + to_string(bias->shape()) + ", not " +
                     to_string(Shape{1, 1, experts, out}));
    }
  }
  call.output_specs[0] = spec({1, tokens, k, out}, dtype.value_or(x.dtype()));
  return finish(call);
}

// --- norms and softmax ---

static Tensor norm(OpKind op, const Operand& x_, const NormOptions& o) {
  const Tensor& x = x_.tensor();
  OpCall call = make(op, {&x, o.weight, o.bias, o.residual}, NormAttributes{o.epsilon, o.weight_plus_one});
  require(call, {"x"});
  require_float(call, x, "x");
  if (x.shape().rank() < 1) fail(call, "x has rank 0");
  if (op == OpKind::rms_norm && call.has(2)) fail(call, "takes no bias");
  require_vector(call, 1, "weight", x.dim(-1));
  require_vector(call, 2, "bias", x.dim(-1));
  if (call.has(3) && o.residual->shape() != x.shape()) {
    fail(call, "residual has the shape " + to_string(o.residual->shape()) + ", x " + to_string(x.shape()));
  }
  call.output_specs[0] = spec(x.shape(), o.dtype.value_or(x.dtype()));
  return finish(call, {&x_});
}

Tensor rms_norm(Operand x, const NormOptions& o) { return norm(OpKind::rms_norm, x, o); }
Tensor layer_norm(Operand x, const NormOptions& o) { return norm(OpKind::layer_norm, x, o); }

Tensor softmax(Operand x_, int axis) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::softmax, {&x});
  require(call, {"x"});
  require_float(call, x, "x");
  call.attributes = AxisAttributes{.axis = checked_axis(call, x, axis)};
  call.output_specs[0] = spec(x.shape(), x.dtype());
  return finish(call, {&x_});
}

// --- tokens and positions ---

Tensor embedding(const Tensor& ids, const Tensor& table, std::optional<DataType> dtype) {
  OpCall call = make(OpKind::embedding, {&ids, &table});
  require(call, {"ids", "table"});
  require_int(call, ids, "ids"), require_float(call, table, "table");
  const Shape& s = table.shape();
  if (s.rank() < 2 || s.elements() != s[-1] * s[-2])
    fail(call, "table has the shape " + to_string(s) + ", not [1, 1, entries, dim]");
  if (ids.shape().rank() < 1 || ids.dim(-1) != ids.shape().elements()) {
    fail(call, "ids have the shape " + to_string(ids.shape()) + ", not [1, 1, 1, tokens]");
  }
  call.output_specs[0] = spec({1, 1, ids.dim(-1), s[-1]},
                              dtype.value_or(is_block_float(table.dtype()) ? DataType::bf16 : table.dtype()));
  return finish(call);
}

Tensor rotary_embedding(Operand x_, const Tensor& cos, const Tensor& sin, bool interleaved) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::rotary_embedding, {&x, &cos, &sin}, RotaryAttributes{interleaved});
  require(call, {"x", "cos", "sin"});
  require_float(call, x, "x");
  require_rank(call, x, "x", 4), require_rank(call, cos, "cos", 4);
  if (cos.shape() != sin.shape())
    fail(call, "cos has the shape " + to_string(cos.shape()) + ", sin " + to_string(sin.shape()));
  if (cos.dtype() != DataType::f32 || sin.dtype() != DataType::f32)
    fail(call, "cos is " + str(cos) + " and sin " + str(sin) + ", not f32");
  if (x.dim(0) != 1)
    fail(call, "x has the shape " + to_string(x.shape()) + ", not [1, heads, tokens, head_dim]");
  if (cos.dim(0) != 1 || cos.dim(1) != 1 || cos.dim(2) != x.dim(2)) {
    fail(call, "cos has the shape " + to_string(cos.shape()) + ", not [1, 1, " + str(x.dim(2)) +
                   ", rotary_dim / 2]");
  }
  if (2 * cos.dim(3) > x.dim(3))
    fail(call, str(2 * cos.dim(3)) + " rotary dimensions, heads have " + str(x.dim(3)));
  call.output_specs[0] = spec(x.shape(), x.dtype());
  return finish(call, {&x_});
}

// --- attention ---

// Checks what the three kinds share; `heads` of q, `queries` of each head.
static void check_attention(const OpCall& call, std::int64_t heads, const AttentionOptions& o) {
  const Tensor &q = call.in(0), &k = call.in(1), &v = call.in(2);
  for (int i = 0; i < 3; ++i) {
    require_rank(call, call.in(i), i == 0 ? "q" : i == 1 ? "k" : "v", 4);
    require_float(call, call.in(i), i == 0 ? "q" : i == 1 ? "k" : "v");
  }
  if (q.dim(0) != 1) fail(call, "q has the shape " + to_string(q.shape()) + ", not [1, ...]");
  if (q.dim(3) != k.dim(3)) fail(call, "q has head_dim " + str(q.dim(3)) + ", k " + str(k.dim(3)));
  for (int axis = 0; axis < 3; ++axis) {
    if (k.dim(axis) != v.dim(axis))
      fail(call, "k has the shape " + to_string(k.shape()) + ", v " + to_string(v.shape()));
  }
  if (k.dim(1) == 0 || heads % k.dim(1) != 0)
    fail(call, str(heads) + " heads are no multiple of " + str(k.dim(1)) + " key/value heads");
  require_vector(call, 4, "attention_sink", heads);
  require_vector(call, 5, "alibi_slopes", heads);
  if (o.sliding_window_size < 0 || o.chunk_size < 0) fail(call, "negative window or chunk");
  if (o.chunk_size > 0 && !o.is_causal) fail(call, "chunk_size needs is_causal");
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
  if (call.has(3)) {
    require_float(call, *o.attn_mask, "attn_mask");
    const Shape& m = o.attn_mask->shape();
    if (m != Shape{1, 1, q.dim(2), k.dim(2)} && m != Shape{1, q.dim(1), q.dim(2), k.dim(2)}) {
      fail(call, "attn_mask has the shape " + to_string(m) + ", not [1, 1 or " + str(q.dim(1)) + ", " +
                     str(q.dim(2)) + ", " + str(k.dim(2)) + "]");
    }
  }
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), v.dim(3)}, q.dtype());
  return finish(call);
}

Tensor chunked_scaled_dot_product_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                                            const Tensor& page_table, const AttentionOptions& o) {
  OpCall call = make(OpKind::chunked_scaled_dot_product_attention,
                     {&q, &k_cache, &v_cache, nullptr, o.attention_sink, o.alibi_slopes, &page_table},
                     static_cast<const AttentionAttributes&>(o));
  require(call, {"q", "k_cache", "v_cache"});
  if (o.attn_mask != nullptr) fail(call, "takes no attn_mask");
  if (!o.is_causal) fail(call, "is causal");
  if (!call.has(6)) fail(call, "page_table is an undefined tensor");
  require_rank(call, q, "q", 4);
  check_attention(call, q.dim(1), o);
  check_pages(call, page_table);
  check_page_row(call, page_table, k_cache.dim(2), o.page_row, o.chunk_start, q.dim(2));
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
  if (o.attn_mask != nullptr) fail(call, "takes no attn_mask");
  if (!o.is_causal) fail(call, "is causal");
  if (!call.has(6)) fail(call, "page_table is an undefined tensor");
  if (!call.has(7)) fail(call, "positions is an undefined tensor");
  require_rank(call, q, "q", 4);
  check_attention(call, q.dim(2), o);
  check_pages(call, page_table);
  check_positions(call, positions, page_table, q.dim(1));
  call.output_specs[0] = spec({1, q.dim(1), q.dim(2), v_cache.dim(3)}, q.dtype());
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

// --- elementwise ---

static Tensor binary(BinaryOp op, const Operand& a, const Operand& b, const BinaryOptions& o = {}) {
  OpCall call = make(OpKind::binary, {&a.tensor(), &b.tensor()},
                     BinaryAttributes{op, o.lhs_activation, o.rhs_activation, o.activation});
  require(call, {"a", "b"});
  call.output_specs[0] =
      spec(broadcast(call, a.tensor().shape(), b.tensor().shape()), o.dtype.value_or(a.tensor().dtype()));
  return finish(call, {&a, &b});
}

Tensor add(Operand a, Operand b, const BinaryOptions& o) { return binary(BinaryOp::add, a, b, o); }
Tensor subtract(Operand a, Operand b, const BinaryOptions& o) { return binary(BinaryOp::subtract, a, b, o); }
Tensor mul(Operand a, Operand b, const BinaryOptions& o) { return binary(BinaryOp::multiply, a, b, o); }
Tensor div(Operand a, Operand b, const BinaryOptions& o) { return binary(BinaryOp::divide, a, b, o); }
Tensor maximum(Operand a, Operand b) { return binary(BinaryOp::maximum, a, b); }
Tensor minimum(Operand a, Operand b) { return binary(BinaryOp::minimum, a, b); }

Tensor compare(BinaryOp op, const Tensor& a, const Tensor& b) {
  if (op < BinaryOp::eq)
    throw Error("[compare] " + std::string(name(op)) + " is no comparison", {}, "use eq, lt, gt, le or ge");
  return binary(op, a, b);
}

Tensor unary(Operand x, Activation activation, std::optional<DataType> dtype) {
  OpCall call = make(OpKind::unary, {&x.tensor()}, UnaryAttributes{activation});
  require(call, {"x"});
  call.output_specs[0] = spec(x.tensor().shape(), dtype.value_or(x.tensor().dtype()));
  return finish(call, {&x});
}

Tensor add(Operand x, float value) { return unary(x, {UnaryOp::add_scalar, value}); }
Tensor mul(Operand x, float value) { return unary(x, {UnaryOp::mul_scalar, value}); }

Tensor clamp(Operand x, float low, float high) {
  if (!(low <= high)) throw Error("[clamp] from " + std::to_string(low) + " to " + std::to_string(high));
  return unary(x, {UnaryOp::clamp, low, high});
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  OpCall call = make(OpKind::ternary, {&condition, &a, &b});
  require(call, {"condition", "a", "b"});
  call.output_specs[0] =
      spec(broadcast(call, broadcast(call, condition.shape(), a.shape()), b.shape()), a.dtype());
  return finish(call);
}

// --- along one axis ---

Tensor reduce(const Tensor& x, ReduceOp op, int axis, bool keepdim) {
  OpCall call = make(OpKind::reduce, {&x}, AxisAttributes{.reduce = op, .keepdim = keepdim});
  require(call, {"x"});
  const int at = checked_axis(call, x, axis);
  if (x.dim(at) == 0 && op != ReduceOp::sum && op != ReduceOp::prod)
    fail(call, "an axis without elements", to_string(x.shape()));
  std::get<AxisAttributes>(call.attributes).axis = at;
  Shape out;
  for (int i = 0; i < x.shape().rank(); ++i) {
    if (i != at) out.push_back(x.dim(i));
    if (i == at && keepdim) out.push_back(1);
  }
  call.output_specs[0] = spec(out, x.dtype());
  return finish(call);
}

Tensor sum(const Tensor& x, int axis, bool keepdim) { return reduce(x, ReduceOp::sum, axis, keepdim); }
Tensor mean(const Tensor& x, int axis, bool keepdim) { return reduce(x, ReduceOp::mean, axis, keepdim); }

TopK topk(const Tensor& x, std::int64_t k) {
  OpCall call = make(OpKind::topk, {&x});
  require(call, {"x"});
  const int axis = checked_axis(call, x, -1);
  if (k < 1 || k > x.dim(axis)) fail(call, "the " + str(k) + " largest of " + str(x.dim(axis)));
  call.attributes = AxisAttributes{.axis = axis, .k = k};
  Shape out = x.shape();
  out[axis] = k;
  call.outputs_count = 2;
  call.output_specs[0] = spec(out, x.dtype());
  call.output_specs[1] = spec(out, DataType::u32);
  execute(call);
  return {std::move(call.outputs[0]), std::move(call.outputs[1])};
}

Tensor argmax(const Tensor& x) {
  OpCall call = make(OpKind::argmax, {&x});
  require(call, {"x"});
  const int axis = checked_axis(call, x, -1);
  if (x.dim(axis) == 0) fail(call, "an axis without elements", to_string(x.shape()));
  call.attributes = AxisAttributes{.axis = axis};
  Shape out = x.shape();
  out[axis] = 1;
  call.output_specs[0] = spec(out, DataType::u32);
  return finish(call);
}

Tensor gather(const Tensor& x, int axis, const Tensor& index) {
  OpCall call = make(OpKind::gather, {&x, &index});
  require(call, {"x", "index"});
  require_int(call, index, "index");
  const int at = checked_axis(call, x, axis);
  require_rank(call, index, "index", x.shape().rank());
  for (int i = 0; i < x.shape().rank(); ++i) {
    if (i != at && index.dim(i) > x.dim(i)) {
      fail(call, "index has the shape " + to_string(index.shape()) + ", x " + to_string(x.shape()));
    }
  }
  call.attributes = AxisAttributes{.axis = at};
  call.output_specs[0] = spec(index.shape(), x.dtype());
  return finish(call);
}

Tensor scatter(Operand x_, int axis, const Tensor& index, const Tensor& source) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::scatter, {&x, &index, &source});
  require(call, {"x", "index", "source"});
  require_int(call, index, "index");
  const int at = checked_axis(call, x, axis);
  require_rank(call, index, "index", x.shape().rank()),
      require_rank(call, source, "source", x.shape().rank());
  for (int i = 0; i < x.shape().rank(); ++i) {
    if ((i != at && index.dim(i) > x.dim(i)) || index.dim(i) > source.dim(i)) {
      fail(call, "index has the shape " + to_string(index.shape()) + ", x " + to_string(x.shape()) +
                     ", source " + to_string(source.shape()));
    }
  }
  call.attributes = AxisAttributes{.axis = at};
  call.output_specs[0] = spec(x.shape(), x.dtype());
  return finish(call, {&x_});
}

// --- shape ---

Tensor concat(std::span<const Tensor> parts, int axis) {
  OpCall call = make(OpKind::concat, {});
  if (parts.empty()) fail(call, "no tensors");
  for (const Tensor& part : parts) {
    if (!part.defined()) fail(call, "a part is an undefined tensor");
  }
  const int at = checked_axis(call, parts[0], axis);
  Shape out = parts[0].shape();
  out[at] = 0;
  for (const Tensor& part : parts) {
    Shape rest = part.shape();
    if (rest.rank() == out.rank()) rest[at] = out[at];
    if (rest != out)
      fail(call, "the shapes " + to_string(parts[0].shape()) + " and " + to_string(part.shape()) +
                     " differ beside axis " + str(axis));
    if (part.dtype() != parts[0].dtype())
      fail(call, "the dtypes " + std::string(name(parts[0].dtype())) + " and " +
                     std::string(name(part.dtype())) + " differ");
    out[at] += part.dim(at);
  }
  if (parts.size() == 1) return parts[0];
  constexpr std::size_t most = OpCall::max_inputs;
  if (parts.size() > most) {
    std::vector<Tensor> joined;
    const std::size_t step = std::max(most, (parts.size() + most - 1) / most);
    for (std::size_t i = 0; i < parts.size(); i += step)
      joined.push_back(concat(parts.subspan(i, std::min(step, parts.size() - i)), axis));
    return concat(joined, axis);
  }
  for (std::size_t i = 0; i < parts.size(); ++i) call.inputs[i] = &parts[i];
  call.attributes = AxisAttributes{.axis = at};
  call.output_specs[0] = spec(out, parts[0].dtype());
  return finish(call);
}

Tensor slice(const Tensor& x, int axis, std::int64_t begin, std::int64_t end) {
  OpCall call = make(OpKind::slice, {&x});
  require(call, {"x"});
  const int at = checked_axis(call, x, axis);
  if (begin < 0 || begin > end || end > x.dim(at)) {
    fail(call, "[" + str(begin) + ", " + str(end) + ") of axis " + str(axis) + " of a tensor of shape " +
                   to_string(x.shape()));
  }
  call.attributes = AxisAttributes{.axis = at, .begin = begin, .end = end};
  Shape out = x.shape();
  out[at] = end - begin;
  call.output_specs[0] = spec(out, x.dtype());
  return finish(call);
}

Tensor pad(const Tensor& x, int axis, std::int64_t before, std::int64_t after, float value) {
  OpCall call = make(OpKind::pad, {&x});
  require(call, {"x"});
  const int at = checked_axis(call, x, axis);
  if (before < 0 || after < 0) fail(call, str(before) + " elements before and " + str(after) + " after");
  call.attributes = AxisAttributes{.axis = at, .begin = before, .end = after, .value = value};
  Shape out = x.shape();
  if (__builtin_add_overflow(out[at], before, &out[at]) || __builtin_add_overflow(out[at], after, &out[at])) {
    fail(call, str(before) + " elements before and " + str(after) + " after");
  }
  call.output_specs[0] = spec(out, x.dtype());
  return finish(call);
}

Tensor permute(const Tensor& x, std::span<const int> order) {
  OpCall call = make(OpKind::permute, {&x});
  require(call, {"x"});
  if (static_cast<int>(order.size()) != x.shape().rank())
    fail(call, str(static_cast<std::int64_t>(order.size())) + " axes for the shape " + to_string(x.shape()));
  AxisAttributes attributes;
  Shape out;
  unsigned seen = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const int at = checked_axis(call, x, order[i]);
    if (seen & 1u << at) fail(call, "axis " + str(at) + " is named twice");
    seen |= 1u << at;
    attributes.order[i] = at;
    out.push_back(x.dim(at));
  }
  call.attributes = attributes;
  call.output_specs[0] = spec(out, x.dtype());
  return finish(call);
}

Tensor repeat(const Tensor& x, int axis, std::int64_t count) {
  OpCall call = make(OpKind::repeat, {&x});
  require(call, {"x"});
  const int at = checked_axis(call, x, axis);
  if (count < 1) fail(call, str(count) + " copies");
  if (count == 1) return x;
  call.attributes = AxisAttributes{.axis = at, .count = count};
  Shape out = x.shape();
  if (__builtin_mul_overflow(out[at], count, &out[at])) fail(call, str(count) + " copies");
  out.elements();  // refuses an overflow
  call.output_specs[0] = spec(out, x.dtype());
  return finish(call);
}

Tensor typecast(Operand x_, DataType dtype) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::typecast, {&x});
  require(call, {"x"});
  if (x.dtype() == dtype) return x;
  call.output_specs[0] = spec(x.shape(), dtype);
  return finish(call, {&x_});
}

Tensor to_contiguous(Operand x_) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::to_contiguous, {&x});
  require(call, {"x"});
  if (x.contiguous()) return x;
  call.output_specs[0] = spec(x.shape(), x.dtype());
  return finish(call, {&x_});
}

// --- collectives ---

static int mesh_extent(const OpCall& call, int mesh_axis) {
  if (mesh_axis != 0 && mesh_axis != 1) fail(call, "mesh axis " + str(mesh_axis) + ", there are 0 and 1");
  const Mesh mesh = backend_of(call).mesh();
  return mesh_axis == 0 ? mesh.rows : mesh.cols;
}

Tensor all_gather(const Tensor& x, int axis, int mesh_axis) {
  OpCall call = make(OpKind::all_gather, {&x});
  require(call, {"x"});
  const int at = checked_axis(call, x, axis), n = mesh_extent(call, mesh_axis);
  if (n == 1) return x;
  call.attributes = AxisAttributes{.axis = at, .mesh_axis = mesh_axis};
  Shape out = x.shape();
  out[at] *= n;
  call.output_specs[0] = spec(out, x.dtype());
  return finish(call);
}

// Each device ends with one of as many equal parts of an axis as there are devices.
static Tensor divided(OpKind op, const Tensor& x, int axis, int mesh_axis) {
  OpCall call = make(op, {&x});
  require(call, {"x"});
  const int at = checked_axis(call, x, axis), n = mesh_extent(call, mesh_axis);
  if (n == 1) return x;
  if (x.dim(at) % n != 0) fail(call, str(x.dim(at)) + " elements do not divide among " + str(n) + " devices");
  call.attributes = AxisAttributes{.axis = at, .mesh_axis = mesh_axis};
  Shape out = x.shape();
  out[at] /= n;
  call.output_specs[0] = spec(out, x.dtype());
  return finish(call);
}

Tensor reduce_scatter(const Tensor& x, int axis, int mesh_axis) {
  return divided(OpKind::reduce_scatter, x, axis, mesh_axis);
}

Tensor mesh_partition(const Tensor& x, int axis, int mesh_axis) {
  return divided(OpKind::mesh_partition, x, axis, mesh_axis);
}

Tensor all_reduce(Operand x_, int mesh_axis) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::all_reduce, {&x});
  require(call, {"x"});
  if (mesh_extent(call, mesh_axis) == 1) return x;
  call.attributes = AxisAttributes{.axis = 0, .mesh_axis = mesh_axis};
  call.output_specs[0] = spec(x.shape(), x.dtype());
  return finish(call, {&x_});
}

}  // namespace ttt::inline v2::ops

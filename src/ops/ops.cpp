#include "ttt/ops/ops.h"

#include <numeric>

#include "ops/checks.h"

namespace ttt::inline v2::ops {

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

Tensor to_memory_config(Operand x_, const MemoryConfig& memory) {
  const Tensor& x = x_.tensor();
  OpCall call = make(OpKind::to_memory_config, {&x});
  require(call, {"x"});
  if (x.spec().memory == memory || !backend_of(call).supports(call)) return x;
  call.output_specs[0] = spec(x.shape(), x.dtype(), memory);
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

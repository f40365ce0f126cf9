// Elementwise ops: operands in pieces of 1,024 values as float32, one rounding at the end.
#include <algorithm>
#include <cmath>

#include "access.h"

namespace ttt::inline v2::cpu {

namespace {

constexpr std::int64_t piece = 1024;

static_assert(static_cast<int>(Fn::silu) == static_cast<int>(UnaryOp::silu) &&
              static_cast<int>(Fn::elu) == static_cast<int>(UnaryOp::elu) &&
              static_cast<int>(Fn::expm1) == static_cast<int>(UnaryOp::expm1));
static_assert(static_cast<int>(Fn2::ge) == static_cast<int>(BinaryOp::ge));

Fn fn(UnaryOp op) { return static_cast<Fn>(op); }
bool integer(DataType t) { return !is_float(t); }

// The tensor whose memory the result takes over: moved in, owned by nobody else, dense and of the same kind.
Tensor take_or_allocate(CpuDevice& device, const OpCall& call, std::initializer_list<int> candidates) {
  const TensorSpec& spec = call.output_specs[0];
  for (const int i : candidates) {
    const Tensor& x = call.in(i);
    if ((call.reusable >> i & 1u) && x.sole_owner() && cpu_buffer(x).owned() && x.dtype() == spec.dtype &&
        x.shape() == spec.shape && x.contiguous()) {
      return Tensor(x.buffer_ptr(), spec, x.strides(), x.offset());
    }
  }
  return device.allocate_like(spec, call.in(*candidates.begin()));
}

// f(runs' elements, offset within the run, count) over pieces of the index space.
template <class F>
void for_each_run(CpuDevice& device, const IndexSpace& space, F&& f) {
  const std::int64_t n = space.inner(), pieces = (n + piece - 1) / piece;
  if (n == 0 || space.outer() == 0) return;
  for_each_piece(device, space.outer() * pieces, std::min(n, piece),
                 [&](std::int64_t begin, std::int64_t end, int) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     std::int64_t at[IndexSpace::max_operands];
                     space.begin(i / pieces, at);
                     const std::int64_t from = i % pieces * piece;
                     f(at, from, std::min(piece, n - from));
                   }
                 });
}

double apply(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::add:
      return a + b;
    case BinaryOp::subtract:
      return a - b;
    case BinaryOp::multiply:
      return a * b;
    case BinaryOp::divide:
      return a / b;
    case BinaryOp::maximum:
      return a > b ? a : b;
    case BinaryOp::minimum:
      return a < b ? a : b;
    case BinaryOp::eq:
      return a == b;
    case BinaryOp::lt:
      return a < b;
    case BinaryOp::gt:
      return a > b;
    case BinaryOp::le:
      return a <= b;
    case BinaryOp::ge:
      return a >= b;
  }
  return 0;
}

}  // namespace

void run_binary(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<BinaryAttributes>();
  const Tensor &a = call.in(0), &b = call.in(1);
  const Shape& shape = call.output_specs[0].shape;
  const Tensor y = take_or_allocate(device, call, {0, 1});
  const Elements from_a(a), from_b(b), to(y);
  const IndexSpace space(shape, {y.strides(), broadcast_strides(a, shape), broadcast_strides(b, shape)});
  const Kernels& k = device.kernels();
  if (integer(a.dtype()) || integer(b.dtype()) || integer(y.dtype())) {
    for_each_run(device, space, [&](const std::int64_t* at, std::int64_t from, std::int64_t n) {
      double va[piece], vb[piece];
      load_values(from_a, at[1] + from * space.stride(1), space.stride(1), n, va);
      load_values(from_b, at[2] + from * space.stride(2), space.stride(2), n, vb);
      for (std::int64_t i = 0; i < n; ++i) va[i] = apply(attributes.op, va[i], vb[i]);
      for (std::int64_t i = 0; i < n; ++i) store_values(va + i, to, at[0] + (from + i) * space.stride(0), 1);
    });
    call.outputs[0] = y;
    return;
  }
  const auto op = static_cast<Fn2>(attributes.op);
  for_each_run(device, space, [&](const std::int64_t* at, std::int64_t from, std::int64_t n) {
    alignas(64) float va[piece], vb[piece], vy[piece];
    const auto operand = [&](const Elements& e, int i, const Activation& activation, float* buffer) {
      const std::int64_t stride = space.stride(i), element = at[i] + from * stride;
      const float* values = buffer;
      if (stride == 1) {
        values = values_at(k, e, element, n, buffer);
      } else {
        load_values(k, e, element, stride, n, buffer);
      }
      if (activation.op != UnaryOp::identity) {
        k.unary(fn(activation.op), activation.a, activation.b, values, buffer, n);
        values = buffer;
      }
      return values;
    };
    const float* pa = operand(from_a, 1, attributes.lhs_activation, va);
    if (space.stride(2) == 0 && attributes.rhs_activation.op == UnaryOp::identity) {
      load_values(k, from_b, at[2], 1, 1, vb);
      k.binary_scalar(op, pa, vb[0], vy, n);
    } else {
      const float* pb = operand(from_b, 2, attributes.rhs_activation, vb);
      k.binary(op, pa, pb, vy, n);
    }
    if (attributes.activation.op != UnaryOp::identity) {
      k.unary(fn(attributes.activation.op), attributes.activation.a, attributes.activation.b, vy, vy, n);
    }
    if (space.stride(0) == 1) {
      store_values(k, vy, to, at[0] + from, n);
    } else {
      for (std::int64_t i = 0; i < n; ++i)
        store_values(k, vy + i, to, at[0] + (from + i) * space.stride(0), 1);
    }
  });
  call.outputs[0] = y;
}

void run_unary(CpuDevice& device, OpCall& call) {
  const Activation activation = call.as<UnaryAttributes>().activation;
  const Tensor& x = call.in(0);
  const Tensor y = take_or_allocate(device, call, {0});
  const Elements from_x(x), to(y);
  const IndexSpace space(y.shape(), {y.strides(), x.strides()});
  const Kernels& k = device.kernels();
  for_each_run(device, space, [&](const std::int64_t* at, std::int64_t from, std::int64_t n) {
    alignas(64) float values[piece];
    load_values(k, from_x, at[1] + from * space.stride(1), space.stride(1), n, values);
    k.unary(fn(activation.op), activation.a, activation.b, values, values, n);
    if (space.stride(0) == 1) {
      store_values(k, values, to, at[0] + from, n);
    } else {
      for (std::int64_t i = 0; i < n; ++i)
        store_values(k, values + i, to, at[0] + (from + i) * space.stride(0), 1);
    }
  });
  call.outputs[0] = y;
}

void run_ternary(CpuDevice& device, OpCall& call) {
  const Tensor &condition = call.in(0), &a = call.in(1), &b = call.in(2);
  const Tensor y = device.allocate(call.output_specs[0]);
  const Shape& shape = y.shape();
  const Elements from_condition(condition), from_a(a), from_b(b), to(y);
  const IndexSpace space(shape, {y.strides(), broadcast_strides(condition, shape),
                                 broadcast_strides(a, shape), broadcast_strides(b, shape)});
  for_each_run(device, space, [&](const std::int64_t* at, std::int64_t from, std::int64_t n) {
    double vc[piece], va[piece], vb[piece];
    load_values(from_condition, at[1] + from * space.stride(1), space.stride(1), n, vc);
    load_values(from_a, at[2] + from * space.stride(2), space.stride(2), n, va);
    load_values(from_b, at[3] + from * space.stride(3), space.stride(3), n, vb);
    for (std::int64_t i = 0; i < n; ++i) va[i] = vc[i] != 0 ? va[i] : vb[i];
    for (std::int64_t i = 0; i < n; ++i) store_values(va + i, to, at[0] + (from + i) * space.stride(0), 1);
  });
  call.outputs[0] = y;
}

void run_typecast(CpuDevice& device, OpCall& call) {
  const Tensor& x = call.in(0);
  const TensorSpec& spec = call.output_specs[0];
  if (x.dtype() == spec.dtype && !is_packed(x)) {
    call.outputs[0] = x;
    return;
  }
  const Kernels& k = device.kernels();
  if (is_packed(x)) {
    std::vector<float> values(static_cast<std::size_t>(x.shape().elements()));
    device.read(x, values);
    call.outputs[0] = device.allocate(spec);
    device.write(call.outputs[0], values);
    return;
  }
  const bool blocks = is_block_float(spec.dtype) || is_block_float(x.dtype());
  const Tensor y = blocks ? device.allocate(spec) : device.allocate_like(spec, x);
  const Elements from_x(x), to(y);
  if (blocks) {  // by whole rows, where blocks live
    const IndexSpace rows(x.shape(), {y.strides(), x.strides()}, true);
    const std::int64_t n = rows.inner();
    for_each_piece(device, rows.outer(), n, [&](std::int64_t begin, std::int64_t end, int thread) {
      auto* values = reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(n + 16) * 4));
      for (std::int64_t row = begin; row < end; ++row) {
        std::int64_t at[2];
        rows.begin(row, at);
        load_values(k, from_x, at[1], rows.stride(1), n, values);
        store_values(k, values, to, at[0], n);
      }
    });
    call.outputs[0] = y;
    return;
  }
  const IndexSpace space(y.shape(), {y.strides(), x.strides()});
  const bool exact = integer(x.dtype()) || integer(y.dtype());
  for_each_run(device, space, [&](const std::int64_t* at, std::int64_t from, std::int64_t n) {
    if (exact || space.stride(0) != 1) {
      double values[piece];
      load_values(from_x, at[1] + from * space.stride(1), space.stride(1), n, values);
      for (std::int64_t i = 0; i < n; ++i)
        store_values(values + i, to, at[0] + (from + i) * space.stride(0), 1);
    } else {
      alignas(64) float values[piece];
      load_values(k, from_x, at[1] + from * space.stride(1), space.stride(1), n, values);
      store_values(k, values, to, at[0] + from, n);
    }
  });
  call.outputs[0] = y;
}

}  // namespace ttt::inline v2::cpu

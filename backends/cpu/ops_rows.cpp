// Ops along the last axis: norms, softmax, rotary embedding, reductions, topk, argmax.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "access.h"

namespace ttt::inline v2::cpu {

namespace {

// A small vector operand (weight, bias) as float32, or null.
const float* vector_operand(CpuDevice& device, const OpCall& call, int i, std::int64_t n, float* buffer) {
  if (!call.has(i)) return nullptr;
  return values_at(device.kernels(), Elements(call.in(i)), 0, n, buffer);
}

Tensor take_or_like(CpuDevice& device, const OpCall& call) {
  const Tensor& x = call.in(0);
  const TensorSpec& spec = call.output_specs[0];
  if ((call.reusable & 1u) && x.sole_owner() && cpu_buffer(x).owned() && x.dtype() == spec.dtype &&
      x.contiguous()) {
    return Tensor(x.buffer_ptr(), spec, x.strides(), x.offset());
  }
  return device.allocate_like(spec, x);
}

}  // namespace

void run_norm(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<NormAttributes>();
  const Tensor& x = call.in(0);
  const Tensor y = take_or_like(device, call);
  const Kernels& k = device.kernels();
  const bool centred = call.op == OpKind::layer_norm;
  const Shape& shape = x.shape();
  const IndexSpace rows(
      shape, {y.strides(), x.strides(), call.has(3) ? broadcast_strides(call.in(3), shape) : x.strides()},
      true);
  const std::int64_t n = rows.inner();
  auto* shared = reinterpret_cast<float*>(device.shared_scratch(static_cast<std::size_t>(2 * n + 32) * 4));
  const float* weight = vector_operand(device, call, 1, n, shared);
  const float* bias = vector_operand(device, call, 2, n, shared + n);
  const Elements from(x), to(y), residual = call.has(3) ? Elements(call.in(3)) : Elements();
  for_each_piece(device, rows.outer(), n, [&](std::int64_t begin, std::int64_t end, int thread) {
    auto* values = reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(2 * n + 32) * 4));
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t at[3];
      rows.begin(row, at);
      load_values(k, from, at[1], 1, n, values);
      if (call.has(3)) {
        load_values(k, residual, at[2], 1, n, values + n);
        k.binary(Fn2::add, values, values + n, values, n);
      }
      const float mean = centred ? k.sum(values, n) / static_cast<float>(n) : 0.0f;
      const float variance = k.sum_squares(values, mean, n) / static_cast<float>(n);
      k.normalize(values, mean, 1.0f / std::sqrt(variance + attributes.epsilon), weight,
                  attributes.weight_plus_one ? 1.0f : 0.0f, bias, values, n);
      store_values(k, values, to, at[0], n);
    }
  });
  call.outputs[0] = y;
}

void run_softmax(CpuDevice& device, OpCall& call) {
  const Tensor& x = call.in(0);
  const Tensor y = take_or_like(device, call);
  const Kernels& k = device.kernels();
  const IndexSpace rows(x.shape(), {y.strides(), x.strides()}, true);
  const std::int64_t n = rows.inner();
  const Elements from(x), to(y);
  for_each_piece(device, rows.outer(), n * 4, [&](std::int64_t begin, std::int64_t end, int thread) {
    auto* values = reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(n + 16) * 4));
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t at[2];
      rows.begin(row, at);
      load_values(k, from, at[1], 1, n, values);
      const float sum = k.exp_sum(values, k.max(values, n), values, n);
      k.binary_scalar(Fn2::divide, values, sum, values, n);
      store_values(k, values, to, at[0], n);
    }
  });
  call.outputs[0] = y;
}

void run_rotary_embedding(CpuDevice& device, OpCall& call) {
  const bool interleaved = call.as<RotaryAttributes>().interleaved;
  const Tensor &x = call.in(0), &cos = call.in(1), &sin = call.in(2);
  const Tensor y = device.allocate_like(call.output_specs[0], x);
  const Kernels& k = device.kernels();
  const std::int64_t half = cos.dim(-1), n = x.dim(-1);
  Shape per_token = x.shape();  // cos and sin as operands of x's rows
  const auto table_strides = [&](const Tensor& t) {
    Shape s = broadcast_strides(t, per_token);
    return s;
  };
  const IndexSpace rows(x.shape(), {y.strides(), x.strides(), table_strides(cos), table_strides(sin)}, true);
  const Elements from(x), to(y), from_cos(cos), from_sin(sin);
  const bool bf16 = !interleaved && half % 16 == 0 && x.dtype() == DataType::bf16 &&
                    y.dtype() == DataType::bf16 && cos.dtype() == DataType::f32 &&
                    sin.dtype() == DataType::f32;
  for_each_piece(device, rows.outer(), n, [&](std::int64_t begin, std::int64_t end, int thread) {
    if (bf16) {
      for (std::int64_t row = begin; row < end; ++row) {
        std::int64_t at[4];
        rows.begin(row, at);
        const auto* in = reinterpret_cast<const std::uint16_t*>(from.at(at[1]));
        auto* out = reinterpret_cast<std::uint16_t*>(to.at(at[0]));
        k.rope_half_bf16(in, reinterpret_cast<const float*>(from_cos.at(at[2])),
                         reinterpret_cast<const float*>(from_sin.at(at[3])), out, half);
        std::copy(in + 2 * half, in + n, out + 2 * half);
      }
      return;
    }
    auto* in =
        reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(2 * n + 2 * half + 64) * 4));
    float *out = in + n, *c = out + n, *s = c + half;
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t at[4];
      rows.begin(row, at);
      load_values(k, from, at[1], 1, n, in);
      const float* pc = values_at(k, from_cos, at[2], half, c);
      const float* ps = values_at(k, from_sin, at[3], half, s);
      if (interleaved) {
        k.rope_interleaved(in, pc, ps, out, half);
      } else {
        k.rope_half(in, pc, ps, out, half);
      }
      std::copy(in + 2 * half, in + n, out + 2 * half);
      store_values(k, out, to, at[0], n);
    }
  });
  call.outputs[0] = y;
}

void run_reduce(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AxisAttributes>();
  const Tensor& x = call.in(0);
  const int rank = x.shape().rank();
  const int axis = attributes.axis < 0 ? attributes.axis + rank : attributes.axis;
  const Tensor y = device.allocate(call.output_specs[0]);
  const Kernels& k = device.kernels();
  const ReduceOp op = attributes.reduce;
  const std::int64_t n = x.dim(axis);
  // Outputs in order, with the strides of x without the axis.
  Shape outer, strides;
  for (int i = 0; i < rank; ++i) {
    if (i == axis) continue;
    outer.push_back(x.dim(i));
    strides.push_back(x.strides()[i]);
  }
  const Elements from(x), to(y);
  const std::int64_t step = x.strides()[axis];
  const std::int64_t count = outer.elements();
  const auto finish = [&](float value) {
    return op == ReduceOp::mean ? value / static_cast<float>(n) : value;
  };
  if (axis == rank - 1 || count == 1) {
    const IndexSpace rows(outer, {strides});
    for_each_piece(device, count, n, [&](std::int64_t begin, std::int64_t end, int thread) {
      auto* values = reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(n + 16) * 4));
      for (std::int64_t i = begin; i < end; ++i) {
        std::int64_t at = 0;
        rows.begin(i / rows.inner(), &at);
        at += i % rows.inner() * rows.stride(0);
        load_values(k, from, at, step, n, values);
        float result = 0;
        switch (op) {
          case ReduceOp::sum:
          case ReduceOp::mean:
            result = finish(k.sum(values, n));
            break;
          case ReduceOp::max:
            result = k.max(values, n);
            break;
          case ReduceOp::min:
            k.unary(Fn::neg, 0, 0, values, values, n);
            result = -k.max(values, n);
            break;
          case ReduceOp::prod:
            result = 1;
            for (std::int64_t j = 0; j < n; ++j) result *= values[j];
            break;
        }
        store_values(k, &result, to, i, 1);
      }
    });
    call.outputs[0] = y;
    return;
  }
  // Another axis: whole rows are combined.
  const IndexSpace rows(outer, {strides}, true);
  const std::int64_t width = rows.inner();
  const Fn2 combine = op == ReduceOp::max    ? Fn2::maximum
                      : op == ReduceOp::min  ? Fn2::minimum
                      : op == ReduceOp::prod ? Fn2::multiply
                                             : Fn2::add;
  constexpr std::int64_t piece = 1024;
  const std::int64_t pieces = (width + piece - 1) / piece;
  for_each_piece(device, rows.outer() * pieces, n * std::min(width, piece),
                 [&](std::int64_t begin, std::int64_t end, int) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     std::int64_t at = 0;
                     rows.begin(i / pieces, &at);
                     const std::int64_t column = i % pieces * piece, m = std::min(piece, width - column);
                     alignas(64) float total[piece], values[piece];
                     at += column * rows.stride(0);
                     load_values(k, from, at, rows.stride(0), m, total);
                     for (std::int64_t j = 1; j < n; ++j) {
                       load_values(k, from, at + j * step, rows.stride(0), m, values);
                       k.binary(combine, total, values, total, m);
                     }
                     if (op == ReduceOp::mean)
                       k.binary_scalar(Fn2::divide, total, static_cast<float>(n), total, m);
                     store_values(k, total, to, i / pieces * width + column, m);
                   }
                 });
  call.outputs[0] = y;
}

void run_argmax(CpuDevice& device, OpCall& call) {
  const Tensor& x = call.in(0);
  const Tensor y = device.allocate(call.output_specs[0]);
  const Kernels& k = device.kernels();
  const IndexSpace rows(x.shape(), {x.strides()}, true);
  const std::int64_t n = rows.inner();
  const Elements from(x), to(y);
  for_each_piece(device, rows.outer(), n, [&](std::int64_t begin, std::int64_t end, int) {
    constexpr std::int64_t piece = 2048;
    alignas(64) float buffer[piece];
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t at = 0;
      rows.begin(row, &at);
      std::int64_t best = 0;
      float top = -std::numeric_limits<float>::infinity();
      for (std::int64_t i = 0; i < n; i += piece) {
        const std::int64_t m = std::min(piece, n - i);
        load_values(k, from, at + i * rows.stride(0), rows.stride(0), m, buffer);
        const float largest = k.max(buffer, m);
        if (largest > top) {
          top = largest;
          best = i + k.argmax(buffer, m);
        }
      }
      const auto index = static_cast<double>(best);
      store_values(&index, to, row, 1);
    }
  });
  call.outputs[0] = y;
}

void run_topk(CpuDevice& device, OpCall& call) {
  const Tensor& x = call.in(0);
  const Tensor values = device.allocate(call.output_specs[0]),
               indices = device.allocate(call.output_specs[1]);
  const Kernels& kernels = device.kernels();
  const IndexSpace rows(x.shape(), {x.strides()}, true);
  const std::int64_t n = rows.inner(), k = values.dim(-1);
  const Elements from(x), to_values(values), to_indices(indices);
  for_each_piece(device, rows.outer(), n * 2, [&](std::int64_t begin, std::int64_t end, int thread) {
    struct Entry {
      float value;
      std::uint32_t index;
      // The order of the result: larger values first, of equal ones the lower index.
      bool before(const Entry& other) const {
        return value != other.value ? value > other.value : index < other.index;
      }
    };
    const auto before = [](const Entry& a, const Entry& b) { return a.before(b); };
    auto* row_values = reinterpret_cast<float*>(device.scratch(
        thread, static_cast<std::size_t>(n + 16) * 4 + static_cast<std::size_t>(k) * sizeof(Entry)));
    auto* heap = reinterpret_cast<Entry*>(row_values + n + 16 - n % 2);
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t at = 0;
      rows.begin(row, &at);
      load_values(kernels, from, at, rows.stride(0), n, row_values);
      for (std::int64_t i = 0; i < n; ++i) {
        if (std::isnan(row_values[i])) row_values[i] = -std::numeric_limits<float>::infinity();
      }
      for (std::int64_t i = 0; i < k; ++i) heap[i] = {row_values[i], static_cast<std::uint32_t>(i)};
      std::make_heap(heap, heap + k, before);  // the last of the chosen on top
      constexpr std::int64_t piece = 64;
      for (std::int64_t i = k; i < n; i += piece) {
        const std::int64_t m = std::min(piece, n - i);
        if (!(kernels.max(row_values + i, m) > heap[0].value)) continue;
        for (std::int64_t j = i; j < i + m; ++j) {
          const Entry entry{row_values[j], static_cast<std::uint32_t>(j)};
          if (!entry.before(heap[0])) continue;
          std::pop_heap(heap, heap + k, before);
          heap[k - 1] = entry;
          std::push_heap(heap, heap + k, before);
        }
      }
      std::sort_heap(heap, heap + k, before);
      for (std::int64_t i = 0; i < k; ++i) {
        store_values(kernels, &heap[i].value, to_values, row * k + i, 1);
        const auto index = static_cast<double>(heap[i].index);
        store_values(&index, to_indices, row * k + i, 1);
      }
    }
  });
  call.outputs[0] = values;
  call.outputs[1] = indices;
}

}  // namespace ttt::inline v2::cpu

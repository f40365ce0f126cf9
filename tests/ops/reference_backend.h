// The least that a backend must do (ops/backend.h): primitives on contiguous float32 operands, written as
// plain loops, and typecast and to_contiguous of anything. Everything else reaches it through the fallbacks,
// which is what it is for.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "ttt/ops/backend.h"
#include "ttt/tensor/block_float.h"

namespace ttt {

// Values are kept as double, already rounded to the tensor's dtype, so that 32-bit integers are exact.
class ReferenceBuffer final : public Buffer {
 public:
  ReferenceBuffer(Device& device, std::size_t n) : Buffer(device), values(n) {}
  std::size_t bytes() const override { return values.size() * sizeof(double); }
  std::vector<double> values;
};

class ReferenceBackend final : public Backend {
 public:
  std::map<std::string, int> ran;  // kernels by label
  std::function<bool(const OpCall&)>
      also_supports;                   // kinds that count as fused kernels; run() records and refuses them
  std::function<void(OpCall&)> fused;  // what runs them
  Mesh devices{};
  bool kernels = true;  // false: it supports nothing

  std::string_view name() const override { return "reference"; }
  std::string description() const override { return "reference"; }
  Mesh mesh() const override { return devices; }

  Tensor allocate(const TensorSpec& spec) override {
    return Tensor(std::make_shared<ReferenceBuffer>(*this, static_cast<std::size_t>(spec.shape.elements())),
                  spec);
  }
  void write(const Tensor& t, std::span<const float> v) override {
    store(t, std::vector<double>(v.begin(), v.end()));
  }
  void write(const Tensor& t, std::span<const std::int32_t> v) override {
    store(t, std::vector<double>(v.begin(), v.end()));
  }
  void read(const Tensor& t, std::span<float> v) override { fetch(t, v); }
  void read(const Tensor& t, std::span<std::int32_t> v) override { fetch(t, v); }

  std::string packing(const WeightSpec&) const override { return "reference"; }
  std::size_t packed_bytes(const WeightSpec&, std::int64_t rows, std::int64_t cols) const override {
    return static_cast<std::size_t>(rows * cols) * sizeof(float);
  }
  void pack(const WeightSource& source, const WeightSpec&, std::span<std::byte> out) override {
    source.read(0, source.rows(), reinterpret_cast<float*>(out.data()));
  }
  Tensor adopt(const WeightSpec& spec, std::int64_t rows, std::int64_t cols,
               std::span<const std::byte> packed, std::shared_ptr<const void>) override {
    const auto* from = reinterpret_cast<const float*>(packed.data());
    Tensor t = allocate({.shape = weight_shape(spec, rows, cols), .dtype = spec.dtype});
    std::vector<double> values(static_cast<std::size_t>(rows * cols));
    const std::int64_t groups = spec.role == WeightRole::experts ? spec.experts : 1, out = rows / groups;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        const bool table = spec.role == WeightRole::embedding || spec.role == WeightRole::vector;
        const std::int64_t at = table ? r * cols + c : (r / out * cols + c) * out + r % out;
        values[static_cast<std::size_t>(at)] = from[r * cols + c];
      }
    }
    store(t, values);
    return t;
  }

  bool supports(const OpCall& call) const override {
    if (!kernels) return false;
    if (also_supports && also_supports(call)) return true;
    if (call.op == OpKind::typecast || call.op == OpKind::to_contiguous) return true;
    if (call.op == OpKind::paged_update_cache || call.op == OpKind::paged_fill_cache) return true;
    for (int i = 0; i < OpCall::max_inputs; ++i) {
      if (!call.has(i)) continue;
      const bool index = i == 1 && (call.op == OpKind::gather || call.op == OpKind::scatter);
      if (!call.in(i).contiguous() ||
          (index ? is_float(call.in(i).dtype()) : call.in(i).dtype() != DataType::f32))
        return false;
    }
    for (int i = 0; i < call.outputs_count; ++i) {
      if (!(call.op == OpKind::topk && i == 1) &&
          call.output_specs[static_cast<std::size_t>(i)].dtype != DataType::f32)
        return false;
    }
    switch (call.op) {
      case OpKind::matmul:
      case OpKind::unary:
      case OpKind::ternary:
      case OpKind::reduce:
      case OpKind::topk:
      case OpKind::gather:
      case OpKind::scatter:
      case OpKind::concat:
      case OpKind::pad:
      case OpKind::all_gather:
      case OpKind::reduce_scatter:
      case OpKind::mesh_partition:
        return true;
      case OpKind::binary: {
        const auto& a = call.as<BinaryAttributes>();
        return a.lhs_activation == Activation{} && a.rhs_activation == Activation{} &&
               a.activation == Activation{};
      }
      default:
        return false;
    }
  }

  void run(OpCall& call) override {
    ++ran[std::string(label(call))];
    if (also_supports && also_supports(call)) return fused(call);
    std::vector<std::vector<double>> in;
    for (int i = 0; i < OpCall::max_inputs; ++i)
      in.push_back(call.has(i) ? values(call.in(i)) : std::vector<double>());
    for (int i = 0; i < call.outputs_count; ++i)
      call.outputs[static_cast<std::size_t>(i)] = allocate(call.output_specs[static_cast<std::size_t>(i)]);
    std::vector<double> out;
    if (call.outputs_count > 0) out.resize(static_cast<std::size_t>(call.output_specs[0].shape.elements()));
    compute(call, in, out);
    if (call.outputs_count > 0) store(call.outputs[0], out);
  }

  // The logical elements in row-major order.
  std::vector<double> values(const Tensor& t) const {
    std::vector<double> v(static_cast<std::size_t>(t.shape().elements()));
    const auto& buffer = static_cast<ReferenceBuffer&>(t.buffer());
    visit(t, [&](std::size_t i, std::size_t at) { v[i] = buffer.values.at(at); });
    return v;
  }

 private:
  template <class F>
  static void visit(const Tensor& t, F&& f) {
    const Shape& s = t.shape();
    for (std::int64_t i = 0; i < s.elements(); ++i) {
      std::int64_t rest = i, at = t.offset();
      for (int axis = s.rank() - 1; axis >= 0; --axis)
        at += rest % s[axis] * t.strides()[axis], rest /= s[axis];
      f(static_cast<std::size_t>(i), static_cast<std::size_t>(at));
    }
  }

  static void store(const Tensor& t, std::vector<double> v) {
    if (t.dtype() == DataType::f32) {
      for (double& x : v) x = static_cast<float>(x);
    } else if (t.dtype() == DataType::bf16) {
      for (double& x : v) x = round_to_bf16(static_cast<float>(x));
    } else if (is_block_float(t.dtype())) {
      std::vector<float> f(v.begin(), v.end());
      round_to_block_float(f, static_cast<std::int64_t>(f.size()) / t.dim(-1), t.dim(-1), t.dtype());
      v.assign(f.begin(), f.end());
    } else {
      for (double& x : v) x = std::trunc(x);
    }
    auto& buffer = static_cast<ReferenceBuffer&>(t.buffer());
    visit(t, [&](std::size_t i, std::size_t at) { buffer.values.at(at) = v.at(i); });
  }

  template <class T>
  void fetch(const Tensor& t, std::span<T> out) const {
    const std::vector<double> v = values(t);
    for (std::size_t i = 0; i < v.size(); ++i) out[i] = static_cast<T>(v[i]);
  }

  static double unary(const Activation& a, double x) {
    switch (a.op) {
      case UnaryOp::identity:
        return x;
      case UnaryOp::silu:
        return x / (1 + std::exp(-x));
      case UnaryOp::relu:
        return std::max(x, 0.0);
      case UnaryOp::tanh:
        return std::tanh(x);
      case UnaryOp::exp:
        return std::exp(x);
      case UnaryOp::rsqrt:
        return 1 / std::sqrt(x);
      case UnaryOp::clamp:
        return std::min(std::max<double>(x, a.a), static_cast<double>(a.b));
      case UnaryOp::add_scalar:
        return x + a.a;
      case UnaryOp::mul_scalar:
        return x * a.a;
      default:
        throw Error("reference: no such unary function");
    }
  }

  static double binary(BinaryOp op, double a, double b) {
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
        return std::max(a, b);
      case BinaryOp::minimum:
        return std::min(a, b);
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

  // Position of element i of `shape` in a tensor whose axes of extent 1 are repeated.
  static std::size_t broadcast(std::int64_t i, const Shape& shape, const Shape& of) {
    std::int64_t at = 0, step = 1;
    for (int k = 1; k <= shape.rank(); ++k) {
      const std::int64_t index = i % shape[-k];
      i /= shape[-k];
      if (k > of.rank()) continue;
      if (of[-k] != 1) at += index * step;
      step *= of[-k];
    }
    return static_cast<std::size_t>(at);
  }

  // f(outer, along, inner) -> flat position, for a walk along one axis.
  struct Walk {
    std::int64_t outer = 1, extent = 1, inner = 1;
    Walk(const Shape& s, int axis) : extent(s[axis]) {
      for (int i = 0; i < s.rank(); ++i) (i < axis ? outer : inner) *= i == axis ? 1 : s[i];
    }
    std::size_t at(std::int64_t o, std::int64_t k, std::int64_t i) const {
      return static_cast<std::size_t>((o * extent + k) * inner + i);
    }
  };

  void compute(OpCall& call, std::vector<std::vector<double>>& in, std::vector<double>& out) {
    const Shape shape = call.output_specs[0].shape;
    const auto n = static_cast<std::int64_t>(out.size());
    switch (call.op) {
      case OpKind::typecast:
      case OpKind::to_contiguous:
        out = in[0];
        break;
      case OpKind::unary:
        for (std::size_t i = 0; i < out.size(); ++i)
          out[i] = unary(call.as<UnaryAttributes>().activation, in[0][i]);
        break;
      case OpKind::binary:
        for (std::int64_t i = 0; i < n; ++i) {
          out[static_cast<std::size_t>(i)] =
              binary(call.as<BinaryAttributes>().op, in[0][broadcast(i, shape, call.in(0).shape())],
                     in[1][broadcast(i, shape, call.in(1).shape())]);
        }
        break;
      case OpKind::ternary:
        for (std::int64_t i = 0; i < n; ++i) {
          const bool chosen = in[0][broadcast(i, shape, call.in(0).shape())] != 0;
          out[static_cast<std::size_t>(i)] = chosen ? in[1][broadcast(i, shape, call.in(1).shape())]
                                                    : in[2][broadcast(i, shape, call.in(2).shape())];
        }
        break;
      case OpKind::matmul:
        matmul(call, in, out);
        break;
      case OpKind::reduce: {
        const auto& a = call.as<AxisAttributes>();
        const Walk w(call.in(0).shape(), a.axis);
        for (std::int64_t o = 0; o < w.outer; ++o) {
          for (std::int64_t i = 0; i < w.inner; ++i) {
            double sum = 0, product = 1, most = -INFINITY, least = INFINITY;
            for (std::int64_t k = 0; k < w.extent; ++k) {
              const double x = in[0][w.at(o, k, i)];
              sum += x, product *= x, most = std::max(most, x), least = std::min(least, x);
            }
            double& y = out[static_cast<std::size_t>(o * w.inner + i)];
            y = a.reduce == ReduceOp::sum    ? sum
                : a.reduce == ReduceOp::mean ? sum / static_cast<double>(w.extent)
                : a.reduce == ReduceOp::max  ? most
                : a.reduce == ReduceOp::min  ? least
                                             : product;
          }
        }
        break;
      }
      case OpKind::topk: {
        const std::int64_t width = call.in(0).dim(-1), k = call.as<AxisAttributes>().k;
        std::vector<double> indices(out.size());
        for (std::int64_t r = 0; r < n / k; ++r) {
          std::vector<std::int64_t> order(static_cast<std::size_t>(width));
          std::iota(order.begin(), order.end(), 0);
          const double* row = in[0].data() + r * width;
          std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return row[a] > row[b]; });
          for (std::int64_t i = 0; i < k; ++i) {
            indices[static_cast<std::size_t>(r * k + i)] =
                static_cast<double>(order[static_cast<std::size_t>(i)]);
            out[static_cast<std::size_t>(r * k + i)] = row[order[static_cast<std::size_t>(i)]];
          }
        }
        store(call.outputs[1], indices);
        break;
      }
      case OpKind::gather: {
        const int axis = call.as<AxisAttributes>().axis;
        scatter_walk(call.in(1).shape(), call.in(0).shape(), axis, in[1],
                     [&](std::size_t i, std::size_t at) { out[i] = in[0].at(at); });
        break;
      }
      case OpKind::scatter: {
        const int axis = call.as<AxisAttributes>().axis;
        out = in[0];
        const Shape index = call.in(1).shape(), source = call.in(2).shape();
        if (index != source) throw Error("reference: scatter of a part");
        scatter_walk(index, call.in(0).shape(), axis, in[1],
                     [&](std::size_t i, std::size_t at) { out.at(at) = in[2][i]; });
        break;
      }
      case OpKind::concat: {
        const int axis = call.as<AxisAttributes>().axis;
        const Walk w(shape, axis);
        std::int64_t begin = 0;
        for (int p = 0; p < OpCall::max_inputs && call.has(p); ++p) {
          const Walk part(call.in(p).shape(), axis);
          for (std::int64_t o = 0; o < w.outer; ++o) {
            for (std::int64_t k = 0; k < part.extent; ++k) {
              for (std::int64_t i = 0; i < w.inner; ++i)
                out[w.at(o, begin + k, i)] = in[static_cast<std::size_t>(p)][part.at(o, k, i)];
            }
          }
          begin += part.extent;
        }
        break;
      }
      case OpKind::pad: {
        const auto& a = call.as<AxisAttributes>();
        const Walk w(shape, a.axis), x(call.in(0).shape(), a.axis);
        std::fill(out.begin(), out.end(), a.value);
        for (std::int64_t o = 0; o < x.outer; ++o) {
          for (std::int64_t k = 0; k < x.extent; ++k) {
            for (std::int64_t i = 0; i < x.inner; ++i) out[w.at(o, a.begin + k, i)] = in[0][x.at(o, k, i)];
          }
        }
        break;
      }
      case OpKind::all_gather: {  // every device holds the same
        const int axis = call.as<AxisAttributes>().axis;
        const Walk w(shape, axis), x(call.in(0).shape(), axis);
        for (std::int64_t o = 0; o < w.outer; ++o) {
          for (std::int64_t k = 0; k < w.extent; ++k) {
            for (std::int64_t i = 0; i < w.inner; ++i) out[w.at(o, k, i)] = in[0][x.at(o, k % x.extent, i)];
          }
        }
        break;
      }
      case OpKind::paged_update_cache:
      case OpKind::paged_fill_cache:
        cache(call, in);
        break;
      default:
        throw Error("reference: no such operation");
    }
  }

  static void matmul(const OpCall& call, const std::vector<std::vector<double>>& in,
                     std::vector<double>& out) {
    const auto& a = call.as<LinearAttributes>();
    const Shape &x = call.in(0).shape(), &w = call.in(1).shape(), &y = call.output_specs[0].shape;
    const std::int64_t m = y[-2], n = y[-1], k = x[a.transpose_a ? -2 : -1];
    Shape batch, xb, wb;
    for (int i = 0; i < y.rank() - 2; ++i) batch.push_back(y[i]);
    for (int i = 0; i < x.rank() - 2; ++i) xb.push_back(x[i]);
    for (int i = 0; i < w.rank() - 2; ++i) wb.push_back(w[i]);
    for (std::int64_t b = 0; b < batch.elements(); ++b) {
      const double* p = in[0].data() + static_cast<std::int64_t>(broadcast(b, batch, xb)) * m * k;
      const double* q = in[1].data() + static_cast<std::int64_t>(broadcast(b, batch, wb)) * k * n;
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (std::int64_t t = 0; t < k; ++t)
            sum +=
                (a.transpose_a ? p[t * m + i] : p[i * k + t]) * (a.transpose_b ? q[j * k + t] : q[t * n + j]);
          out[static_cast<std::size_t>((b * m + i) * n + j)] = sum;
        }
      }
    }
  }

  // f(i, at) for each element i of `index`: `at` is the element of a tensor of shape `x` whose `axis` the
  // index replaces.
  template <class F>
  static void scatter_walk(const Shape& index, const Shape& x, int axis, const std::vector<double>& ids,
                           F&& f) {
    for (std::int64_t i = 0; i < index.elements(); ++i) {
      std::int64_t rest = i, at = 0, step = 1;
      for (int k = index.rank() - 1; k >= 0; --k) {
        at += (k == axis ? static_cast<std::int64_t>(ids[static_cast<std::size_t>(i)]) : rest % index[k]) *
              step;
        rest /= index[k], step *= x[k];
      }
      f(static_cast<std::size_t>(i), static_cast<std::size_t>(at));
    }
  }

  void cache(const OpCall& call, const std::vector<std::vector<double>>& in) {
    const Tensor &c = call.in(0), &x = call.in(1), &pages = call.in(2);
    const bool update = call.op == OpKind::paged_update_cache;
    const auto& a = call.as<CacheAttributes>();
    std::vector<double> held = in[0];
    const std::int64_t heads = c.dim(1), block = c.dim(2), dim = c.dim(3), tokens = x.dim(update ? 1 : 2);
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t row = update ? t : a.page_row,
                         position = update ? static_cast<std::int64_t>(in[3][static_cast<std::size_t>(t)])
                                           : a.start + t;
      if (position < 0) continue;
      const auto id = static_cast<std::int64_t>(
          in[2].at(static_cast<std::size_t>(row * pages.dim(1) + position / block)));
      for (std::int64_t h = 0; h < heads; ++h) {
        for (std::int64_t d = 0; d < dim; ++d) {
          const std::int64_t from = update ? (t * heads + h) * dim + d : (h * tokens + t) * dim + d;
          held.at(static_cast<std::size_t>(((id * heads + h) * block + position % block) * dim + d)) =
              in[1][static_cast<std::size_t>(from)];
        }
      }
    }
    store(c, held);
  }
};

}  // namespace ttt

// Ops that move elements: embedding, gather, scatter, concat, slice, pad, permute, repeat, heads.
#include <algorithm>
#include <cstring>

#include "access.h"

namespace ttt::inline v2::cpu {

namespace {

int axis_of(const OpCall& call) {
  const int axis = call.as<AxisAttributes>().axis, rank = call.in(0).shape().rank();
  return axis < 0 ? axis + rank : axis;
}

// Copies `x` into elements [begin, begin + extent) of one axis of `y`.
void copy_into(CpuDevice& device, const Tensor& y, int axis, std::int64_t begin, const Tensor& x) {
  const Elements from(x), to(y);
  copy_strided(device, to.at(begin * y.strides()[axis]), y.strides(), from.at(0), x.strides(), x.shape(),
               bytes_of(x.dtype()));
}

}  // namespace

void run_embedding(CpuDevice& device, OpCall& call) {
  const Tensor &ids = call.in(0), &table = call.in(1);
  const Tensor y = device.allocate(call.output_specs[0]);
  const Kernels& k = device.kernels();
  const std::int64_t n = table.dim(-1), entries = table.dim(-2), tokens = ids.shape().elements();
  const Elements from(table), to(y), from_ids(ids);
  const IndexSpace order(ids.shape(), {ids.strides()});
  for_each_piece(device, tokens, n, [&](std::int64_t begin, std::int64_t end, int thread) {
    auto* values = reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(n + 16) * 4));
    for (std::int64_t token = begin; token < end; ++token) {
      std::int64_t at = 0;
      order.begin(token / order.inner(), &at);
      const std::int64_t id = load_index(from_ids, at + token % order.inner() * order.stride(0));
      if (id < 0 || id >= entries) {  // no such entry: zeros, never a read outside
        std::memset(to.at(token * n), 0, static_cast<std::size_t>(n) * bytes_of(y.dtype()));
      } else if (table.dtype() == y.dtype()) {
        std::memcpy(to.at(token * n), from.at(id * table.strides()[-2]),
                    static_cast<std::size_t>(n) * bytes_of(y.dtype()));
      } else {
        load_values(k, from, id * table.strides()[-2], 1, n, values);
        store_values(k, values, to, token * n, n);
      }
    }
  });
  call.outputs[0] = y;
}

void run_gather(CpuDevice& device, OpCall& call) {
  const Tensor &x = call.in(0), &index = call.in(1);
  const int axis = axis_of(call);
  const Tensor y = device.allocate(call.output_specs[0]);
  const Elements from(x), from_index(index), to(y);
  Shape strides = x.strides();
  strides[axis] = 0;
  const IndexSpace space(index.shape(), {y.strides(), index.strides(), strides});
  const std::size_t size = bytes_of(x.dtype());
  for_each_piece(device, space.outer(), space.inner(), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t run = begin; run < end; ++run) {
      std::int64_t at[3];
      space.begin(run, at);
      for (std::int64_t i = 0; i < space.inner(); ++i) {
        const std::int64_t j = load_index(from_index, at[1] + i * space.stride(1));
        std::byte* d = to.at(at[0] + i * space.stride(0));
        if (j >= 0 && j < x.dim(axis)) {
          std::memcpy(d, from.at(at[2] + i * space.stride(2) + j * x.strides()[axis]), size);
        } else {
          std::memset(d, 0, size);
        }
      }
    }
  });
  call.outputs[0] = y;
}

void run_scatter(CpuDevice& device, OpCall& call) {
  const Tensor &x = call.in(0), &index = call.in(1), &source = call.in(2);
  const int axis = axis_of(call);
  Tensor y;
  if ((call.reusable & 1u) && x.sole_owner() && cpu_buffer(x).owned() && x.contiguous()) {
    y = x;
  } else {
    y = device.allocate(call.output_specs[0]);
    copy_into(device, y, 0, 0, x);
  }
  const Elements from(source), from_index(index), to(y);
  Shape strides = y.strides();
  strides[axis] = 0;
  const IndexSpace space(index.shape(), {source.strides(), index.strides(), strides});
  const std::size_t size = bytes_of(y.dtype());
  const Kernels& k = device.kernels();
  for (std::int64_t run = 0; run < space.outer() && index.shape().elements() > 0;
       ++run) {  // in order: of equal indices the last wins
    std::int64_t at[3];
    space.begin(run, at);
    for (std::int64_t i = 0; i < space.inner(); ++i) {
      const std::int64_t j = load_index(from_index, at[1] + i * space.stride(1));
      if (j < 0 || j >= y.dim(axis)) continue;
      const std::int64_t element = at[2] + i * space.stride(2) + j * y.strides()[axis];
      if (source.dtype() == y.dtype()) {
        std::memcpy(to.at(element), from.at(at[0] + i * space.stride(0)), size);
      } else {
        float value = 0;
        load_values(k, from, at[0] + i * space.stride(0), 1, 1, &value);
        store_values(k, &value, to, element, 1);
      }
    }
  }
  call.outputs[0] = y;
}

void run_concat(CpuDevice& device, OpCall& call) {
  const int axis = axis_of(call);
  const Tensor y = device.allocate(call.output_specs[0]);
  std::int64_t begin = 0;
  for (int i = 0; i < OpCall::max_inputs && call.has(i); ++i) {
    copy_into(device, y, axis, begin, call.in(i));
    begin += call.in(i).dim(axis);
  }
  call.outputs[0] = y;
}

// A view where the elements lie together anyway.
void run_slice(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AxisAttributes>();
  call.outputs[0] = contiguous(device, call.in(0).narrow(axis_of(call), attributes.begin, attributes.end));
}

void run_pad(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AxisAttributes>();
  const Tensor& x = call.in(0);
  const int axis = axis_of(call);
  const Tensor y = device.allocate(call.output_specs[0]);
  const Elements to(y);
  const auto fill = [&](std::int64_t begin, std::int64_t end) {
    const Tensor part = y.narrow(axis, begin, end);
    const IndexSpace space(part.shape(), {part.strides()});
    const auto value = static_cast<double>(attributes.value);
    for (std::int64_t run = 0; run < space.outer() && part.shape().elements() > 0; ++run) {
      std::int64_t at = 0;
      space.begin(run, &at);
      at += part.offset() - y.offset();
      for (std::int64_t i = 0; i < space.inner(); ++i) store_values(&value, to, at + i * space.stride(0), 1);
    }
  };
  fill(0, attributes.begin);
  fill(attributes.begin + x.dim(axis), y.dim(axis));
  copy_into(device, y, axis, attributes.begin, x);
  call.outputs[0] = y;
}

void run_permute(CpuDevice& device, OpCall& call) {
  const auto& order = call.as<AxisAttributes>().order;
  const Tensor& x = call.in(0);
  TensorSpec spec = call.output_specs[0];
  Shape strides = spec.shape;
  for (int i = 0; i < spec.shape.rank(); ++i) strides[i] = x.strides()[order[static_cast<std::size_t>(i)]];
  call.outputs[0] = contiguous(device, Tensor(x.buffer_ptr(), spec, strides, x.offset()));
}

void run_repeat(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AxisAttributes>();
  const Tensor& x = call.in(0);
  const int axis = axis_of(call);
  const Tensor y = device.allocate(call.output_specs[0]);
  for (std::int64_t i = 0; i < attributes.count; ++i) copy_into(device, y, axis, i * x.dim(axis), x);
  call.outputs[0] = y;
}

void run_to_contiguous(CpuDevice& device, OpCall& call) { call.outputs[0] = contiguous(device, call.in(0)); }

// Views into x: heads lie beside each other within a token.
void run_create_qkv_heads(CpuDevice&, OpCall& call) {
  const auto& heads = call.as<HeadsAttributes>();
  const Tensor& x = call.in(0);
  const std::int64_t v_dim = heads.v_head_dim == 0 ? heads.head_dim : heads.v_head_dim;
  const std::int64_t token = x.shape().rank() > 1 ? x.strides()[-2] : x.dim(-1);
  std::int64_t begin = 0;
  const auto part = [&](int output, std::int64_t count, std::int64_t dim) {
    const TensorSpec& spec = call.output_specs[static_cast<std::size_t>(output)];
    Shape strides = spec.shape;
    const int rank = strides.rank();
    for (int i = 0; i < rank - 3; ++i) strides[i] = spec.shape[i] == 1 ? token * x.dim(-2) : x.strides()[0];
    strides[rank - 3] = dim;
    strides[rank - 2] = token;
    strides[rank - 1] = 1;
    call.outputs[static_cast<std::size_t>(output)] =
        Tensor(x.buffer_ptr(), spec, strides, x.offset() + begin);
    begin += count * dim;
  };
  part(0, heads.num_heads, heads.head_dim);
  if (heads.num_kv_heads > 0) {
    part(1, heads.num_kv_heads, heads.head_dim);
    if (call.outputs_count > 2) part(2, heads.num_kv_heads, v_dim);
  }
}

void run_concat_heads(CpuDevice& device, OpCall& call) {
  const Tensor& x = call.in(0);
  const TensorSpec& spec = call.output_specs[0];
  const Tensor tokens = x.swap_axes(-3, -2);  // [1, tokens, heads, head_dim]
  call.outputs[0] = contiguous(device, tokens).reshape(spec.shape);
}

}  // namespace ttt::inline v2::cpu

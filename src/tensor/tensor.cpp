#include "ttt/tensor/tensor.h"

#include "ttt/tensor/block_float.h"
#include "ttt/tensor/device.h"

namespace ttt::inline v2 {

namespace {

Shape row_major_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

int checked_axis(const Shape& shape, int axis) {
  const int i = axis < 0 ? axis + shape.rank() : axis;
  if (i < 0 || i >= shape.rank()) {
    throw Error("axis " + std::to_string(axis) + " of a tensor of shape " + to_string(shape));
  }
  return i;
}

void check_count(std::size_t values, const Shape& shape) {
  if (static_cast<std::int64_t>(values) != shape.elements()) {
    throw Error("from_host: " + std::to_string(values) + " values for the shape " + to_string(shape));
  }
}

}  // namespace

Buffer::~Buffer() = default;

std::string to_string(const TensorSpec& spec) {
  std::string text = to_string(spec.shape) + " " + std::string(name(spec.dtype));
  text += spec.layout == Layout::tile ? " tile " : " row_major ";
  return text + to_string(spec.memory);
}

std::size_t bytes(const TensorSpec& spec) {
  if (!is_block_float(spec.dtype))
    return static_cast<std::size_t>(spec.shape.elements()) * element_size(spec.dtype);
  const std::int64_t cols = spec.shape.rank() > 0 ? spec.shape[-1] : 1;
  const std::int64_t rows = spec.shape.rank() > 1 ? spec.shape[-2] : 1;
  if (rows == 0 || cols == 0) return 0;
  return static_cast<std::size_t>(spec.shape.elements() / (rows * cols)) *
         packed_bytes(rows, cols, spec.dtype);
}

Tensor::Tensor(std::shared_ptr<Buffer> buffer, TensorSpec spec)
    : buffer_(std::move(buffer)), spec_(std::move(spec)), strides_(row_major_strides(spec_.shape)) {}

Tensor::Tensor(std::shared_ptr<Buffer> buffer, TensorSpec spec, Shape strides, std::int64_t offset)
    : buffer_(std::move(buffer)), spec_(std::move(spec)), strides_(strides), offset_(offset) {
  if (strides_.rank() != spec_.shape.rank()) throw Error("a tensor's strides and shape differ in rank");
}

bool Tensor::contiguous() const {
  std::int64_t step = 1;
  for (int axis = shape().rank() - 1; axis >= 0; --axis) {
    if (shape()[axis] == 0) return true;
    if (shape()[axis] != 1 && strides_[axis] != step) return false;
    step *= shape()[axis];
  }
  return true;
}

Tensor Tensor::reshape(Shape shape) const {
  if (shape.elements() != spec_.shape.elements()) {
    throw Error("reshape of " + to_string(spec_.shape) + " to " + to_string(shape) +
                " changes the number of elements");
  }
  if (!contiguous()) {
    throw Error("reshape of a tensor that is not contiguous", to_string(spec_),
                "call ops::to_contiguous first");
  }
  // Blocks and padding belong to the last two axes, so only the leading ones of a block format can be
  // regrouped.
  if (is_block_float(dtype()) && shape != spec_.shape) {
    const auto tail = [](const Shape& s, int i) { return s.rank() >= i ? s[-i] : 1; };
    if (tail(shape, 1) != tail(spec_.shape, 1) || tail(shape, 2) != tail(spec_.shape, 2)) {
      throw Error("reshape of a block format changes its last two axes", to_string(spec_),
                  "call ops::typecast first");
    }
  }
  TensorSpec spec = spec_;
  spec.shape = shape;
  const Shape strides = row_major_strides(shape);
  return Tensor(buffer_, std::move(spec), strides, offset_);
}

Tensor Tensor::swap_axes(int a, int b) const {
  const int i = checked_axis(shape(), a), j = checked_axis(shape(), b);
  Tensor view = *this;
  std::swap(view.spec_.shape[i], view.spec_.shape[j]);
  std::swap(view.strides_[i], view.strides_[j]);
  return view;
}

Tensor Tensor::narrow(int axis, std::int64_t begin, std::int64_t end) const {
  const int i = checked_axis(shape(), axis);
  if (begin < 0 || begin > end || end > shape()[i]) {
    throw Error("narrow to [" + std::to_string(begin) + ", " + std::to_string(end) + ") of axis " +
                std::to_string(axis) + " of a tensor of shape " + to_string(shape()));
  }
  Tensor view = *this;
  view.spec_.shape[i] = end - begin;
  view.offset_ += begin * strides_[i];
  return view;
}

Tensor from_host(Device& device, std::span<const float> values, const Shape& shape, DataType dtype) {
  check_count(values.size(), shape);
  Tensor t = device.allocate({.shape = shape, .dtype = dtype});
  device.write(t, values);
  return t;
}

Tensor from_host(Device& device, std::span<const std::int32_t> values, const Shape& shape, DataType dtype) {
  check_count(values.size(), shape);
  if (is_float(dtype))
    throw Error("from_host of integers to " + std::string(name(dtype)), {}, "use i32, u32, u16 or u8");
  Tensor t = device.allocate({.shape = shape, .dtype = dtype, .layout = Layout::row_major});
  device.write(t, values);
  return t;
}

std::vector<float> to_host(const Tensor& t) {
  if (!t.defined()) throw Error("to_host of a tensor that was never set");
  std::vector<float> values(static_cast<std::size_t>(t.shape().elements()));
  t.device().read(t, std::span<float>(values));
  return values;
}

std::vector<std::int32_t> to_host_int(const Tensor& t) {
  if (!t.defined()) throw Error("to_host_int of a tensor that was never set");
  if (is_float(t.dtype())) throw Error("to_host_int of " + to_string(t.spec()), {}, "use to_host");
  std::vector<std::int32_t> values(static_cast<std::size_t>(t.shape().elements()));
  t.device().read(t, std::span<std::int32_t>(values));
  return values;
}

HostValues::HostValues(Tensor t) {
  if (t.defined() && t.dtype() == DataType::f32 && t.contiguous() && t.sole_owner() &&
      t.data<float>() != nullptr) {
    tensor_ = std::move(t);
  } else {
    values_ = to_host(t);
  }
}

}  // namespace ttt::inline v2

// Tensor: a value handle on a device's memory. Copying one shares the memory; the last handle frees it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ttt/tensor/dtype.h"
#include "ttt/tensor/memory_config.h"
#include "ttt/tensor/shape.h"

namespace ttt::inline v2 {

class Device;

// Memory of one tensor on one device (or on all devices of a mesh). Backends derive from it.
class Buffer {
 public:
  explicit Buffer(Device& device) : device_(&device) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  virtual ~Buffer();
  Device& device() const { return *device_; }
  virtual std::size_t bytes() const = 0;
  // The elements in row-major order where the processor can address them, else null (device memory, packed
  // weights).
  virtual std::byte* data() { return nullptr; }

 private:
  Device* device_;
};

struct TensorSpec {
  Shape shape{};
  DataType dtype = DataType::bf16;
  Layout layout = Layout::tile;
  MemoryConfig memory{};
  bool operator==(const TensorSpec&) const = default;
};

std::string to_string(const TensorSpec&);  // "[1, 1, 32, 576] bf16 tile dram interleaved"
// Bytes of its elements; of the block formats in tiles, the last two axes padded up to 32.
std::size_t bytes(const TensorSpec&);

class Tensor {
 public:
  Tensor() = default;  // no tensor: optional operands are passed so
  Tensor(std::shared_ptr<Buffer> buffer, TensorSpec spec);
  // A view: element (i, j, ..) of the tensor lies at offset + i * strides[0] + j * strides[1] + .. of the
  // buffer, in elements.
  Tensor(std::shared_ptr<Buffer> buffer, TensorSpec spec, Shape strides, std::int64_t offset);

  bool defined() const { return buffer_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const TensorSpec& spec() const { return spec_; }
  const Shape& shape() const { return spec_.shape; }
  std::int64_t dim(int axis) const { return spec_.shape[axis]; }
  DataType dtype() const { return spec_.dtype; }
  const Shape& strides() const { return strides_; }
  std::int64_t offset() const { return offset_; }
  bool contiguous() const;  // row-major without gaps (an offset is allowed)

  Buffer& buffer() const { return *buffer_; }
  const std::shared_ptr<Buffer>& buffer_ptr() const { return buffer_; }
  Device& device() const { return buffer_->device(); }
  bool sole_owner() const { return buffer_.use_count() == 1; }

  // First element where the memory is addressable (see Buffer::data), else null. T must have the dtype's
  // size.
  template <class T>
  T* data() const {
    std::byte* base = buffer_ ? buffer_->data() : nullptr;
    return base ? reinterpret_cast<T*>(base) + offset_ : nullptr;
  }

  // The same elements under another shape; only for contiguous tensors. Error when the counts differ. A block
  // format keeps its last two axes.
  Tensor reshape(Shape shape) const;
  // The same memory with two axes exchanged.
  Tensor swap_axes(int a, int b) const;
  // Elements [begin, end) of one axis, as a view.
  Tensor narrow(int axis, std::int64_t begin, std::int64_t end) const;

 private:
  std::shared_ptr<Buffer> buffer_;
  TensorSpec spec_;
  Shape strides_;
  std::int64_t offset_ = 0;
};

// Copies between host and device. Values are converted to and from float32 (integers to and from int32) with
// the dtype's rounding.
Tensor from_host(Device&, std::span<const float> values, const Shape&, DataType = DataType::bf16);
Tensor from_host(Device&, std::span<const std::int32_t> values, const Shape&,
                 DataType = DataType::i32);            // any integer dtype
std::vector<float> to_host(const Tensor&);             // row-major order of the logical elements
std::vector<std::int32_t> to_host_int(const Tensor&);  // for i32, u32, u16 and u8 tensors

// Float32 elements in row-major order that the processor may read and change: a tensor's own memory where
// that is addressable and nobody else holds it, else a copy. Moves, since two would share what they change.
class HostValues {
 public:
  HostValues() = default;
  HostValues(std::vector<float> values) : values_(std::move(values)) {}
  explicit HostValues(Tensor t);  // any float tensor that is set
  HostValues(HostValues&&) noexcept = default;
  HostValues& operator=(HostValues&&) noexcept = default;

  float* data() { return tensor_ ? tensor_.data<float>() : values_.data(); }
  const float* data() const { return tensor_ ? tensor_.data<float>() : values_.data(); }
  std::size_t size() const {
    return tensor_ ? static_cast<std::size_t>(tensor_.shape().elements()) : values_.size();
  }
  bool empty() const { return size() == 0; }
  float* begin() { return data(); }
  float* end() { return data() + size(); }
  const float* begin() const { return data(); }
  const float* end() const { return data() + size(); }
  operator std::vector<float>() const { return {begin(), end()}; }

 private:
  Tensor tensor_;
  std::vector<float> values_;
};

}  // namespace ttt::inline v2

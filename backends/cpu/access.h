// Reading and writing the elements of tensors of any dtype and strides, in float32.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu_device.h"

namespace ttt::inline v2::cpu {

constexpr std::size_t bytes_of(DataType t) { return element_size(t); }

// Where a tensor's elements lie.
struct Elements {
  std::byte* base = nullptr;  // of element 0 of the buffer
  DataType dtype = DataType::f32;
  std::int64_t offset = 0;
  std::int64_t row = 0;  // block_rows: values of a row

  Elements() = default;
  explicit Elements(const Tensor& t)
      : base(cpu_buffer(t).raw()),
        dtype(t.dtype()),
        offset(t.offset()),
        row(t.shape().rank() > 0 ? t.dim(-1) : 1) {}

  std::byte* at(std::int64_t element) const {
    return base + (offset + element) * static_cast<std::int64_t>(bytes_of(dtype));
  }
  // block_rows: the row that holds `element` (an element in row r of the buffer is at r * row + column).
  std::byte* block_row(std::int64_t element) const {
    return base + (offset + element) / row * static_cast<std::int64_t>(block_row_bytes(row));
  }
};

// n values from `element` on, `stride` elements apart.
void load_values(const Kernels&, const Elements&, std::int64_t element, std::int64_t stride, std::int64_t n,
                 float* out);
void load_values(const Elements&, std::int64_t element, std::int64_t stride, std::int64_t n, double* out);
// n neighbouring values, rounded once to the dtype. For block rows `element` begins a row and n is its
// length.
void store_values(const Kernels&, const float* values, const Elements&, std::int64_t element, std::int64_t n);
void store_values(const double* values, const Elements&, std::int64_t element, std::int64_t n);
std::int64_t load_index(const Elements&, std::int64_t element);

// The values themselves when they are neighbouring aligned float32, else `buffer` filled with them.
inline const float* values_at(const Kernels& k, const Elements& e, std::int64_t element, std::int64_t n,
                              float* buffer) {
  if (e.dtype == DataType::f32 && reinterpret_cast<std::uintptr_t>(e.base) % alignof(float) == 0) {
    return reinterpret_cast<const float*>(e.at(element));
  }
  load_values(k, e, element, 1, n, buffer);
  return buffer;
}

// The index space of up to five operands: axes that all operands cross in one stride are merged, so that
// dense operands of equal shape become one long axis. `skip_last` keeps the last axis whole and iterates over
// the others.
class IndexSpace {
 public:
  static constexpr int max_operands = 5;

  IndexSpace(const Shape& shape, std::initializer_list<Shape> strides, bool skip_last = false);

  std::int64_t outer() const { return outer_; }  // number of runs along the inner axis
  std::int64_t inner() const { return inner_; }  // length of a run; with skip_last the last axis
  std::int64_t stride(int operand) const { return inner_strides_[operand]; }
  // Element of each operand where run `index` begins.
  void begin(std::int64_t index, std::int64_t* elements) const;

 private:
  int operands_ = 0, rank_ = 0;
  std::int64_t extents_[Shape::max_rank] = {};
  std::int64_t strides_[max_operands][Shape::max_rank] = {};
  std::int64_t inner_strides_[max_operands] = {};
  std::int64_t outer_ = 1, inner_ = 1;
};

// Strides of `t` as an operand of an op whose result has `shape`: axes of extent 1 repeat, missing leading
// axes too.
Shape broadcast_strides(const Tensor& t, const Shape& shape);

// Elements between neighbouring rows when x is a matrix of rows (all axes but the last) that are equally far
// apart and dense inside, else -1.
std::int64_t row_stride(const Tensor& x);

// Copies `shape` elements of `size` bytes.
void copy_strided(CpuDevice&, std::byte* to, const Shape& to_strides, const std::byte* from,
                  const Shape& from_strides, const Shape& shape, std::size_t size);
Tensor contiguous(CpuDevice&, const Tensor&);  // itself where it is

// Multiplications or elements below which a parallel section is not worth its price.
constexpr std::int64_t parallel_grain = 16384;

// f(begin, end, thread) over `count` items of `cost` elements each, in even pieces.
template <class F>
void for_each_piece(CpuDevice& device, std::int64_t count, std::int64_t cost, F&& f) {
  const std::int64_t worth = count * cost / (parallel_grain / 2), most = device.pool().size() * 4;
  const std::int64_t pieces = worth < 1 ? 1 : worth < most ? worth : most;
  device.pool().parallel_for(count, (count + pieces - 1) / pieces, f);
}

}  // namespace ttt::inline v2::cpu

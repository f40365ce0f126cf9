#include "access.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ttt/tensor/block_float.h"

namespace ttt::inline v2::cpu {

namespace {

template <class T>
T get(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T>
void put(std::byte* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

// Saturates, so that no value is undefined behaviour.
template <class T>
T to_integer(double v) {
  if (!(v > static_cast<double>(std::numeric_limits<T>::min())))
    return std::isnan(v) ? T{0} : std::numeric_limits<T>::min();
  if (v >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(v);
}

double get_double(const std::byte* p, DataType t) {
  switch (t) {
    case DataType::f32:
      return static_cast<double>(get<float>(p));
    case DataType::bf16:
      return static_cast<double>(std::bit_cast<float>(std::uint32_t{get<std::uint16_t>(p)} << 16));
    case DataType::i32:
      return static_cast<double>(get<std::int32_t>(p));
    case DataType::u32:
      return static_cast<double>(get<std::uint32_t>(p));
    case DataType::u16:
      return static_cast<double>(get<std::uint16_t>(p));
    case DataType::u8:
      return static_cast<double>(get<std::uint8_t>(p));
    default:
      return 0;
  }
}

void put_double(std::byte* p, DataType t, double v) {
  switch (t) {
    case DataType::f32:
      return put(p, static_cast<float>(v));
    case DataType::bf16:
      return put(p, BFloat16(static_cast<float>(v)).bits);
    case DataType::i32:
      return put(p, to_integer<std::int32_t>(v));
    case DataType::u32:
      return put(p, to_integer<std::uint32_t>(v));
    case DataType::u16:
      return put(p, to_integer<std::uint16_t>(v));
    case DataType::u8:
      return put(p, to_integer<std::uint8_t>(v));
    default:
      return;
  }
}

int mantissa_bits(DataType t) { return t == DataType::bfp8_b ? 7 : 3; }

}  // namespace

void load_values(const Kernels& k, const Elements& e, std::int64_t element, std::int64_t stride,
                 std::int64_t n, float* out) {
  if (n <= 0) return;
  if (is_block_float(e.dtype)) {
    const std::int64_t first = (e.offset + element) % e.row;
    if (stride == 1 && first == 0 && n == e.row) {
      return k.block_rows_to_f32(reinterpret_cast<const std::uint8_t*>(e.block_row(element)), 1, n,
                                 mantissa_bits(e.dtype), out, n);
    }
    std::vector<float> row(static_cast<std::size_t>(e.row));
    for (std::int64_t i = 0; i < n;) {  // any range, row by row
      const std::int64_t at = element + i * stride, column = (e.offset + at) % e.row;
      k.block_rows_to_f32(reinterpret_cast<const std::uint8_t*>(e.block_row(at)), 1, e.row,
                          mantissa_bits(e.dtype), row.data(), e.row);
      const std::int64_t same = stride == 0 ? n : std::min(n - i, (e.row - column + stride - 1) / stride);
      for (std::int64_t j = 0; j < same; ++j) out[i + j] = row[static_cast<std::size_t>(column + j * stride)];
      i += same;
    }
    return;
  }
  const std::byte* p = e.at(element);
  if (stride == 1) {
    if (e.dtype == DataType::f32)
      return static_cast<void>(std::memcpy(out, p, static_cast<std::size_t>(n) * 4));
    if (e.dtype == DataType::bf16) return k.bf16_to_f32(reinterpret_cast<const std::uint16_t*>(p), out, n);
  }
  if (stride == 0) {
    std::fill_n(out, n, static_cast<float>(get_double(p, e.dtype)));
    return;
  }
  const std::int64_t step = stride * static_cast<std::int64_t>(bytes_of(e.dtype));
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(get_double(p + i * step, e.dtype));
}

void load_values(const Elements& e, std::int64_t element, std::int64_t stride, std::int64_t n, double* out) {
  const std::byte* p = e.at(element);
  const std::int64_t step = stride * static_cast<std::int64_t>(bytes_of(e.dtype));
  for (std::int64_t i = 0; i < n; ++i) out[i] = get_double(p + i * step, e.dtype);
}

void store_values(const Kernels& k, const float* values, const Elements& e, std::int64_t element,
                  std::int64_t n) {
  if (n <= 0) return;
  if (e.dtype == DataType::f32) {
    if (reinterpret_cast<const std::byte*>(values) != e.at(element)) {
      std::memcpy(e.at(element), values, static_cast<std::size_t>(n) * 4);
    }
    return;
  }
  if (e.dtype == DataType::bf16)
    return k.f32_to_bf16(values, reinterpret_cast<std::uint16_t*>(e.at(element)), n);
  if (is_block_float(e.dtype)) {
    auto* row = reinterpret_cast<std::uint8_t*>(e.block_row(element));
    const std::int64_t blocks = (n + face_size - 1) / face_size;
    const int sign = e.dtype == DataType::bfp8_b ? 0x80 : 0x08;
    for (std::int64_t b = 0; b < blocks; ++b) {
      float sixteen[face_size] = {};
      std::copy_n(values + b * face_size, std::min<std::int64_t>(face_size, n - b * face_size), sixteen);
      const BlockFloat16 block = encode_block(sixteen, e.dtype);
      row[b] = block.exponent;
      auto* codes = reinterpret_cast<std::int8_t*>(row + blocks + b * face_size);
      for (int i = 0; i < face_size; ++i) {
        const int magnitude = block.values[i] & (sign - 1);
        codes[i] = static_cast<std::int8_t>(block.values[i] & sign ? -magnitude : magnitude);
      }
    }
    return;
  }
  const std::int64_t size = static_cast<std::int64_t>(bytes_of(e.dtype));
  std::byte* p = e.at(element);
  for (std::int64_t i = 0; i < n; ++i) put_double(p + i * size, e.dtype, static_cast<double>(values[i]));
}

void store_values(const double* values, const Elements& e, std::int64_t element, std::int64_t n) {
  const std::int64_t size = static_cast<std::int64_t>(bytes_of(e.dtype));
  std::byte* p = e.at(element);
  for (std::int64_t i = 0; i < n; ++i) put_double(p + i * size, e.dtype, values[i]);
}

std::int64_t load_index(const Elements& e, std::int64_t element) {
  const std::byte* p = e.at(element);
  switch (e.dtype) {
    case DataType::i32:
      return get<std::int32_t>(p);
    case DataType::u32:
      return get<std::uint32_t>(p);
    case DataType::u16:
      return get<std::uint16_t>(p);
    case DataType::u8:
      return get<std::uint8_t>(p);
    default:
      return to_integer<std::int64_t>(get_double(p, e.dtype));
  }
}

IndexSpace::IndexSpace(const Shape& shape, std::initializer_list<Shape> strides, bool skip_last)
    : operands_(static_cast<int>(strides.size())) {
  const int rank = shape.rank();
  const int axes = skip_last && rank > 0 ? rank - 1 : rank;
  for (int axis = 0; axis < axes; ++axis) {
    const std::int64_t extent = shape[axis];
    if (extent == 1) continue;
    bool merge = rank_ > 0;
    int operand = 0;
    for (const Shape& s : strides) merge = merge && strides_[operand++][rank_ - 1] == s[axis] * extent;
    const int at = merge ? rank_ - 1 : rank_++;
    extents_[at] = merge ? extents_[at] * extent : extent;
    operand = 0;
    for (const Shape& s : strides) strides_[operand++][at] = s[axis];
  }
  if (skip_last) {
    inner_ = rank > 0 ? shape[-1] : 1;
    int operand = 0;
    for (const Shape& s : strides) inner_strides_[operand++] = rank > 0 ? s[rank - 1] : 1;
  } else if (rank_ > 0) {
    --rank_;
    inner_ = extents_[rank_];
    for (int i = 0; i < operands_; ++i) inner_strides_[i] = strides_[i][rank_];
  } else {
    for (int i = 0; i < operands_; ++i) inner_strides_[i] = 1;
  }
  for (int axis = 0; axis < rank_; ++axis) outer_ *= extents_[axis];
}

void IndexSpace::begin(std::int64_t index, std::int64_t* elements) const {
  for (int i = 0; i < operands_; ++i) elements[i] = 0;
  for (int axis = rank_ - 1; axis >= 0; --axis) {
    const std::int64_t at = axis == 0 ? index : index % extents_[axis];
    index /= extents_[axis];
    for (int i = 0; i < operands_; ++i) elements[i] += at * strides_[i][axis];
  }
}

Shape broadcast_strides(const Tensor& t, const Shape& shape) {
  Shape strides = shape;
  const int missing = shape.rank() - t.shape().rank();
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const int own = axis - missing;
    strides[axis] = own < 0 || (t.dim(own) == 1 && shape[axis] != 1) ? 0 : t.strides()[own];
  }
  return strides;
}

std::int64_t row_stride(const Tensor& x) {
  const int rank = x.shape().rank();
  if (rank == 0) return 1;
  if (x.strides()[-1] != 1 && x.dim(-1) != 1) return -1;
  const IndexSpace rows(x.shape(), {x.strides()}, true);
  if (rows.outer() <= 1) return x.dim(-1);
  std::int64_t first = 0, second = 0, last = 0;
  rows.begin(0, &first);
  rows.begin(1, &second);
  rows.begin(rows.outer() - 1, &last);
  // Equal distances everywhere, or the axes would not have merged into one.
  std::int64_t extent = 1;
  std::int64_t step = -1;
  for (int axis = rank - 2; axis >= 0; --axis) {
    if (x.dim(axis) == 1) continue;
    if (step < 0) {
      step = x.strides()[axis];
      extent = x.dim(axis);
    } else if (x.strides()[axis] == step * extent) {
      extent *= x.dim(axis);
    } else {
      return -1;
    }
  }
  return step < 0 ? x.dim(-1) : step;
}

void copy_strided(CpuDevice& device, std::byte* to, const Shape& to_strides, const std::byte* from,
                  const Shape& from_strides, const Shape& shape, std::size_t size) {
  if (shape.elements() == 0) return;
  const IndexSpace space(shape, {to_strides, from_strides});
  const std::int64_t n = space.inner(), step = static_cast<std::int64_t>(size);
  const auto copy = [&](std::int64_t run, std::int64_t begin, std::int64_t end) {
    std::int64_t at[2];
    space.begin(run, at);
    std::byte* d = to + (at[0] + begin * space.stride(0)) * step;
    const std::byte* s = from + (at[1] + begin * space.stride(1)) * step;
    if (space.stride(0) == 1 && space.stride(1) == 1) {
      std::memcpy(d, s, static_cast<std::size_t>(end - begin) * size);
      return;
    }
    for (std::int64_t i = begin; i < end; ++i, d += space.stride(0) * step, s += space.stride(1) * step)
      std::memcpy(d, s, size);
  };
  if (space.outer() == 1) {
    for_each_piece(device, n, 1, [&](std::int64_t begin, std::int64_t end, int) { copy(0, begin, end); });
  } else {
    for_each_piece(device, space.outer(), n, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t run = begin; run < end; ++run) copy(run, 0, n);
    });
  }
}

Tensor contiguous(CpuDevice& device, const Tensor& x) {
  if (x.contiguous()) return x;
  Tensor y = device.allocate(x.spec());
  const Elements from(x), to(y);
  copy_strided(device, to.at(0), y.strides(), from.at(0), x.strides(), x.shape(), bytes_of(x.dtype()));
  return y;
}

}  // namespace ttt::inline v2::cpu

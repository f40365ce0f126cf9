// What modules that divide on a mesh share.
#pragma once

#include <vector>

#include "ttt/modules/module.h"
#include "ttt/modules/parallel.h"

namespace ttt::inline v2 {

// With rows (of a vector: columns) of zeros behind, up to a multiple of `multiple`.
inline LazyWeight pad_rows(const LazyWeight& weight, std::int64_t multiple) {
  if (!weight) return weight;
  const bool vector = weight.role() == WeightRole::vector;
  const std::int64_t n = vector ? weight.cols() : weight.rows(),
                     missing = (multiple - n % multiple) % multiple;
  if (missing == 0) return weight;
  if (vector) return {pad_cols(weight.source(), n + missing), weight.role(), weight.name()};
  std::vector<float> zeros(static_cast<std::size_t>(missing * weight.cols()));
  return {concat_rows({weight.source(), make_source(std::move(zeros), missing, weight.cols(), "padding")}),
          weight.role(), weight.name()};
}

// The rows (of a vector: columns) of each head so many times one after the other, for devices that share a
// head.
inline LazyWeight repeat_heads(const LazyWeight& weight, std::int64_t heads, std::int64_t copies) {
  if (!weight || copies == 1) return weight;
  const bool vector = weight.role() == WeightRole::vector && weight.rows() == 1;
  const WeightSourcePtr source = vector ? reshape_source(weight.source(), weight.cols(), 1) : weight.source();
  const std::int64_t size = source->rows() / heads;
  std::vector<std::int64_t> order;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t copy = 0; copy < copies; ++copy) {
      for (std::int64_t row = 0; row < size; ++row) order.push_back(head * size + row);
    }
  }
  WeightSourcePtr repeated = gather_rows(source, std::move(order));
  if (vector) repeated = reshape_source(std::move(repeated), 1, weight.cols() * copies);
  return {std::move(repeated), weight.role(), weight.name()};
}

// The first of each device's part of `n` things: [1, 1, 1, 1] i32.
inline Tensor first_of_parts(Backend& device, std::int64_t n, const ShardAxis& axis) {
  std::vector<std::int32_t> first;
  for (std::int64_t i = 0; i < axis.parts; ++i)
    first.push_back(static_cast<std::int32_t>(i * (n / axis.parts)));
  return ops::mesh_partition(from_host(device, first, {1, 1, 1, axis.parts}), 3, axis.mesh_axis);
}

}  // namespace ttt::inline v2

// What modules that divide on a mesh share.
#pragma once

#include <vector>

#include "ttt/modules/module.h"
#include "ttt/modules/parallel.h"

namespace ttt::inline v2 {

// With rows (of a vector: columns) of zeros behind, so that they divide among `parts`.
inline LazyWeight pad_rows(const LazyWeight& weight, std::int64_t parts) {
  const bool vector = weight.role() == WeightRole::vector;
  const std::int64_t n = vector ? weight.cols() : weight.rows(), missing = (parts - n % parts) % parts;
  if (!weight || missing == 0) return weight;
  const std::int64_t width = vector ? 1 : weight.cols();
  WeightSourcePtr source = vector ? reshape_source(weight.source(), n, 1) : weight.source();
  source = concat_rows(
      {std::move(source), make_source(std::vector<float>(static_cast<std::size_t>(missing * width)), missing,
                                      width, "padding")});
  if (vector) source = reshape_source(std::move(source), 1, n + missing);
  return {std::move(source), weight.role(), weight.name()};
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

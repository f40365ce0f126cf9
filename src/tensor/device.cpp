#include "ttt/tensor/device.h"

#include <algorithm>
#include <vector>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

Device::Device() = default;
Device::~Device() = default;

namespace {

std::int64_t part_of(std::int64_t extent, const ShardAxis& axis, std::string_view what) {
  if (axis.parts < 1 || extent % axis.parts != 0)
    throw Error(std::to_string(extent) + " " + std::string(what) + " do not divide among " +
                std::to_string(axis.parts) + " devices");
  return extent / axis.parts;
}

int index_on(const ShardAxis& axis, int mesh_row, int mesh_col) {
  return axis.mesh_axis < 0 ? 0 : axis.mesh_axis == 0 ? mesh_row : mesh_col;
}

}  // namespace

Shape weight_shape(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) {
  const Sharding& s = spec.sharding;
  cols = part_of(cols, s.cols, "columns");
  switch (spec.role) {
    case WeightRole::linear:
      return {1, 1, cols, part_of(rows, s.rows, "rows")};
    case WeightRole::experts:
      if (spec.experts < 1 || rows % spec.experts != 0) {
        throw Error(std::to_string(rows) + " rows do not divide among " + std::to_string(spec.experts) +
                    " experts");
      }
      return {1, part_of(spec.experts, s.experts, "experts"), cols,
              part_of(rows / spec.experts, s.rows, "rows of an expert")};
    case WeightRole::embedding:
    case WeightRole::vector:
      return {1, 1, part_of(rows, s.rows, "rows"), cols};
  }
  throw Error("invalid weight role");
}

WeightSpec shard_spec(const WeightSpec& spec) {
  WeightSpec part = spec;
  part.experts = spec.experts / std::max<std::int64_t>(spec.sharding.experts.parts, 1);
  part.sharding = {};
  return part;
}

WeightSourcePtr shard_of(WeightSourcePtr source, const WeightSpec& spec, int mesh_row, int mesh_col) {
  const Sharding& s = spec.sharding;
  const std::int64_t matrices = spec.role == WeightRole::experts ? spec.experts : 1;
  const std::int64_t rows = source->rows() / matrices, cols = source->cols();
  weight_shape(spec, source->rows(), cols);  // refuses what does not divide
  if (s.cols.parts > 1) {
    const std::int64_t n = cols / s.cols.parts, begin = n * index_on(s.cols, mesh_row, mesh_col);
    source = slice_cols(std::move(source), begin, begin + n);
  }
  if (s.rows.parts == 1 && s.experts.parts == 1) return source;
  const std::int64_t n = rows / s.rows.parts, begin = n * index_on(s.rows, mesh_row, mesh_col);
  const std::int64_t count = matrices / s.experts.parts,
                     first = count * index_on(s.experts, mesh_row, mesh_col);
  std::vector<std::int64_t> order;
  order.reserve(static_cast<std::size_t>(n * count));
  for (std::int64_t matrix = first; matrix < first + count; ++matrix) {
    for (std::int64_t row = begin; row < begin + n; ++row) order.push_back(matrix * rows + row);
  }
  return gather_rows(std::move(source), std::move(order));
}

}  // namespace ttt::inline v2

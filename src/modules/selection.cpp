#include "ttt/modules/selection.h"

#include <algorithm>
#include <limits>

#include "ttt/ops/ops.h"

namespace ttt::inline v2 {

constexpr float infinity = std::numeric_limits<float>::infinity();

Tensor top_k_mask(const Tensor& x, std::int64_t k) {
  const auto [values, indices] = ops::topk(x, std::min(k, x.dim(3)));
  const auto constant = [&](float value) {
    return from_host(x.device(), std::vector<float>{value}, {1, 1, 1, 1}, DataType::f32);
  };
  const Tensor closed = constant(-infinity);
  const Tensor chosen = ops::where(ops::compare(BinaryOp::gt, values, closed), constant(0), closed);
  return ops::scatter(ops::minimum(x, closed), -1, indices, chosen);
}

Tensor spread_columns(const Tensor& x, std::int64_t count, std::int64_t columns) {
  const std::int64_t n = x.dim(3);
  Tensor wide = ops::repeat(ops::to_contiguous(x).reshape({x.dim(1), x.dim(2), n, 1}), 3, count);
  return ops::slice(wide.reshape({1, x.dim(1), x.dim(2), n * count}), -1, 0, columns);
}

Tensor causal_mask(Device& device, const SequenceRows& rows) {
  const std::int64_t keys = rows.context + rows.count;
  std::vector<float> mask(static_cast<std::size_t>(rows.count * keys));
  for (std::int64_t r = 0; r < rows.count; ++r)
    std::fill(mask.begin() + r * keys + rows.context + r + 1, mask.begin() + (r + 1) * keys, -infinity);
  return from_host(device, mask, {1, 1, rows.count, keys}, DataType::f32);
}

}  // namespace ttt::inline v2

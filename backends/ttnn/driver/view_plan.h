// Views as TTNN can make them. Our views are strides over a buffer; TTNN's tensors have none, so a view
// becomes at most a reshape, a slice, a permute and a reshape of the whole tensor. Pure arithmetic, tested
// without TTNN.
#pragma once

#include <optional>
#include <vector>

#include "ttt/tensor/shape.h"

namespace ttt::inline v2::ttnn {

// The steps, in this order; an unset one is left out.
struct ViewPlan {
  std::optional<Shape> split;       // reshape the whole to this
  std::optional<Shape> begin, end;  // then slice; both or none
  std::vector<int> order;           // then permute
  std::optional<Shape> shape;       // then reshape
  bool empty() const { return !split && !begin && order.empty() && !shape; }
};

// The view (shape, strides, offset) of a row-major tensor of shape `base`. Unset when the view is no box of a
// regrouping of the base's axes, as one with overlapping rows.
std::optional<ViewPlan> plan_view(const Shape& base, const Shape& shape, const Shape& strides,
                                  std::int64_t offset);

}  // namespace ttt::inline v2::ttnn

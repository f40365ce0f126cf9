#include "view_plan.h"

#include <algorithm>
#include <functional>

namespace ttt::inline v2::ttnn {

namespace {

struct Axis {
  std::int64_t extent, stride;
  int position;  // in the view
};

// The extents between neighbouring strides; unset unless each stride divides the one before it.
std::optional<std::vector<std::int64_t>> extents_between(std::int64_t elements,
                                                         const std::vector<std::int64_t>& strides) {
  std::vector<std::int64_t> extents;
  std::int64_t above = elements;
  for (std::int64_t stride : strides) {
    if (stride <= 0 || above % stride != 0) return std::nullopt;
    extents.push_back(above / stride);
    above = stride;
  }
  return extents;
}

std::vector<std::int64_t> sorted(std::vector<std::int64_t> strides) {
  std::sort(strides.begin(), strides.end(), std::greater<>());
  strides.erase(std::unique(strides.begin(), strides.end()), strides.end());
  return strides;
}

bool same_without_ones(const Shape& a, const std::vector<std::int64_t>& b) {
  std::vector<std::int64_t> x, y;
  std::copy_if(a.begin(), a.end(), std::back_inserter(x), [](std::int64_t n) { return n != 1; });
  std::copy_if(b.begin(), b.end(), std::back_inserter(y), [](std::int64_t n) { return n != 1; });
  return x == y;
}

}  // namespace

std::optional<ViewPlan> plan_view(const Shape& base, const Shape& shape, const Shape& strides,
                                  std::int64_t offset) {
  std::vector<Axis> axes;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] != 1) axes.push_back({shape[i], strides[i], i});
  }

  // Where to cut the run of elements: at the strides of the view and, so that a slice of the tensor needs no
  // reshape, at those of the tensor that do not lie inside an axis of the view.
  std::vector<std::int64_t> own = {1};
  for (const Axis& axis : axes) own.push_back(axis.stride);
  std::vector<std::int64_t> all = own;
  std::int64_t step = 1;
  for (int i = base.rank() - 1; i >= 0; --i) {
    const bool inside = std::any_of(axes.begin(), axes.end(), [&](const Axis& a) {
      return a.stride < step && step < a.stride * a.extent;
    });
    if (!inside) all.push_back(step);
    step *= base[i];
  }
  const std::int64_t elements = base.elements();
  std::vector<std::int64_t> cuts = sorted(std::move(all));
  std::optional<std::vector<std::int64_t>> extents = extents_between(elements, cuts);
  if (!extents) {
    cuts = sorted(std::move(own));
    extents = extents_between(elements, cuts);
  }
  if (!extents) return std::nullopt;

  // The box: where it begins along each cut axis and how far it goes.
  const std::size_t n = cuts.size();
  std::vector<std::int64_t> begin(n), count(n, 1);
  std::vector<int> position(n, -1);  // of the view's axis
  for (std::size_t i = 0; i < n; ++i) {
    begin[i] = offset / cuts[i] % (*extents)[i];
    const auto axis =
        std::find_if(axes.begin(), axes.end(), [&](const Axis& a) { return a.stride == cuts[i]; });
    if (axis == axes.end()) continue;
    count[i] = axis->extent;
    position[i] = axis->position;
    axes.erase(axis);
  }
  if (!axes.empty()) return std::nullopt;  // two axes with one stride
  for (std::size_t i = 0; i < n; ++i) {
    if (begin[i] + count[i] > (*extents)[i]) return std::nullopt;
  }

  // The tensor that is sliced: the base itself where only axes of extent 1 tell it from the cut one, else at
  // least rank 4.
  ViewPlan plan;
  Shape parent;
  std::vector<std::size_t> cut_of;  // which cut an axis of the parent is; n: an added axis of extent 1
  if (same_without_ones(base, *extents)) {
    parent = base;
    std::size_t next = 0;
    for (int i = 0; i < base.rank(); ++i) {
      while (next < n && (*extents)[next] == 1) ++next;
      cut_of.push_back(base[i] == 1 ? n : next++);
    }
  } else {
    const std::size_t lead = n < 4 ? 4 - n : 0;
    if (lead + n > Shape::max_rank) return std::nullopt;
    for (std::size_t i = 0; i < lead; ++i) parent.push_back(1), cut_of.push_back(n);
    for (std::size_t i = 0; i < n; ++i) parent.push_back((*extents)[i]), cut_of.push_back(i);
    plan.split = parent;
  }
  Shape first, last;
  bool whole = true;
  for (int i = 0; i < parent.rank(); ++i) {
    const std::size_t cut = cut_of[static_cast<std::size_t>(i)];
    first.push_back(cut < n ? begin[cut] : 0);
    last.push_back(cut < n ? begin[cut] + count[cut] : 1);
    whole = whole && first[i] == 0 && last[i] == parent[i];
  }
  if (!whole) plan.begin = first, plan.end = last;

  // The order of the view's axes; its axes of extent 1 take what is left over where there are as many.
  std::vector<int> order, spare;
  std::vector<int> source(static_cast<std::size_t>(shape.rank()), -1);
  for (int i = 0; i < parent.rank(); ++i) {
    const std::size_t cut = cut_of[static_cast<std::size_t>(i)];
    const int at = cut < n ? position[cut] : -1;
    if (at >= 0) {
      source[static_cast<std::size_t>(at)] = i;
    } else {
      spare.push_back(i);
    }
  }
  const bool same_rank = parent.rank() == shape.rank();
  std::size_t used = 0;
  if (!same_rank) order = spare;
  for (int i : source) {
    if (i < 0 && same_rank) i = spare[used++];
    if (i >= 0) order.push_back(i);
  }
  if (!std::is_sorted(order.begin(), order.end())) plan.order = order;
  Shape result;
  for (int i : order) result.push_back(last[i] - first[i]);
  if (!(result == shape)) plan.shape = shape;
  return plan;
}

}  // namespace ttt::inline v2::ttnn

// How indexers close keys to a query: masks that are added to its scores.
#pragma once

#include "ttt/modules/step.h"

namespace ttt::inline v2 {

// 0 at the k largest values of a row, -infinity elsewhere; never at a value of -infinity. x [1, heads, rows,
// n] f32. Of equal values the first ones are kept.
Tensor top_k_mask(const Tensor& x, std::int64_t k);

// Each column `count` times side by side, of all of them the first `columns`: what holds for blocks, for
// their keys.
Tensor spread_columns(const Tensor& x, std::int64_t count, std::int64_t columns);

// -infinity at keys after a row's own position, else 0: [1, 1, rows, context + rows] f32.
Tensor causal_mask(Device&, const SequenceRows&);

}  // namespace ttt::inline v2

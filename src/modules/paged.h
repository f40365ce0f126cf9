// The rows of a step and paged caches.
#pragma once

#include "ttt/modules/paged_attention.h"

namespace ttt::inline v2 {

// Rows [first, first + count) of x [1, heads, tokens, head_dim].
inline Tensor rows_of(const Tensor& x, const SequenceRows& rows) {
  return x.narrow(2, rows.first, rows.first + rows.count);
}
// The decode rows as decode ops take them: [1, rows, heads, head_dim].
inline Tensor decode_rows_of(const Tensor& x, const Step& step) {
  return x.narrow(2, 0, step.decode_rows).swap_axes(1, 2);
}
// The sequences that bring more than one row.
inline std::span<const SequenceRows> prefill_sequences(const Step& step) {
  const auto decode = static_cast<std::size_t>(step.decode_rows);
  if (decode == step.sequences.size()) return {};
  return std::span(step.sequences).subspan(decode);
}

}  // namespace ttt::inline v2

// The rows of a step and paged caches.
#pragma once

#include "ttt/modules/module.h"

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
  return std::span(step.sequences).subspan(static_cast<std::size_t>(step.decode_rows));
}

// Writes x [1, heads, tokens, head_dim] at the rows' positions.
inline void fill_cache(const Tensor& cache, const Tensor& x, const Step& step) {
  if (step.decode_rows > 0)
    ops::paged_update_cache(cache, decode_rows_of(x, step), step.decode_positions, step.page_table);
  for (const SequenceRows& rows : prefill_sequences(step))
    ops::paged_fill_cache(cache, rows_of(x, rows), step.page_table, rows.page_row, rows.context);
}

}  // namespace ttt::inline v2

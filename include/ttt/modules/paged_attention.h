// What attentions over a paged cache share, for modules that make queries, keys and values themselves.
#pragma once

#include <functional>

#include "ttt/modules/module.h"

namespace ttt::inline v2 {

// Added to the scores of one sequence's rows: [1, 1 or heads, rows, context + rows].
using SequenceMask = std::function<Tensor(const SequenceRows&)>;

struct AttendOptions {
  AttentionAttributes attributes{};  // chunk_start, page_row and program_config are filled in
  SDPAProgramConfig prefill_program{}, decode_program{};
  Tensor sinks{}, alibi_slopes{};  // [1, 1, 1, heads] f32; undefined: none
  SequenceMask mask{};             // unset: none; decode rows take a call each where it is set
};

// Stores k and v at the rows' positions, then softmax(scale q k^T + mask) v of each row over its sequence's
// keys up to itself. q [1, heads, tokens, head_dim], k and v [1, kv_heads, tokens, ..] of all rows of the
// step; k and v undefined: the cache holds them already -> [1, 1, tokens, heads * v_head_dim].
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const KvCache& cache, const Step& step,
              const AttendOptions& options);

// x [1, heads, tokens, width] of all rows of the step into `cache` [blocks, heads, block_size, width], at
// their positions.
void fill_cache(const Tensor& cache, const Tensor& x, const Step& step);

// What `cache` holds of one sequence up to its last row in this step: [1, heads, context + rows, width].
Tensor cached_rows(const Tensor& cache, const Step& step, const SequenceRows& rows);

}  // namespace ttt::inline v2

// What the TTNN backend chooses when a call runs, beyond what its plan says: pure functions, so that the
// planner foresees it.
#pragma once

#include <cstdint>

#include "ttt/hw/program_config.h"
#include "ttt/hw/sku.h"
#include "ttt/tensor/dtype.h"

namespace ttt::inline v2::hw {

// Products of rows with the experts that they chose: a grid whose cores each make as many columns of tiles as
// the others, since the kernel wants every core at work.
MatmulMultiCoreReuseMultiCast1DProgramConfig choose_sparse_matmul(CoreCoord grid, std::int64_t rows,
                                                                  std::int64_t in, std::int64_t out);
// The hidden units that an expert is given: `width` or, where hardly any cores share its tiles evenly, the
// next number whose tiles a quarter of the grid shares. Zeros fill them up and change no result.
std::int64_t choose_expert_width(const Sku&, std::int64_t width);
// How many of `tokens` tokens, each with so many rows of x, one such product takes: the products of all
// experts exist at once, and the kernel holds all rows in L1.
std::int64_t sparse_matmul_tokens(CoreCoord grid, DataType weights, std::int64_t experts, std::int64_t in,
                                  std::int64_t out, std::int64_t tokens, std::int64_t rows_per_token);

// Whether TTNN's nlp_concat_heads has room in L1: a core holds a row of tiles of all heads twice.
bool concat_heads_fits(std::int64_t heads, std::int64_t head_dim, DataType);

// Chunks that divide the position where the queries begin, as the chunked attention kernel wants them.
SDPAProgramConfig chunks_at(SDPAProgramConfig, std::int64_t start);

}  // namespace ttt::inline v2::hw

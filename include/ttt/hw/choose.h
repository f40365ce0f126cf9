// Where tensors lie on a card and how its kernels run: pure functions of what is computed and of the SKU's
// facts, so that every choice can be made, printed and tested without a device. A row of data/tuning that
// matches goes over what is computed here, an override row of the target over both (modules/linear.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/hw/program_config.h"
#include "ttt/hw/sku.h"
#include "ttt/tensor/dtype.h"

namespace ttt::inline v2::hw {

// Placements of a [rows, cols] tensor in tiles. Sharded ones round the shards up to tiles and take as many
// cores as there are shards, from the first core on; Error when the device has too few of them.
MemoryConfig interleaved(BufferType);
MemoryConfig height_sharded(const Sku&, std::int64_t rows, std::int64_t cols, int cores);
MemoryConfig width_sharded(const Sku&, std::int64_t rows, std::int64_t cols, int cores);
MemoryConfig block_sharded(const Sku&, std::int64_t rows, std::int64_t cols, CoreCoord grid);
// Width-sharded over all DRAM banks, as MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig takes its
// weights.
MemoryConfig dram_sharded(const Sku&, std::int64_t rows, std::int64_t cols);
// Whether the placement is the one of dram_sharded().
bool is_dram_sharded(const MemoryConfig&);

// The rectangle of exactly `cores` cores that the grid holds, wide rather than high; unset when there is
// none.
std::optional<CoreCoord> rectangle(CoreCoord grid, int cores);

// x [rows, in] w [in, out].
struct MatmulShape {
  std::int64_t rows = 0, in = 0, out = 0;
  DataType weights = DataType::bf16, activations = DataType::bf16, result = DataType::bf16;
};

// A linear layer's weight: sharded over the DRAM banks where decode can then stream it from all of them at
// once, else interleaved.
MemoryConfig choose_weight_memory(const Sku&, std::int64_t in, std::int64_t out, DataType);

// How one product runs. The kernel takes x placed as `in` (unset: as it comes, interleaved) and leaves the
// product as `product`; `out` is what the next module gets.
struct MatmulPlan {
  std::int64_t rows = 0;  // at most so many
  std::optional<MemoryConfig> in{};
  MemoryConfig product{}, out{};
  MatmulProgramConfig program_config{};  // monostate: TTNN chooses
  bool operator==(const MatmulPlan&) const = default;
};
MatmulPlan choose_matmul(const Sku&, const MatmulShape&, const MemoryConfig& weight,
                         const ComputeKernelConfig&);

// Row counts for which a linear layer keeps a plan, ascending: one tile of rows is decode, the others are
// prefill.
std::vector<std::int64_t> planned_rows();

// FlashAttention-2 over `queries` queries, and flash decoding over a paged cache. On a processor: unset
// fields.
SDPAProgramConfig choose_sdpa(const Sku&, std::int64_t queries, std::int64_t head_dim);
// Attention of one device. v_head_dim: of the values where they are the keys' first columns; 0: head_dim.
struct AttentionShape {
  std::int64_t heads = 1, kv_heads = 1, head_dim = 0, v_head_dim = 0;
  DataType cache = DataType::bf16;
};
SDPAProgramConfig choose_sdpa_decode(const Sku&, const AttentionShape&);
// Bytes of L1 that the circular buffers of attention take on one core, in prefill and in decode.
std::size_t sdpa_l1_bytes(const AttentionShape&, const SDPAProgramConfig&);
std::size_t sdpa_decode_l1_bytes(const Sku&, const AttentionShape&, std::int64_t users,
                                 const SDPAProgramConfig&);

// Bytes of L1 that the circular buffers of a product take on one core.
std::size_t matmul_l1_bytes(const Sku&, const MatmulShape&, const MatmulProgramConfig&,
                            const ComputeKernelConfig&);
// What a core's kernels may use: L1 without what firmware and stacks keep.
std::size_t usable_l1_bytes(const Sku&);

// One row of data/tuning: for products of exactly this size on this SKU ("*": every one) a field has a value,
// written as in override rows. Fields: program_config, in, product, out, weight_memory.
struct TuningRow {
  std::string sku, field, value, source;
  std::int64_t least_rows = 0, most_rows = 0, in = 0, out = 0;
  DataType weights = DataType::bf16;
};
const std::vector<TuningRow>& tuning();  // of data/tuning, built in
std::vector<TuningRow> parse_tuning(std::string_view json, std::string_view origin);  // Error names the row
std::optional<std::string> tuned(const std::vector<TuningRow>&, const Sku&, const MatmulShape&,
                                 std::string_view field);

}  // namespace ttt::inline v2::hw

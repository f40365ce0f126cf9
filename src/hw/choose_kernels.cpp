#include "ttt/hw/choose_kernels.h"

#include <algorithm>

#include "ttt/hw/choose.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2::hw {

namespace {

std::int64_t tiles(std::int64_t n) { return (n + tile_size - 1) / tile_size; }

// The most cores in a rectangle that share `columns` columns of tiles evenly.
CoreCoord dividing_cores(CoreCoord grid, std::int64_t columns) {
  for (int cores = grid.x * grid.y; cores > 1; --cores) {
    if (columns % cores != 0) continue;
    if (const std::optional<CoreCoord> found = rectangle(grid, cores)) return *found;
  }
  return {1, 1};
}

}  // namespace

MatmulMultiCoreReuseMultiCast1DProgramConfig choose_sparse_matmul(CoreCoord grid, std::int64_t rows,
                                                                  std::int64_t in, std::int64_t out) {
  const int columns = static_cast<int>(tiles(out)), depth = static_cast<int>(tiles(in));
  MatmulMultiCoreReuseMultiCast1DProgramConfig config{.per_core_M = static_cast<int>(tiles(rows))};
  config.compute_with_storage_grid_size = dividing_cores(grid, columns);
  config.per_core_N =
      columns / (config.compute_with_storage_grid_size.x * config.compute_with_storage_grid_size.y);
  for (int block : {8, 4, 2}) {
    if (depth % block != 0) continue;
    config.in0_block_w = block;
    break;
  }
  return config;
}

std::int64_t choose_expert_width(const Sku& sku, std::int64_t width) {
  if (sku.arch == Arch::cpu) return width;
  const auto share = [&](std::int64_t columns) {
    const CoreCoord cores = dividing_cores(sku.grid, columns);
    return cores.x * cores.y;
  };
  std::int64_t columns = tiles(width);
  if (columns < sku.grid.x * sku.grid.y / 4 || 4 * share(columns) >= sku.grid.x * sku.grid.y) return width;
  while (4 * share(columns) < sku.grid.x * sku.grid.y) ++columns;
  return columns * tile_size;
}

std::int64_t sparse_matmul_tokens(CoreCoord grid, DataType weights, std::int64_t experts, std::int64_t in,
                                  std::int64_t out, std::int64_t tokens, std::int64_t rows_per_token) {
  // The gather of each token's products keeps its index, four bytes per value and padded to a tile of
  // choices, in L1.
  constexpr std::int64_t most_product_bytes = std::int64_t{256} << 20,
                         most_index_bytes = std::int64_t{16} << 20;
  constexpr std::size_t most_kernel_bytes = 1000 * 1000;
  const std::int64_t most =
      std::min(most_product_bytes / ((tiles(experts) * tile_size) * out * 2 * rows_per_token),
               most_index_bytes / (tile_size * out * 4 * rows_per_token));
  std::int64_t chunk = std::clamp<std::int64_t>(most, 1, tokens);
  const auto kernel_bytes = [&] {
    const std::int64_t rows = chunk * rows_per_token;
    return matmul_l1_bytes(cpu(), {.rows = rows, .in = in, .out = out, .weights = weights},
                           choose_sparse_matmul(grid, rows, in, out), {});
  };
  while (chunk > 1 && kernel_bytes() > most_kernel_bytes) chunk = (chunk + 1) / 2;
  return chunk;
}

bool concat_heads_fits(std::int64_t heads, std::int64_t head_dim, DataType type) {
  const std::size_t tile =
      is_block_float(type) ? tile_bytes(type) : std::size_t{tile_size} * tile_size * element_size(type);
  // Wormhole has less L1 than Blackhole.
  return 2 * static_cast<std::size_t>(heads * tiles(head_dim)) * tile <= usable_l1_bytes(n150());
}

SDPAProgramConfig chunks_at(SDPAProgramConfig config, std::int64_t start) {
  const auto fit = [start](int size) {
    while (size > tile_size && start % size != 0) size /= 2;
    return size;
  };
  config.q_chunk_size = fit(config.q_chunk_size);
  config.k_chunk_size = fit(config.k_chunk_size);
  return config;
}

}  // namespace ttt::inline v2::hw

#include "ttt/hw/choose.h"

#include <algorithm>
#include <numeric>

#include "ttt/base/error.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2::hw {

namespace {

std::int64_t tiles(std::int64_t n) { return (n + tile_size - 1) / tile_size; }
std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t padded(std::int64_t n) { return tiles(n) * tile_size; }

std::size_t tile_size_of(DataType t) {
  return is_block_float(t) ? tile_bytes(t) : std::size_t{tile_size} * tile_size * element_size(t);
}

// Divisors of n that are at most `most`, the largest first.
std::vector<std::int64_t> divisors(std::int64_t n, std::int64_t most) {
  std::vector<std::int64_t> found;
  for (std::int64_t d = std::min(n, most); d >= 1; --d) {
    if (n % d == 0) found.push_back(d);
  }
  return found;
}

MemoryConfig sharded(TensorMemoryLayout layout, BufferType buffer, CoreCoord cores, std::int64_t height,
                     std::int64_t width) {
  return {layout, buffer,
          ShardSpec{.grid = {{0, 0}, {cores.x - 1, cores.y - 1}},
                    .height = static_cast<int>(height),
                    .width = static_cast<int>(width)}};
}

CoreCoord rectangle_or_throw(const Sku& sku, std::int64_t cores) {
  const std::optional<CoreCoord> found = rectangle(sku.grid, static_cast<int>(cores));
  if (!found) {
    throw Error(
        "no rectangle of " + std::to_string(cores) + " cores",
        std::string(sku.name) + " has " + std::to_string(sku.grid.x) + "x" + std::to_string(sku.grid.y),
        "shard over another number of cores");
  }
  return *found;
}

// Destination registers hold eight tiles, four of float32; a sub-block is one row high or as wide as its
// block.
int destination_tiles(const ComputeKernelConfig& compute) { return compute.fp32_dest_acc_en ? 4 : 8; }

struct SubBlock {
  std::int64_t h = 1, w = 1;
};
SubBlock largest_sub_block(std::int64_t height, std::int64_t width, int most) {
  SubBlock best;
  for (std::int64_t w : divisors(width, most)) {
    const std::int64_t h = w == width ? divisors(height, most / w).front() : 1;
    if (h * w > best.h * best.w) best = {h, w};
  }
  return best;
}

// Blocks of the inner dimension, in tiles: more than this saves nothing.
constexpr std::int64_t most_inner_tiles = 8;
// L1 that other tensors may take while a kernel runs: activations of the residual stream that lie there.
constexpr std::size_t spare_l1 = 128 * 1024;
// Of a result, per core: what is larger goes to DRAM.
constexpr std::size_t most_result_bytes = 48 * 1024;
// With fewer cores than this the DRAM-sharded product reads slower than the multicast one.
constexpr std::int64_t least_sharded_cores = 8;

struct DramSharding {
  std::int64_t cores, inner;  // inner: tiles of a block
};

// The shards of x and of the product on one core.
std::size_t shards(const MatmulShape& s, std::int64_t cores) {
  return static_cast<std::size_t>(tiles(s.in) / cores) * tile_size_of(s.activations) +
         static_cast<std::size_t>(tiles(s.out) / cores) * tile_size_of(s.result);
}

// The cores that cut both the inner and the outer tiles evenly, and the largest block that fits L1.
std::optional<DramSharding> dram_sharding(const Sku& sku, std::int64_t in, std::int64_t out, DataType type) {
  if (in % tile_size != 0 || out % tile_size != 0) return std::nullopt;
  const std::int64_t k = tiles(in), n = tiles(out), common = std::gcd(k, n);
  for (std::int64_t cores : divisors(common, std::int64_t{sku.grid.x} * sku.grid.y)) {
    if (cores < least_sharded_cores) break;
    if (!rectangle(sku.grid, static_cast<int>(cores))) continue;
    const MatmulShape shape{.rows = tile_size, .in = in, .out = out, .weights = type};
    for (std::int64_t inner : divisors(k / cores, k)) {
      const MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig program{static_cast<int>(inner), 1,
                                                                          static_cast<int>(n / cores)};
      if (matmul_l1_bytes(sku, shape, program, {}) + shards(shape, cores) + spare_l1 <= usable_l1_bytes(sku))
        return DramSharding{cores, inner};
    }
    return std::nullopt;
  }
  return std::nullopt;
}

// One row of tiles on all cores; x goes to all of them.
MatmulProgramConfig one_dimensional(const Sku& sku, const MatmulShape& s,
                                    const ComputeKernelConfig& compute) {
  const std::int64_t m = tiles(s.rows), k = tiles(s.in), n = tiles(s.out);
  const std::int64_t per_core = ceil_div(n, std::int64_t{sku.grid.x} * sku.grid.y);
  for (std::int64_t width : divisors(per_core, per_core)) {
    for (std::int64_t inner : divisors(k, most_inner_tiles)) {
      const SubBlock sub = largest_sub_block(m, width, destination_tiles(compute));
      const MatmulMultiCoreReuseMultiCast1DProgramConfig program{.compute_with_storage_grid_size = sku.grid,
                                                                 .in0_block_w = static_cast<int>(inner),
                                                                 .out_subblock_h = static_cast<int>(sub.h),
                                                                 .out_subblock_w = static_cast<int>(sub.w),
                                                                 .out_block_h = static_cast<int>(m),
                                                                 .out_block_w = static_cast<int>(width),
                                                                 .per_core_M = static_cast<int>(m),
                                                                 .per_core_N = static_cast<int>(per_core)};
      if (matmul_l1_bytes(sku, s, program, compute) + spare_l1 <= usable_l1_bytes(sku)) return program;
    }
  }
  return {};
}

// Rows over the rows of cores, columns over their columns. Of the output blocks that fit L1 the one that
// reads least per product made, and of these the one with the deepest inner block.
MatmulProgramConfig two_dimensional(const Sku& sku, const MatmulShape& s,
                                    const ComputeKernelConfig& compute) {
  const std::int64_t k = tiles(s.in);
  const std::int64_t per_core_m = ceil_div(tiles(s.rows), sku.grid.y);
  const std::int64_t per_core_n = ceil_div(tiles(s.out), sku.grid.x);
  MatmulProgramConfig best;
  double best_score = -1;
  for (std::int64_t height : divisors(per_core_m, per_core_m)) {
    for (std::int64_t width : divisors(per_core_n, per_core_n)) {
      const SubBlock sub = largest_sub_block(height, width, destination_tiles(compute));
      for (std::int64_t inner : divisors(k, most_inner_tiles)) {
        const MatmulMultiCoreReuseMultiCastProgramConfig program{.compute_with_storage_grid_size = sku.grid,
                                                                 .in0_block_w = static_cast<int>(inner),
                                                                 .out_subblock_h = static_cast<int>(sub.h),
                                                                 .out_subblock_w = static_cast<int>(sub.w),
                                                                 .out_block_h = static_cast<int>(height),
                                                                 .out_block_w = static_cast<int>(width),
                                                                 .per_core_M = static_cast<int>(per_core_m),
                                                                 .per_core_N = static_cast<int>(per_core_n)};
        if (matmul_l1_bytes(sku, s, program, compute) + spare_l1 > usable_l1_bytes(sku)) continue;
        const double score = static_cast<double>(height * width) / static_cast<double>(height + width) *
                             static_cast<double>(inner);
        if (score > best_score) best_score = score, best = program;
        break;
      }
    }
  }
  return best;
}

std::int64_t v_head_dim(const AttentionShape& s) { return s.v_head_dim > 0 ? s.v_head_dim : s.head_dim; }

// The result stays in L1 for the next op of a decode step where it is small.
MemoryConfig small_result(const Sku& sku, const MatmulShape& s) {
  const std::size_t bytes = static_cast<std::size_t>(tiles(s.rows) * tiles(s.out)) * tile_size_of(s.result);
  const auto cores = static_cast<std::size_t>(sku.grid.x) * static_cast<std::size_t>(sku.grid.y);
  return interleaved(bytes / cores <= most_result_bytes ? BufferType::l1 : BufferType::dram);
}

}  // namespace

std::optional<CoreCoord> rectangle(CoreCoord grid, int cores) {
  for (int width = std::min(cores, grid.x); width >= 1; --width) {
    if (cores % width == 0 && cores / width <= grid.y) return CoreCoord{width, cores / width};
  }
  return std::nullopt;
}

MemoryConfig interleaved(BufferType buffer) { return {TensorMemoryLayout::interleaved, buffer, {}}; }

MemoryConfig height_sharded(const Sku& sku, std::int64_t rows, std::int64_t cols, int cores) {
  const std::int64_t height = padded(ceil_div(rows, cores));
  return sharded(TensorMemoryLayout::height_sharded, BufferType::l1,
                 rectangle_or_throw(sku, ceil_div(padded(rows), height)), height, padded(cols));
}

MemoryConfig width_sharded(const Sku& sku, std::int64_t rows, std::int64_t cols, int cores) {
  const std::int64_t width = padded(ceil_div(cols, cores));
  return sharded(TensorMemoryLayout::width_sharded, BufferType::l1,
                 rectangle_or_throw(sku, ceil_div(padded(cols), width)), padded(rows), width);
}

MemoryConfig block_sharded(const Sku& sku, std::int64_t rows, std::int64_t cols, CoreCoord grid) {
  if (grid.x < 1 || grid.y < 1 || grid.x > sku.grid.x || grid.y > sku.grid.y) {
    throw Error(
        "a grid of " + std::to_string(grid.x) + "x" + std::to_string(grid.y) + " cores",
        std::string(sku.name) + " has " + std::to_string(sku.grid.x) + "x" + std::to_string(sku.grid.y));
  }
  return sharded(TensorMemoryLayout::block_sharded, BufferType::l1, grid, padded(ceil_div(rows, grid.y)),
                 padded(ceil_div(cols, grid.x)));
}

MemoryConfig dram_sharded(const Sku& sku, std::int64_t rows, std::int64_t cols) {
  return sharded(TensorMemoryLayout::width_sharded, BufferType::dram, {sku.dram_banks, 1}, padded(rows),
                 ceil_div(tiles(cols), sku.dram_banks) * tile_size);
}

bool is_dram_sharded(const MemoryConfig& memory) {
  return memory.buffer_type == BufferType::dram && memory.memory_layout == TensorMemoryLayout::width_sharded;
}

std::size_t usable_l1_bytes(const Sku& sku) {
  // What TTNN 0.81 keeps at the bottom of L1 for firmware, mailboxes and kernel code.
  const std::size_t reserved = sku.arch == Arch::blackhole ? 111744 : 105824;
  return sku.l1_bytes > reserved ? sku.l1_bytes - reserved : 0;
}

std::size_t matmul_l1_bytes(const Sku& sku, const MatmulShape& s, const MatmulProgramConfig& program,
                            const ComputeKernelConfig& compute) {
  const std::size_t x = tile_size_of(s.activations), w = tile_size_of(s.weights), y = tile_size_of(s.result);
  // Partial sums share the buffer of the result where both have one dtype.
  const DataType partial = compute.fp32_dest_acc_en ? DataType::f32 : DataType::bf16;
  const std::size_t result = y + (partial == s.result ? 0 : tile_size_of(partial));
  const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
  const auto blocked = [&](const auto& c) {
    const int h = c.out_block_h > 0 ? c.out_block_h : c.per_core_M,
              v = c.out_block_w > 0 ? c.out_block_w : c.per_core_N;
    // Operands are read while the previous block is multiplied, if there is one.
    const std::size_t buffers = tiles(s.in) > c.in0_block_w ? 2 : 1;
    return buffers * size(std::int64_t{h} * c.in0_block_w) * x +
           buffers * size(std::int64_t{v} * c.in0_block_w) * w + size(std::int64_t{h} * v) * result;
  };
  if (const auto* c = std::get_if<MatmulMultiCoreReuseMultiCastProgramConfig>(&program)) return blocked(*c);
  if (const auto* c = std::get_if<MatmulMultiCoreReuseMultiCast1DProgramConfig>(&program)) return blocked(*c);
  if (const auto* c = std::get_if<MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig>(&program)) {
    // A reader holds three blocks of its bank's columns, and makes whole sub-blocks of them.
    const std::int64_t bank = ceil_div(tiles(s.out), std::max(1, sku.dram_banks));
    const std::int64_t made = ceil_div(bank, destination_tiles(compute)) * destination_tiles(compute);
    return 3 * size(bank * c->in0_block_w) * w + 2 * size(c->in0_block_w) * x + size(made) * result;
  }
  return 0;
}

MemoryConfig choose_weight_memory(const Sku& sku, std::int64_t in, std::int64_t out, DataType type) {
  if (sku.arch == Arch::cpu) return {};
  const MatmulShape shape{.rows = tile_size, .in = in, .out = out, .weights = type};
  if (const std::optional<std::string> row = tuned(tuning(), sku, shape, "weight_memory"))
    return parse_memory_config(*row);
  return dram_sharding(sku, in, out, type) ? dram_sharded(sku, in, out) : MemoryConfig{};
}

std::vector<std::int64_t> planned_rows() { return {32, 64, 128, 256, 512, 1024, 2048, 4096}; }

MatmulPlan choose_matmul(const Sku& sku, const MatmulShape& s, const MemoryConfig& weight,
                         const ComputeKernelConfig& compute) {
  MatmulPlan plan{.rows = s.rows};
  if (sku.arch == Arch::cpu) return plan;
  const bool decode = s.rows <= tile_size;
  const std::optional<DramSharding> sharding =
      decode && is_dram_sharded(weight) ? dram_sharding(sku, s.in, s.out, s.weights) : std::nullopt;
  if (sharding) {
    const int cores = static_cast<int>(sharding->cores);
    plan.in = width_sharded(sku, s.rows, s.in, cores);
    plan.product = width_sharded(sku, s.rows, s.out, cores);
    plan.program_config = MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig{
        static_cast<int>(sharding->inner), 1, static_cast<int>(tiles(s.out) / cores)};
    plan.out = small_result(sku, s);
  } else if (decode) {
    plan.program_config = one_dimensional(sku, s, compute);
    plan.product = plan.out = small_result(sku, s);
  } else {
    plan.program_config = two_dimensional(sku, s, compute);
  }
  const auto read = [&](std::string_view field, auto& memory) {
    if (const auto row = tuned(tuning(), sku, s, field)) memory = parse_memory_config(*row);
  };
  if (const auto row = tuned(tuning(), sku, s, "program_config")) {
    plan.program_config = parse_program_config(*row);
    const bool needs_shards =
        std::holds_alternative<MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig>(plan.program_config);
    if (!needs_shards) plan.in.reset(), plan.product = plan.out;
  }
  read("in", plan.in), read("product", plan.product), read("out", plan.out);
  return plan;
}

SDPAProgramConfig choose_sdpa(const Sku& sku, std::int64_t queries, std::int64_t head_dim) {
  if (sku.arch == Arch::cpu) return {};
  // Long chunks read the keys less often; wide heads leave room for shorter ones only.
  const int chunk = queries >= 2048 && head_dim <= 128 ? 256 : queries >= 256 && head_dim <= 256 ? 128 : 64;
  return {sku.grid, chunk, chunk, false};
}

// Keys and values twice, in tiles of the cache's.
static std::size_t keys_and_values(const AttentionShape& s, std::int64_t keys) {
  return static_cast<std::size_t>(2 * keys * (tiles(s.head_dim) + tiles(v_head_dim(s)))) *
         tile_size_of(s.cache);
}

// What else TTNN 0.81 holds with float32 accumulation, in tiles of bf16: queries, scores, accumulators.
std::size_t sdpa_l1_bytes(const AttentionShape& s, const SDPAProgramConfig& c) {
  const std::int64_t d = tiles(s.head_dim), v = tiles(v_head_dim(s)), q = tiles(c.q_chunk_size),
                     k = tiles(c.k_chunk_size);
  return static_cast<std::size_t>(2 * q * k + q * (2 * d + 3 * v + 7) + 5) * tile_size_of(DataType::bf16) +
         keys_and_values(s, k);
}

// In decode all heads are the rows of one query, and a core gathers what the others made of its keys.
std::size_t sdpa_decode_l1_bytes(const Sku& sku, const AttentionShape& s, std::int64_t users,
                                 const SDPAProgramConfig& c) {
  const std::int64_t d = tiles(s.head_dim), v = tiles(v_head_dim(s)), q = tiles(s.heads),
                     k = tiles(c.k_chunk_size);
  const std::int64_t cores = std::clamp<std::int64_t>(
      std::int64_t{sku.grid.x} * sku.grid.y / (users * s.kv_heads), 1, c.max_cores_per_head_batch);
  const std::int64_t own = 2 * q * k + q * (2 * d + 5 * v + 11 + (cores - 1) * (v + 2)) + 4;
  return static_cast<std::size_t>(own) * tile_size_of(DataType::bf16) + keys_and_values(s, k);
}

SDPAProgramConfig choose_sdpa_decode(const Sku& sku, const AttentionShape& s) {
  if (sku.arch == Arch::cpu) return {};
  const int longest = s.head_dim <= 128 ? 256 : 128, shortest = 64;
  SDPAProgramConfig config{sku.grid, 32, longest, false};
  for (int cores = config.max_cores_per_head_batch; cores >= 1; cores /= 2) {
    config.max_cores_per_head_batch = cores;
    for (config.k_chunk_size = longest; config.k_chunk_size >= shortest; config.k_chunk_size /= 2) {
      if (sdpa_decode_l1_bytes(sku, s, 1, config) + spare_l1 <= usable_l1_bytes(sku)) return config;
    }
  }
  config.k_chunk_size = tile_size;
  return config;
}

}  // namespace ttt::inline v2::hw

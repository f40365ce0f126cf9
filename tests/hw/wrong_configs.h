// Wrong configurations, each with one mistake: for the planner's own tests and, where TTNN has a call for it,
// for TTNN.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ttt/hw/check.h"

namespace ttt {

struct WrongConfig {
  std::string name;             // the mistake
  std::string text;             // what the message says
  std::function<void()> check;  // must throw
  // The same as a tensor, a product or an attention for n150, so that TTNN can be asked; none: there is no
  // call for it.
  std::optional<TensorSpec> tensor{};
  std::optional<hw::MatmulCheck> product{};
  std::optional<hw::AttentionCheck> attention{};
  std::string accepted_because{};  // set: TTNN or the backend takes it all the same
};

namespace wrong {

inline TensorSpec tiled(std::int64_t rows, std::int64_t cols, DataType dtype = DataType::bf16,
                        const MemoryConfig& memory = {}) {
  return {.shape = {1, 1, rows, cols}, .dtype = dtype, .layout = Layout::tile, .memory = memory};
}

// x [128, 4096] w [4096, 4096] on 8x4 cores.
inline hw::MatmulCheck product_2d() {
  return {
      .x = tiled(128, 4096),
      .w = tiled(4096, 4096, DataType::bfp8_b),
      .y = tiled(128, 4096),
      .program_config = MatmulMultiCoreReuseMultiCastProgramConfig{.compute_with_storage_grid_size = {8, 4},
                                                                   .in0_block_w = 4,
                                                                   .out_subblock_h = 1,
                                                                   .out_subblock_w = 4,
                                                                   .out_block_h = 1,
                                                                   .out_block_w = 16,
                                                                   .per_core_M = 1,
                                                                   .per_core_N = 16}};
}
// x [32, 4096] w [4096, 4096] on 8x8 cores.
inline hw::MatmulCheck product_1d() {
  return {
      .x = tiled(32, 4096),
      .w = tiled(4096, 4096, DataType::bfp8_b),
      .y = tiled(32, 4096),
      .program_config = MatmulMultiCoreReuseMultiCast1DProgramConfig{.compute_with_storage_grid_size = {8, 8},
                                                                     .in0_block_w = 4,
                                                                     .out_subblock_h = 1,
                                                                     .out_subblock_w = 2,
                                                                     .out_block_h = 1,
                                                                     .out_block_w = 2,
                                                                     .per_core_M = 1,
                                                                     .per_core_N = 2}};
}
// x [32, 4096] w [4096, 14336] over the banks, 32 cores.
inline hw::MatmulCheck product_dram_sharded(const Sku& sku = hw::n150()) {
  return {.x = tiled(32, 4096, DataType::bf16, hw::width_sharded(sku, 32, 4096, 32)),
          .w = tiled(4096, 14336, DataType::bfp8_b, hw::dram_sharded(sku, 4096, 14336)),
          .y = tiled(32, 14336, DataType::bf16, hw::width_sharded(sku, 32, 14336, 32)),
          .program_config = MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig{4, 1, 14}};
}
inline hw::AttentionCheck attention() {
  return {.heads = 32,
          .kv_heads = 8,
          .head_dim = 128,
          .queries = 128,
          .start = 128,
          .block_size = 32,
          .program_config = {{8, 8}, 64, 64, false}};
}

}  // namespace wrong

inline std::vector<WrongConfig> wrong_configs() {
  using namespace wrong;
  const Sku& sku = hw::n150();
  std::vector<WrongConfig> all;
  const auto tensor = [&](std::string name, std::string text, const TensorSpec& spec) {
    all.push_back({std::move(name), std::move(text), [=, &sku] { hw::check_tensor(sku, spec); }, spec, {}});
  };
  const auto product = [&](std::string name, std::string text, const hw::MatmulCheck& check) {
    all.push_back({std::move(name), std::move(text), [=, &sku] { hw::check_matmul(sku, check); }, {}, check});
  };
  const auto attend = [&](std::string name, std::string text,
                          const std::function<void(hw::AttentionCheck&)>& spoil) {
    hw::AttentionCheck check = attention();
    spoil(check);
    all.push_back(
        {std::move(name), std::move(text), [=, &sku] { hw::check_attention(sku, check); }, {}, {}, check});
  };
  const auto other = [&](std::string name, std::string text, std::function<void()> check) {
    all.push_back({std::move(name), std::move(text), std::move(check)});
  };

  // Tensors.
  TensorSpec spec = tiled(64, 64, DataType::bfp8_b);
  spec.layout = Layout::row_major;
  tensor("block format in rows", "a block format in rows", spec);
  all.back().accepted_because = "the backend places block formats in tiles";
  const auto placed = [](MemoryConfig memory) { return tiled(32, 4096, DataType::bf16, memory); };
  const MemoryConfig good = hw::width_sharded(sku, 32, 4096, 32);
  MemoryConfig memory = good;
  memory.shard_spec.reset();
  tensor("sharded without shards", "without shards", placed(memory));
  memory = good;
  memory.memory_layout = TensorMemoryLayout::interleaved;
  tensor("interleaved with shards", "with shards", placed(memory));
  all.back().accepted_because = "TTNN does not look at them";
  memory = good;
  memory.shard_spec->grid.end = {15, 1};
  tensor("shards outside of the grid", "shards on core 15,1", placed(memory));
  memory = good;
  memory.shard_spec->grid = {{7, 3}, {0, 0}};
  tensor("cores that end before they begin", "end before they begin", placed(memory));
  memory = good;
  memory.shard_spec->height = 20;
  tensor("shard height in no tiles", "shards of 20 rows", placed(memory));
  memory = good;
  memory.shard_spec->width = 70;
  tensor("shard width in no tiles", "shards of 70 columns", placed(memory));
  memory = good;
  memory.shard_spec->width = 64;
  tensor("too few width shards", "64 width shards on 32 cores", placed(memory));
  tensor("width shards of a higher tensor", "width shards of 32 rows for a tensor of 64",
         tiled(64, 4096, DataType::bf16, good));
  const MemoryConfig heights = hw::height_sharded(sku, 1024, 64, 32);
  tensor("too few height shards", "64 height shards on 32 cores", tiled(2048, 64, DataType::bf16, heights));
  tensor("height shards of a wider tensor", "height shards of 64 columns for a tensor of 128",
         tiled(1024, 128, DataType::bf16, heights));
  tensor("too few block shards", "8x16 block shards on 8x8 cores",
         tiled(4096, 4096, DataType::bf16, hw::block_sharded(sku, 2048, 4096, {8, 8})));
  memory = hw::dram_sharded(sku, 4096, 4096);
  memory.shard_spec->grid.end.x = 15;
  tensor("shards over banks that are not there", "bank 15", tiled(4096, 4096, DataType::bfp8_b, memory));
  tensor("more L1 than there is, interleaved", "bytes of L1",
         tiled(16384, 32768, DataType::bf16, hw::interleaved(BufferType::l1)));
  tensor("more L1 than there is, sharded", "bytes of L1",
         tiled(32, 65536 * 32, DataType::bf16, hw::width_sharded(sku, 32, 65536 * 32, 64)));
  tensor("more DRAM than there is", "of each DRAM bank", tiled(131072, 65536));

  // Matrix products.
  hw::MatmulCheck check = product_2d();
  check.w = tiled(2048, 4096, DataType::bfp8_b);
  product("inner dimensions that differ", "x has 4096 columns, w 2048 rows", check);
  check = product_2d();
  check.w = tiled(4096, 4096);
  check.w.layout = Layout::row_major;
  product("a weight in rows", "a matrix product of rows", check);
  all.back().accepted_because = "the backend makes tiles of it";
  check = product_2d();
  check.w.dtype = DataType::u32;
  product("a weight of integers", "a matrix product of integers", check);
  const auto two = [&](const std::function<void(MatmulMultiCoreReuseMultiCastProgramConfig&)>& spoil) {
    hw::MatmulCheck c = product_2d();
    spoil(std::get<MatmulMultiCoreReuseMultiCastProgramConfig>(c.program_config));
    return c;
  };
  product("a larger compute grid", "a compute grid of 16x16", two([](auto& c) {
            c.compute_with_storage_grid_size = {16, 16};
          }));
  product("in0_block_w", "in0_block_w 5 does not divide the 128 inner tiles",
          two([](auto& c) { c.in0_block_w = 5; }));
  product("a sub-block beyond the destination registers", "the destination registers hold 4 of float32",
          two([](auto& c) { c.out_subblock_w = 16; }));
  product("a sub-block that does not divide its block's width", "out_subblock_w 3 does not divide",
          two([](auto& c) { c.out_subblock_w = 3; }));
  product("a sub-block that does not divide its block's height", "out_subblock_h 2 does not divide",
          two([](auto& c) { c.out_subblock_h = 2, c.out_subblock_w = 2; }));
  product("a block that does not divide a core's share", "does not divide a core's 1x16",
          two([](auto& c) { c.out_block_w = 12; }));
  product("rows that no core makes", "of 8 rows of tiles", [&] {
    hw::MatmulCheck c = product_2d();
    c.x = tiled(256, 4096), c.y = tiled(256, 4096);
    return c;
  }());
  product("columns that no core makes", "of 128 columns of tiles",
          two([](auto& c) { c.per_core_N = c.out_block_w = 12; }));
  product("a core that makes more than there is", "a core makes 4x16 tiles, the product has 1x128", [&] {
    hw::MatmulCheck c = two([](auto& p) { p.per_core_M = 4; });
    c.x = tiled(32, 4096), c.y = tiled(32, 4096);
    return c;
  }());
  product("blocks larger than L1", "bytes of L1", [&] {
    hw::MatmulCheck c = product_2d();
    c.x = tiled(4096, 4096), c.y = tiled(4096, 4096);
    c.program_config = MatmulMultiCoreReuseMultiCastProgramConfig{.compute_with_storage_grid_size = {8, 8},
                                                                  .in0_block_w = 16,
                                                                  .out_subblock_h = 1,
                                                                  .out_subblock_w = 4,
                                                                  .out_block_h = 16,
                                                                  .out_block_w = 16,
                                                                  .per_core_M = 16,
                                                                  .per_core_N = 16};
    return c;
  }());
  const auto one = [&](const std::function<void(MatmulMultiCoreReuseMultiCast1DProgramConfig&)>& spoil) {
    hw::MatmulCheck c = product_1d();
    spoil(std::get<MatmulMultiCoreReuseMultiCast1DProgramConfig>(c.program_config));
    return c;
  };
  product("1D: columns that no core makes", "tiles on each of 64 cores cover 64 of 128",
          one([](auto& c) { c.per_core_N = c.out_block_w = c.out_subblock_w = 1; }));
  product("1D: rows that no core makes", "per_core_M 1 of 4 tiles", [&] {
    hw::MatmulCheck c = product_1d();
    c.x = tiled(128, 4096), c.y = tiled(128, 4096);
    return c;
  }());
  check = product_dram_sharded();
  check.w.memory = {};
  product("DRAM-sharded: an interleaved weight", "the weight is dram interleaved", check);
  check = product_dram_sharded();
  check.x.memory = {};
  product("DRAM-sharded: an interleaved input", "x is dram interleaved", check);
  check = product_dram_sharded();
  check.y.memory = {};
  product("DRAM-sharded: an interleaved result", "the product is dram interleaved", check);
  check = product_dram_sharded();
  check.program_config = MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig{3, 1, 14};
  product("DRAM-sharded: in0_block_w", "in0_block_w 3 does not divide the 4 tiles", check);
  check = product_dram_sharded();
  check.program_config = MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig{4, 1, 10};
  product("DRAM-sharded: columns that no core makes", "of 448 columns of tiles", check);
  all.back().accepted_because = "TTNN 0.81 does not compare them";
  check = product_dram_sharded();
  check.x = tiled(64, 4096, DataType::bf16, hw::width_sharded(sku, 64, 4096, 32));
  check.y = tiled(64, 14336, DataType::bf16, hw::width_sharded(sku, 64, 14336, 32));
  product("DRAM-sharded: more than a tile of rows", "per_core_M 1 for 2 rows of tiles", check);

  // Attention and caches.
  attend("query heads that do not share key heads", "no multiple of key heads",
         [](auto& a) { a.kv_heads = 5; });
  attend("a head of no whole tiles", "a head of 80 dimensions", [](auto& a) { a.head_dim = 80; });
  attend("values of another width", "values of 64 dimensions", [](auto& a) { a.v_head_dim = 64; });
  attend("queries in float32", "attention over f32", [](auto& a) { a.query = DataType::f32; });
  attend("causal with a mask", "causal attention with a mask", [](auto& a) { a.mask = true; });
  attend("cache blocks of no whole tiles", "blocks of 16", [](auto& a) { a.block_size = 16; });
  all.back().accepted_because = "TTNN 0.81 does not look at them; the backend composes";
  attend("attention on a larger grid", "a compute grid of 16x16", [](auto& a) {
    a.program_config.compute_with_storage_grid_size = {16, 16};
  });
  attend("chunks of no whole tiles", "q_chunk_size 48", [](auto& a) { a.program_config.q_chunk_size = 48; });
  attend("a position between chunks", "queries from position 96 on", [](auto& a) { a.start = 96; });
  all.back().accepted_because = "the backend halves the chunks until they divide it";
  attend("chunks larger than L1", "bytes of L1",
         [](auto& a) { a.start = 0, a.program_config.q_chunk_size = a.program_config.k_chunk_size = 2048; });
  const auto latent = [&sku](std::int64_t heads, std::int64_t v_head_dim) {
    hw::check_attention(sku, {.heads = heads,
                              .kv_heads = 1,
                              .head_dim = 576,
                              .v_head_dim = v_head_dim,
                              .queries = 1,
                              .block_size = 32,
                              .decode = true,
                              .latent = true,
                              .program_config = {{8, 8}, 32, 64, false}});
  };
  other("values of a latent in no whole tiles", "values of 500 of the keys' 576 columns",
        [=] { latent(16, 500); });
  other("heads over latents beyond L1", "bytes of L1", [=] { latent(128, 512); });
  other("more users than cores", "more users than cores",
        [&sku] { hw::check_cache_update(sku, 65, 8, 128, DataType::bf16); });
  other("new keys in a block format", "new keys in bfp8_b",
        [&sku] { hw::check_cache_update(sku, 32, 8, 128, DataType::bfp8_b); });

  // Devices.
  other("weights that do not fit", "MiB of DRAM per device",
        [&sku] { hw::check_device_memory(sku, std::size_t{141} << 30); });
  other("a mesh that is not there", "a mesh of 1x2", [&sku] { hw::check_mesh(sku, {1, 2}); });
  other("a scatter that cuts tiles", "each part must be whole tiles", [] { hw::check_scatter(96, 2); });
  return all;
}

}  // namespace ttt

#include "ttt/hw/choose.h"

#include <gtest/gtest.h>

#include "ttt/base/error.h"
#include "ttt/hw/check.h"
#include "ttt/hw/choose_kernels.h"

namespace ttt {
namespace {

struct Size {
  std::int64_t in, out;
};

// Linear layers of decoders from 135 M to 671 B parameters, output heads among them, and two of no whole
// tiles.
constexpr Size sizes[] = {{576, 960},     {576, 1536},    {2048, 3072},   {2048, 8192},  {8192, 2048},
                          {2048, 128256}, {3584, 18944},  {4096, 6144},   {4096, 14336}, {14336, 4096},
                          {4096, 128256}, {8192, 10240},  {8192, 28672},  {28672, 8192}, {8192, 29568},
                          {29568, 8192},  {5120, 151936}, {2560, 262208}, {5376, 21504}, {2880, 201088},
                          {4096, 2880},   {7168, 2112},   {7168, 18432},  {100, 70},     {2049, 4097}};
constexpr DataType weight_types[] = {DataType::bf16, DataType::bfp8_b, DataType::bfp4_b};

TensorSpec spec(std::int64_t rows, std::int64_t cols, DataType dtype, const MemoryConfig& memory) {
  return {.shape = {1, 1, rows, cols}, .dtype = dtype, .memory = memory};
}

// What is chosen is never what the planner refuses; tests/ttnn asks TTNN.
TEST(Choose, EveryChoiceIsValid) {
  for (const Sku* sku : hw::all()) {
    if (sku->arch == Arch::cpu) continue;
    for (const Size& size : sizes) {
      for (DataType weights : weight_types) {
        const MemoryConfig memory = hw::choose_weight_memory(*sku, size.in, size.out, weights);
        for (std::int64_t rows : hw::planned_rows()) {
          const ComputeKernelConfig compute{};
          const hw::MatmulPlan plan = hw::choose_matmul(
              *sku, {.rows = rows, .in = size.in, .out = size.out, .weights = weights}, memory, compute);
          EXPECT_EQ(plan.rows, rows);
          EXPECT_NO_THROW(hw::check_matmul(
              *sku, {.x = spec(rows, size.in, DataType::bf16, plan.in.value_or(MemoryConfig{})),
                     .w = spec(size.in, size.out, weights, memory),
                     .y = spec(rows, size.out, DataType::bf16, plan.product),
                     .program_config = plan.program_config,
                     .compute_kernel_config = compute}))
              << sku->name << " " << rows << " " << size.in << "x" << size.out << " " << name(weights);
        }
      }
    }
  }
}

TEST(Choose, DecodeStreamsWeightsFromAllBanks) {
  const MemoryConfig memory = hw::choose_weight_memory(hw::n150(), 4096, 14336, DataType::bfp8_b);
  EXPECT_EQ(to_string(memory), "dram width_sharded 12x1 [4096, 1216]");
  const hw::MatmulPlan plan = hw::choose_matmul(
      hw::n150(), {.rows = 32, .in = 4096, .out = 14336, .weights = DataType::bfp8_b}, memory, {});
  EXPECT_EQ(
      to_string(plan.program_config),
      "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(in0_block_w=2, per_core_M=1, per_core_N=7)");
  EXPECT_EQ(to_string(*plan.in), "l1 width_sharded 8x8 [32, 64]");
  EXPECT_EQ(to_string(plan.product), "l1 width_sharded 8x8 [32, 224]");
  EXPECT_EQ(to_string(plan.out), "l1 interleaved");
}

// 29,568 = 924 tiles: with the 256 inner tiles of 8,192 it has four cores in common, too few.
TEST(Choose, WithoutCommonCoresAWeightIsInterleavedAndMulticast) {
  const MemoryConfig memory = hw::choose_weight_memory(hw::n150(), 8192, 29568, DataType::bfp4_b);
  EXPECT_EQ(memory, MemoryConfig{});
  const hw::MatmulPlan plan = hw::choose_matmul(
      hw::n150(), {.rows = 1, .in = 8192, .out = 29568, .weights = DataType::bfp4_b}, memory, {});
  EXPECT_TRUE(std::holds_alternative<MatmulMultiCoreReuseMultiCast1DProgramConfig>(plan.program_config));
  EXPECT_FALSE(plan.in);
}

TEST(Choose, PrefillIsTwoDimensional) {
  for (std::int64_t rows : {64, 128, 2048}) {
    const hw::MatmulPlan plan =
        hw::choose_matmul(hw::p150(), {.rows = rows, .in = 4096, .out = 14336, .weights = DataType::bfp8_b},
                          MemoryConfig{}, {});
    const auto* config = std::get_if<MatmulMultiCoreReuseMultiCastProgramConfig>(&plan.program_config);
    ASSERT_NE(config, nullptr);
    EXPECT_EQ(config->compute_with_storage_grid_size, hw::p150().grid);
  }
}

TEST(Choose, DestinationRegistersBoundTheSubBlock) {
  const hw::MatmulShape shape{.rows = 2048, .in = 4096, .out = 4096};
  const auto volume = [&](bool fp32) {
    ComputeKernelConfig compute;
    compute.fp32_dest_acc_en = fp32;
    const auto plan = hw::choose_matmul(hw::n150(), shape, MemoryConfig{}, compute);
    const auto& c = std::get<MatmulMultiCoreReuseMultiCastProgramConfig>(plan.program_config);
    return c.out_subblock_h * c.out_subblock_w;
  };
  EXPECT_EQ(volume(true), 4);
  EXPECT_EQ(volume(false), 8);
}

TEST(Choose, NothingOnAProcessor) {
  EXPECT_EQ(hw::choose_weight_memory(hw::cpu(), 4096, 4096, DataType::bf16), MemoryConfig{});
  EXPECT_EQ(hw::choose_matmul(hw::cpu(), {.rows = 32, .in = 64, .out = 64}, {}, {}).program_config,
            MatmulProgramConfig{});
  EXPECT_EQ(hw::choose_sdpa(hw::cpu(), 128, 64), SDPAProgramConfig{});
}

TEST(Choose, AttentionTakesShorterChunksForWiderHeads) {
  EXPECT_EQ(hw::choose_sdpa(hw::n150(), 2048, 128).q_chunk_size, 256);
  EXPECT_EQ(hw::choose_sdpa(hw::n150(), 2048, 256).q_chunk_size, 128);
  EXPECT_EQ(hw::choose_sdpa(hw::n150(), 32, 128).q_chunk_size, 64);
  const hw::AttentionShape grouped{.heads = 32, .kv_heads = 8, .head_dim = 128};
  EXPECT_EQ(hw::choose_sdpa_decode(hw::p150(), grouped),
            (SDPAProgramConfig{hw::p150().grid, 32, 256, false}));
  // The latents of 128 heads fill L1: fewer cores share a user, so that there is less to gather.
  hw::AttentionShape latent{.heads = 16, .head_dim = 576, .v_head_dim = 512, .cache = DataType::bfp8_b};
  EXPECT_EQ(hw::choose_sdpa_decode(hw::n150(), latent).max_cores_per_head_batch, 16);
  latent.heads = 128;
  EXPECT_EQ(hw::choose_sdpa_decode(hw::n150(), latent),
            (SDPAProgramConfig{hw::n150().grid, 32, 64, false, 1}));
}

TEST(Choose, ExpertsOfAPrimeNumberOfTilesGetMore) {
  EXPECT_EQ(hw::choose_expert_width(hw::n150(), 7688), 245 * 32);  // 241 tiles; 49 cores share 245
  EXPECT_EQ(hw::choose_expert_width(hw::cpu(), 7688), 7688);
  for (const std::int64_t fits : {768, 2880, 14336, 100})
    EXPECT_EQ(hw::choose_expert_width(hw::n150(), fits), fits);
  const auto program = hw::choose_sparse_matmul(hw::n150().grid, 32, 4096, 245 * 32);
  EXPECT_EQ(program.compute_with_storage_grid_size, (CoreCoord{7, 7}));
  EXPECT_EQ(program.per_core_N, 5);
}

TEST(Shards, AreWholeTilesOnAsManyCoresAsThereAreShards) {
  EXPECT_EQ(to_string(hw::height_sharded(hw::n150(), 1000, 64, 16)), "l1 height_sharded 8x2 [64, 64]");
  EXPECT_EQ(to_string(hw::width_sharded(hw::n150(), 1, 4096, 40)), "l1 width_sharded 8x4 [32, 128]");
  EXPECT_EQ(to_string(hw::block_sharded(hw::n150(), 2048, 4096, {8, 4})), "l1 block_sharded 8x4 [512, 512]");
  EXPECT_EQ(to_string(hw::dram_sharded(hw::p150(), 4096, 14336)), "dram width_sharded 8x1 [4096, 1792]");
  EXPECT_THROW(hw::width_sharded(hw::n150(), 32, 32 * 67, 67), Error);
  EXPECT_THROW(hw::block_sharded(hw::n150(), 32, 32, {9, 1}), Error);
  EXPECT_FALSE(hw::rectangle(hw::n150().grid, 13));
  EXPECT_EQ(hw::rectangle(hw::p150().grid, 110), (CoreCoord{11, 10}));
}

TEST(Tuning, TheBuiltInRowGoesOverWhatIsComputed) {
  ASSERT_FALSE(hw::tuning().empty());
  const hw::MatmulShape shape{.rows = 128, .in = 4096, .out = 6144, .weights = DataType::bfp8_b};
  const hw::MatmulPlan plan = hw::choose_matmul(hw::n150(), shape, MemoryConfig{}, {});
  EXPECT_EQ(std::get<MatmulMultiCoreReuseMultiCastProgramConfig>(plan.program_config)
                .compute_with_storage_grid_size,
            (CoreCoord{8, 4}));
  // Another SKU, another size or another number of rows is computed.
  for (const auto& [sku, rows, out] :
       {std::tuple{&hw::n300(), 128, 6144}, {&hw::n150(), 256, 6144}, {&hw::n150(), 128, 4096}}) {
    hw::MatmulShape other = shape;
    other.rows = rows, other.out = out;
    const auto config = hw::choose_matmul(*sku, other, MemoryConfig{}, {}).program_config;
    EXPECT_EQ(std::get<MatmulMultiCoreReuseMultiCastProgramConfig>(config).compute_with_storage_grid_size,
              sku->grid);
  }
}

TEST(Tuning, EveryBuiltInRowIsValid) {
  for (const hw::TuningRow& row : hw::tuning()) {
    if (row.field != "program_config") continue;
    const Sku& sku = row.sku == "*" ? hw::n150() : hw::find(row.sku);
    EXPECT_NO_THROW(hw::check_matmul(sku, {.x = spec(row.most_rows, row.in, DataType::bf16, {}),
                                           .w = spec(row.in, row.out, row.weights, {}),
                                           .y = spec(row.most_rows, row.out, DataType::bf16, {}),
                                           .program_config = parse_program_config(row.value)}))
        << row.value;
  }
}

TEST(Tuning, LaterRowsWinAndMistakesAreNamed) {
  const auto row = [](const char* out) {
    return std::string(
               R"({"sku": "*", "rows": [1, 32], "in": 64, "out": 128, "weights": "bf16", "field": "out", "value": ")") +
           out + "\"}";
  };
  const auto rows =
      hw::parse_tuning("[" + row("l1 interleaved") + ", " + row("dram interleaved") + "]", "mine");
  const hw::MatmulShape shape{.rows = 32, .in = 64, .out = 128};
  EXPECT_EQ(hw::tuned(rows, hw::p100(), shape, "out"), "dram interleaved");
  EXPECT_FALSE(hw::tuned(rows, hw::p100(), shape, "in"));
  for (
      const char* bad :
      {"{", "{}", "[1]", R"([{"sku": "n150"}])", R"([{"skew": "n150"}])",
       R"([{"sku": "n151", "rows": [1, 2], "in": 1, "out": 1, "weights": "bf16", "field": "out", "value": "l1 interleaved"}])",
       R"([{"sku": "*", "rows": [1], "in": 1, "out": 1, "weights": "bf16", "field": "out", "value": "l1 interleaved"}])",
       R"([{"sku": "*", "rows": [1, 2], "in": 0, "out": 1, "weights": "bf16", "field": "out", "value": "l1 interleaved"}])",
       R"([{"sku": "*", "rows": [1, 2], "in": 1, "out": 1, "weights": "bf17", "field": "out", "value": "l1 interleaved"}])",
       R"([{"sku": "*", "rows": [1, 2], "in": 1, "out": 1, "weights": "bf16", "field": "speed", "value": "l1 interleaved"}])",
       R"([{"sku": "*", "rows": [1, 2], "in": 1, "out": 1, "weights": "bf16", "field": "out", "value": "l2"}])"}) {
    EXPECT_THROW(hw::parse_tuning(bad, "mine"), Error) << bad;
  }
}

}  // namespace
}  // namespace ttt

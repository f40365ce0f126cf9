#include "ttt/hw/sku.h"

#include <gtest/gtest.h>

#include <set>

#include "ttt/base/error.h"
#include "ttt/hw/program_config.h"

namespace ttt {
namespace {

TEST(Sku, EveryOneIsFoundByItsName) {
  std::set<std::string_view> names;
  for (const Sku* sku : hw::all()) {
    EXPECT_EQ(&hw::find(sku->name), sku);
    EXPECT_TRUE(names.insert(sku->name).second);
    EXPECT_FALSE(sku->description.empty());
    EXPECT_GT(sku->dram_bytes, 0u) << sku->name;
    if (sku->arch == Arch::cpu) continue;
    EXPECT_GT(sku->l1_bytes, 1u << 20) << sku->name;
    EXPECT_GT(sku->dram_bandwidth, 100e9) << sku->name;
    EXPECT_GT(sku->tflops_lofi, 200) << sku->name;
    EXPECT_EQ(sku->mesh.devices() > 1, sku->links > 0) << sku->name;
    EXPECT_EQ(sku->links > 0, sku->link_bandwidth > 0) << sku->name;
  }
  EXPECT_EQ(names.size(), 9u);
  try {
    hw::find("n151");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "unknown SKU \"n151\", use one of n150, n300, t3k, galaxy, p100, p150, p150x4, p150x8, cpu");
  }
}

// Published figures of the cards and systems.
TEST(Sku, PublishedFigures) {
  EXPECT_EQ(hw::n150().dram_bytes, std::size_t{12} << 30);
  EXPECT_EQ(hw::n150().dram_bandwidth, 288e9);
  EXPECT_NEAR(hw::n150().tflops_lofi, 262, 1);
  EXPECT_EQ(hw::n300().mesh.devices(), 2);
  EXPECT_EQ(hw::t3k().mesh, (Mesh{2, 4}));
  EXPECT_EQ(hw::galaxy().mesh.devices(), 32);
  EXPECT_EQ(hw::p100().dram_bytes, std::size_t{28} << 30);
  EXPECT_EQ(hw::p100().dram_bandwidth, 448e9);
  EXPECT_EQ(hw::p150().dram_bandwidth, 512e9);
  EXPECT_EQ(hw::p150x8().mesh.devices(), 8);
  EXPECT_EQ(hw::p150().grid, (CoreCoord{11, 10}));
}

TEST(Sku, PeakFallsWithThePassesOverTheMultiplier) {
  for (const Sku* sku : hw::all()) {
    EXPECT_EQ(peak_tflops(*sku, MathFidelity::lofi), sku->tflops_lofi);
    EXPECT_EQ(peak_tflops(*sku, MathFidelity::hifi2), sku->tflops_lofi / 2);
    EXPECT_EQ(peak_tflops(*sku, MathFidelity::hifi4), sku->tflops_lofi / 4);
  }
  EXPECT_EQ(name(hw::t3k().topology), "ring");
  EXPECT_EQ(name(hw::n300().topology), "linear");
  EXPECT_EQ(name(hw::p150().arch), "blackhole");
}

TEST(Mesh, IsReadAndWritten) {
  EXPECT_EQ(parse_mesh("2x4"), (Mesh{2, 4}));
  EXPECT_EQ(to_string(parse_mesh("64x64")), "64x64");
  for (const char* bad :
       {"", "2", "x", "2x", "x4", "0x4", "2x65", "-1x2", "2x4x1", "2X4", " 2x4", "99999999999x1"}) {
    EXPECT_THROW(parse_mesh(bad), Error) << bad;
  }
}

TEST(ProgramConfig, TextIsReadBack) {
  const MatmulProgramConfig configs[] = {
      MatmulProgramConfig{},
      MatmulMultiCoreReuseMultiCastProgramConfig{{8, 4}, 4, 1, 4, 1, 8, 1, 16, true},
      MatmulMultiCoreReuseMultiCast1DProgramConfig{{8, 8}, 4, 1, 2, 0, 0, 1, 2, false},
      MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig{3, 1, 7},
  };
  for (const MatmulProgramConfig& c : configs)
    EXPECT_EQ(parse_program_config(to_string(c)), c) << to_string(c);
  EXPECT_EQ(
      to_string(configs[3]),
      "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(in0_block_w=3, per_core_M=1, per_core_N=7)");
  EXPECT_EQ(parse_program_config(
                "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig( per_core_N = 7,in0_block_w=3)"),
            configs[3]);
  const std::string type = "MatmulMultiCoreReuseMultiCast1DProgramConfig";
  for (const std::string& bad : {std::string(), std::string("Matmul()"), type, type + "(",
                                 type + "(in0_block_w=0)", type + "(in0_block_w)", type + "(speed=3)",
                                 type + "(mcast_in0=yes)", type + "(compute_with_storage_grid_size=8)"}) {
    EXPECT_THROW(parse_program_config(bad), Error) << bad;
  }
  EXPECT_EQ(to_string(ComputeKernelConfig{}), "hifi2 fp32_dest_acc packer_l1_acc");
  for (const char* f : {"lofi", "hifi2", "hifi3", "hifi4"}) EXPECT_EQ(name(parse_math_fidelity(f)), f);
  EXPECT_THROW(parse_math_fidelity("hifi5"), Error);
}

}  // namespace
}  // namespace ttt

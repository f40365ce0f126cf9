// Every configuration that TTNN would refuse is refused here first; tests/ttnn asks TTNN itself about the
// same list.
#include "ttt/hw/check.h"

#include <gtest/gtest.h>

#include "hw/wrong_configs.h"
#include "ttt/base/error.h"

namespace ttt {
namespace {

TEST(Check, EveryWrongConfigurationIsRefusedInWordsThatNameIt) {
  std::size_t kinds = 0;
  for (const WrongConfig& wrong : wrong_configs()) {
    ++kinds;
    try {
      wrong.check();
      ADD_FAILURE() << wrong.name << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(wrong.text), std::string::npos)
          << wrong.name << ": " << error.what();
      EXPECT_FALSE(error.fix().empty()) << wrong.name;
    }
  }
  EXPECT_GE(kinds, 24u);
}

// The same products and tensors with the mistake put right.
TEST(Check, TheirRightFormsAreAccepted) {
  for (const Sku* sku : hw::all()) {
    if (sku->arch == Arch::cpu) continue;
    EXPECT_NO_THROW(hw::check_tensor(*sku, wrong::tiled(32, 4096)));
    EXPECT_NO_THROW(hw::check_tensor(
        *sku, wrong::tiled(32, 4096, DataType::bf16, hw::width_sharded(*sku, 32, 4096, 32))));
    EXPECT_NO_THROW(hw::check_tensor(
        *sku, wrong::tiled(2048, 4096, DataType::bf16, hw::block_sharded(*sku, 2048, 4096, {8, 8}))));
    EXPECT_NO_THROW(hw::check_tensor(
        *sku, wrong::tiled(1024, 64, DataType::bf16, hw::height_sharded(*sku, 1024, 64, 32))));
    EXPECT_NO_THROW(hw::check_tensor(
        *sku, wrong::tiled(4096, 14336, DataType::bfp8_b, hw::dram_sharded(*sku, 4096, 14336))));
    EXPECT_NO_THROW(hw::check_matmul(*sku, wrong::product_2d()));
    EXPECT_NO_THROW(hw::check_matmul(*sku, wrong::product_1d()));
    EXPECT_NO_THROW(hw::check_matmul(*sku, wrong::product_dram_sharded(*sku)));
    EXPECT_NO_THROW(hw::check_attention(*sku, wrong::attention()));
    EXPECT_NO_THROW(hw::check_cache_update(*sku, 32, 8, 128, DataType::bf16));
    EXPECT_NO_THROW(hw::check_device_memory(*sku, hw::usable_dram_bytes(*sku)));
    EXPECT_THROW(hw::check_device_memory(*sku, sku->dram_bytes), Error);
    EXPECT_NO_THROW(hw::check_mesh(*sku, sku->mesh));
  }
  EXPECT_NO_THROW(hw::check_scatter(4096, 8));
}

}  // namespace
}  // namespace ttt

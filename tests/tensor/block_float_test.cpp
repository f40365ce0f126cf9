#include "ttt/tensor/block_float.h"
#include "paths.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>

#include "ttt/base/error.h"

namespace ttt {
namespace {

// One case of tools/make_bfp_goldens.py: what TTNN's packer and unpacker make of x.
struct Golden {
  int rows = 0, cols = 0;
  std::vector<float> x;
  std::vector<std::uint8_t> packed[2];
  std::vector<float> values[2];
};

Golden load(const std::string& name) {
  std::ifstream file(ttt::test::source_dir() + "/tests/tensor/data/block_float/" + name + ".bin",
                     std::ios::binary);
  EXPECT_TRUE(file) << name;
  Golden g;
  std::int32_t extents[2] = {};
  file.read(reinterpret_cast<char*>(extents), sizeof extents);
  g.rows = extents[0], g.cols = extents[1];
  const auto n = static_cast<std::size_t>(g.rows) * static_cast<std::size_t>(g.cols);
  g.x.resize(n);
  file.read(reinterpret_cast<char*>(g.x.data()), static_cast<std::streamsize>(4 * n));
  for (int i = 0; i < 2; ++i) {
    g.packed[i].resize(n / 1024 * tile_bytes(i == 0 ? DataType::bfp8_b : DataType::bfp4_b));
    file.read(reinterpret_cast<char*>(g.packed[i].data()), static_cast<std::streamsize>(g.packed[i].size()));
  }
  for (auto& values : g.values) {
    std::vector<std::uint16_t> words(n);
    file.read(reinterpret_cast<char*>(words.data()), static_cast<std::streamsize>(2 * n));
    for (std::uint16_t w : words) values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(w) << 16));
  }
  EXPECT_TRUE(file) << name;
  EXPECT_EQ(file.peek(), EOF);
  return g;
}

class BlockFloatGolden : public testing::TestWithParam<const char*> {};

TEST_P(BlockFloatGolden, EveryByteAndValueIsTtnns) {
  const Golden g = load(GetParam());
  for (int i = 0; i < 2; ++i) {
    const DataType type = i == 0 ? DataType::bfp8_b : DataType::bfp4_b;
    EXPECT_EQ(pack_tiles(g.x, g.rows, g.cols, type), g.packed[i]) << name(type);
    const std::vector<float> values = unpack_tiles(g.packed[i], g.rows, g.cols, type);
    ASSERT_EQ(values.size(), g.values[i].size());
    EXPECT_EQ(std::memcmp(values.data(), g.values[i].data(), 4 * values.size()), 0) << name(type);
    std::vector<float> rounded = g.x;
    round_to_block_float(rounded, g.rows, g.cols, type);
    EXPECT_EQ(std::memcmp(rounded.data(), g.values[i].data(), 4 * values.size()), 0) << name(type);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BlockFloatGolden,
                         testing::Values("normal_64x64", "wide_exponents", "zeros_negzero", "ties",
                                         "ties_neg", "saturate", "sticky", "denormals", "large", "inf_nan"),
                         [](const auto& golden) { return std::string(golden.param); });

// The rules as the header states them, in integers and one value at a time.
BlockFloat16 by_the_rules(const float* values, int bits) {
  BlockFloat16 block;
  std::uint32_t shared = 0;
  for (int i = 0; i < 16; ++i) shared = std::max(shared, std::bit_cast<std::uint32_t>(values[i]) >> 23 & 255);
  for (int i = 0; i < 16; ++i) {
    const auto word = std::bit_cast<std::uint32_t>(values[i]);
    const std::uint32_t exponent = word >> 23 & 255;
    if (exponent == 0) continue;
    const std::uint64_t mantissa =
        shared - exponent > 31 ? 0 : ((word & 0x7FFFFF) | 0x800000) >> (shared - exponent);
    const int shift = 24 - bits;
    std::uint64_t q = mantissa >> shift;
    const std::uint64_t low = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
    if (low > half || (low == half && (q & 1))) ++q;
    q = std::min<std::uint64_t>(q, (1u << bits) - 1);
    block.values[i] = static_cast<std::uint8_t>(q == 0 ? 0 : q | (word >> 31) << bits);
  }
  block.exponent = static_cast<std::uint8_t>(shared);
  return block;
}

TEST(BlockFloat, RandomBitPatternsFollowTheRules) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    float values[16];
    const std::uint32_t spread = random() % 40, base = random() % 256;
    for (float& v : values) {
      const std::uint32_t exponent = std::min<std::uint32_t>(255, base + random() % (spread + 1));
      v = std::bit_cast<float>(static_cast<std::uint32_t>(random() & 0x807FFFFFu) | exponent << 23);
    }
    for (DataType type : {DataType::bfp8_b, DataType::bfp4_b}) {
      const BlockFloat16 got = encode_block(values, type),
                         expected = by_the_rules(values, type == DataType::bfp8_b ? 7 : 3);
      ASSERT_EQ(got.exponent, expected.exponent) << round;
      ASSERT_EQ(std::memcmp(got.values, expected.values, 16), 0) << round << " " << name(type);
    }
  }
}

TEST(BlockFloat, EveryExponentRoundsTrip) {
  for (int exponent = 1; exponent < 255; ++exponent) {
    for (DataType type : {DataType::bfp8_b, DataType::bfp4_b}) {
      BlockFloat16 block;
      block.exponent = static_cast<std::uint8_t>(exponent);
      const int bits = type == DataType::bfp8_b ? 7 : 3;
      float values[16];
      for (int i = 0; i < 16; ++i)
        block.values[i] = static_cast<std::uint8_t>(((1 << bits) - 1 - i % (1 << bits)) | (i % 2) << bits);
      decode_block(block, type, values);
      for (int i = 0; i < 16; ++i) {
        const double magnitude = block.values[i] & ((1 << bits) - 1);
        const double sign = block.values[i] >> bits ? -1 : 1;
        EXPECT_EQ(values[i], static_cast<float>(sign * magnitude * std::exp2(exponent - 127 - (bits - 1))));
      }
    }
  }
}

TEST(BlockFloat, PadsWithZeros) {
  const int rows = 33, cols = 17;
  std::vector<float> x(static_cast<std::size_t>(rows * cols), 1.5f);
  for (DataType type : {DataType::bfp8_b, DataType::bfp4_b}) {
    const std::vector<std::uint8_t> packed = pack_tiles(x, rows, cols, type);
    ASSERT_EQ(packed.size(), 2 * tile_bytes(type));
    EXPECT_EQ(packed_bytes(rows, cols, type), packed.size());
    EXPECT_EQ(unpack_tiles(packed, rows, cols, type), x);
    const std::vector<float> whole = unpack_tiles(packed, 64, 32, type);
    for (int r = 0; r < 64; ++r) {
      for (int c = 0; c < 32; ++c)
        EXPECT_EQ(whole[static_cast<std::size_t>(r * 32 + c)], r < rows && c < cols ? 1.5f : 0.0f);
    }
  }
  EXPECT_EQ(packed_bytes(0, 5, DataType::bfp8_b), 0u);
  EXPECT_TRUE(pack_tiles({}, 0, 5, DataType::bfp8_b).empty());
}

TEST(BlockFloat, RefusesWhatDoesNotFit) {
  const std::vector<float> x(12);
  EXPECT_THROW(pack_tiles(x, 3, 5, DataType::bfp8_b), Error);
  EXPECT_THROW(pack_tiles(x, -3, -4, DataType::bfp8_b), Error);
  EXPECT_THROW(pack_tiles(x, 3, 4, DataType::bf16), Error);
  EXPECT_THROW(unpack_tiles(std::vector<std::uint8_t>(1087), 32, 32, DataType::bfp8_b), Error);
  EXPECT_THROW(packed_bytes(std::int64_t{1} << 62, 1, DataType::bfp8_b), Error);
  EXPECT_THROW(packed_bytes(std::int64_t{1} << 40, std::int64_t{1} << 40, DataType::bfp8_b), Error);
  std::vector<float> y(12);
  EXPECT_THROW(round_to_block_float(y, 4, 4, DataType::bfp4_b), Error);
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(BFloat16(1.0f).bits, 0x3F80);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3F808000u)).bits, 0x3F80);  // tie to even
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3F818000u)).bits, 0x3F82);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3F808001u)).bits, 0x3F81);
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_EQ(BFloat16(-0.0f).bits, 0x8000);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::bit_cast<float>(0x7F800001u)))));
}

}  // namespace
}  // namespace ttt

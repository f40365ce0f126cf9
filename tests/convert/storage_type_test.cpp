#include "ttt/convert/storage_type.h"
#include "paths.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "convert/files.h"
#include "ttt/convert/safetensors.h"

namespace ttt {
namespace {

const std::string data_folder = ttt::test::source_dir() + "/tests/convert/data";

std::vector<StorageType> quantised_types() {
  std::vector<StorageType> types;
  for (int t = static_cast<int>(StorageType::q4_0); t <= static_cast<int>(StorageType::nvfp4); ++t)
    types.push_back(static_cast<StorageType>(t));
  return types;
}

class GgmlType : public ::testing::TestWithParam<StorageType> {};

TEST_P(GgmlType, EqualsTheReferenceBitByBit) {
  const SafetensorsFile golden = SafetensorsFile::open(data_folder + "/ggml.safetensors");
  const std::string kind(name(GetParam()));
  const SafetensorsTensor* stored = golden.find(kind + ".bytes");
  ASSERT_NE(stored, nullptr) << kind;
  const std::vector<float> expected = golden.floats(kind + ".values");
  const BlockSize block = block_size(GetParam());
  ASSERT_EQ(stored->bytes / static_cast<unsigned>(block.bytes) * static_cast<unsigned>(block.values),
            expected.size());
  std::vector<float> values(expected.size(), 99.0f);
  to_float(GetParam(), golden.bytes(*stored).data(), values.size(), values.data());
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(expected[i]))
        << kind << " value " << i << ": " << values[i] << " in place of " << expected[i];
}

TEST_P(GgmlType, ReadsUnalignedBytes) {
  const SafetensorsFile golden = SafetensorsFile::open(data_folder + "/ggml.safetensors");
  const std::string kind(name(GetParam()));
  const std::span<const std::byte> stored = golden.bytes(*golden.find(kind + ".bytes"));
  std::vector<std::byte> shifted(stored.size() + 1);
  std::memcpy(shifted.data() + 1, stored.data(), stored.size());
  const std::vector<float> expected = golden.floats(kind + ".values");
  std::vector<float> values(expected.size());
  to_float(GetParam(), shifted.data() + 1, values.size(), values.data());
  EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * 4), 0);
}

INSTANTIATE_TEST_SUITE_P(All, GgmlType, ::testing::ValuesIn(quantised_types()),
                         [](const auto& type) { return std::string(name(type.param)); });

TEST(StorageType, HalvesEqualTheReference) {
  const SafetensorsFile golden = SafetensorsFile::open(data_folder + "/ggml.safetensors");
  const std::vector<float> expected = golden.floats("F16.values");
  std::vector<float> values(expected.size());
  to_float(StorageType::f16, golden.bytes(*golden.find("F16.bytes")).data(), values.size(), values.data());
  EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * 4), 0);
}

float one(StorageType type, std::uint64_t bits) {
  float value = 0;
  to_float(type, reinterpret_cast<const std::byte*>(&bits), 1, &value);
  return value;
}

TEST(StorageType, SpecialValuesOfSmallFloats) {
  EXPECT_EQ(one(StorageType::f16, 0x7C00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(one(StorageType::f16, 0xFC00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(one(StorageType::f16, 0x7E01)));
  EXPECT_TRUE(std::signbit(one(StorageType::f16, 0x8000)));
  EXPECT_EQ(one(StorageType::f16, 0x0001), 0x1p-24f);
  EXPECT_EQ(one(StorageType::f16, 0x7BFF), 65504.0f);

  EXPECT_EQ(one(StorageType::f8_e4m3, 0x7E), 448.0f);
  EXPECT_TRUE(std::isnan(one(StorageType::f8_e4m3, 0x7F)));
  EXPECT_TRUE(std::isnan(one(StorageType::f8_e4m3, 0xFF)));
  EXPECT_EQ(one(StorageType::f8_e4m3, 0x01), 0x1p-9f);
  EXPECT_EQ(one(StorageType::f8_e4m3, 0xB8), -1.0f);

  EXPECT_EQ(one(StorageType::f8_e5m2, 0x7B), 57344.0f);
  EXPECT_EQ(one(StorageType::f8_e5m2, 0x7C), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(one(StorageType::f8_e5m2, 0x7D)));
  EXPECT_EQ(one(StorageType::f8_e5m2, 0x01), 0x1p-16f);

  EXPECT_EQ(one(StorageType::f8_e8m0, 127), 1.0f);
  EXPECT_EQ(one(StorageType::f8_e8m0, 0), 0x1p-127f);
  EXPECT_TRUE(std::isnan(one(StorageType::f8_e8m0, 255)));
}

TEST(StorageType, PlainNumbers) {
  EXPECT_EQ(one(StorageType::i64, static_cast<std::uint64_t>(std::int64_t{-5})), -5.0f);
  EXPECT_EQ(one(StorageType::i32, 0xFFFFFFFFu), -1.0f);
  EXPECT_EQ(one(StorageType::u32, 0xFFFFFFFFu), 4294967296.0f);
  EXPECT_EQ(one(StorageType::i16, 0x8000), -32768.0f);
  EXPECT_EQ(one(StorageType::u16, 0x8000), 32768.0f);
  EXPECT_EQ(one(StorageType::i8, 0x80), -128.0f);
  EXPECT_EQ(one(StorageType::u8, 0x80), 128.0f);
  EXPECT_EQ(one(StorageType::boolean, 1), 1.0f);
  EXPECT_EQ(one(StorageType::bf16, 0x3FC0), 1.5f);
  EXPECT_EQ(one(StorageType::f64, std::bit_cast<std::uint64_t>(0.1)), 0.1f);
}

TEST(StorageType, NamesAndIds) {
  EXPECT_EQ(storage_from_safetensors("F8_E4M3"), StorageType::f8_e4m3);
  EXPECT_EQ(storage_from_safetensors("Q4_0"), std::nullopt);
  EXPECT_EQ(storage_from_safetensors(""), std::nullopt);
  EXPECT_EQ(storage_from_ggml(14), StorageType::q6_k);
  EXPECT_EQ(storage_from_ggml(4), std::nullopt);  // Q4_2, withdrawn
  EXPECT_EQ(storage_from_ggml(9), std::nullopt);  // Q8_1 is for activations
  EXPECT_EQ(storage_from_ggml(0xFFFFFFFFu), std::nullopt);
  EXPECT_TRUE(exact_in(StorageType::f8_e4m3, DataType::bf16));
  EXPECT_FALSE(exact_in(StorageType::f16, DataType::bf16));
  EXPECT_TRUE(exact_in(StorageType::f16, DataType::f32));
  EXPECT_FALSE(exact_in(StorageType::f64, DataType::f32));
}

// What exact_in() says of bf16 holds for every value of the small types.
TEST(StorageType, ExactInBf16IsTrue) {
  for (StorageType type :
       {StorageType::f8_e4m3, StorageType::f8_e5m2, StorageType::f8_e8m0, StorageType::i8, StorageType::u8}) {
    ASSERT_TRUE(exact_in(type, DataType::bf16));
    for (unsigned bits = 0; bits < 256; ++bits) {
      const float value = one(type, bits);
      if (!std::isnan(value)) { EXPECT_EQ(round_to_bf16(value), value) << name(type) << " " << bits; }
    }
  }
}

}  // namespace
}  // namespace ttt

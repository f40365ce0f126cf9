#include "ttt/tensor/tensor.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tensor/fake_device.h"

namespace ttt {
namespace {

std::vector<float> ramp(std::int64_t n) {
  std::vector<float> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 0.0f);
  return v;
}

TEST(DType, NamesAreReadBothWays) {
  for (DataType t : {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::bfp4_b, DataType::i32,
                     DataType::u32, DataType::u16, DataType::u8}) {
    EXPECT_EQ(parse_dtype(name(t)), t);
  }
  EXPECT_EQ(parse_dtype("bfloat8_b"), DataType::bfp8_b);
  EXPECT_EQ(parse_dtype("float32"), DataType::f32);
  try {
    parse_dtype("fp16\n");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "unknown dtype \"fp16\\x0a\", use one of f32, bf16, bfp8_b, bfp4_b, i32, u32, u16, u8");
  }
}

TEST(Shape, CountsAndRefuses) {
  EXPECT_EQ(to_string(Shape{1, 1, 32, 576}), "[1, 1, 32, 576]");
  EXPECT_EQ((Shape{2, 3, 4}).elements(), 24);
  EXPECT_EQ((Shape{2, 3, 4}).rows(), 6);
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ((Shape{2, 3})[-1], 3);
  EXPECT_THROW((Shape{1, 2})[2], Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
  EXPECT_THROW((Shape{2, -1}), Error);
  EXPECT_THROW((Shape{std::int64_t{1} << 32, std::int64_t{1} << 32}).elements(), Error);
}

TEST(MemoryConfig, TextIsReadBack) {
  std::vector<MemoryConfig> configs = {
      {},
      {TensorMemoryLayout::interleaved, BufferType::l1},
      {TensorMemoryLayout::width_sharded, BufferType::l1, ShardSpec{{{0, 0}, {7, 3}}, 32, 64}},
      {TensorMemoryLayout::block_sharded, BufferType::l1,
       ShardSpec{{{1, 2}, {3, 5}}, 64, 96, ShardOrientation::col_major}},
      {TensorMemoryLayout::height_sharded, BufferType::dram, ShardSpec{{{0, 0}, {11, 0}}, 32, 128}}};
  for (const MemoryConfig& c : configs) EXPECT_EQ(parse_memory_config(to_string(c)), c) << to_string(c);
  EXPECT_EQ(to_string(configs[2]), "l1 width_sharded 8x4 [32, 64]");
  for (const char* bad :
       {"", "dram", "l2 interleaved", "dram sharded", "l1 width_sharded", "l1 width_sharded 8x4",
        "l1 width_sharded 0x4 [32, 64]", "l1 width_sharded 8x4 [32, 64] x", "l1 interleaved 8x4 [32, 64]",
        "l1 width_sharded 999999x4 [1, 1]"}) {
    EXPECT_THROW(parse_memory_config(bad), Error) << bad;
  }
}

TEST(Tensor, Bytes) {
  EXPECT_EQ(bytes({.shape = {2, 3, 5}, .dtype = DataType::f32}), 120u);
  EXPECT_EQ(bytes({.shape = {2, 33, 5}, .dtype = DataType::bfp8_b}), 2 * 2 * 1088u);
  EXPECT_EQ(bytes({.shape = {33}, .dtype = DataType::bfp4_b}), 2 * 576u);
  EXPECT_EQ(bytes({.shape = {0, 33, 5}, .dtype = DataType::bfp8_b}), 0u);
}

TEST(Tensor, Views) {
  FakeDevice device;
  const Tensor t = from_host(device, ramp(24), {2, 3, 4}, DataType::f32);
  EXPECT_TRUE(t.contiguous());
  EXPECT_EQ(to_host(t.narrow(1, 1, 3)),
            (std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23}));
  EXPECT_FALSE(t.narrow(1, 1, 3).contiguous());
  EXPECT_TRUE(t.narrow(0, 1, 2).contiguous());
  EXPECT_EQ(to_host(t.swap_axes(0, 2).narrow(0, 1, 2)), (std::vector<float>{1, 13, 5, 17, 9, 21}));
  EXPECT_EQ(to_host(t.narrow(0, 1, 2).reshape({4, 3})),
            (std::vector<float>{12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}));
  EXPECT_EQ(t.reshape({6, 4}).shape(), (Shape{6, 4}));
  EXPECT_THROW(t.reshape({5, 5}), Error);
  EXPECT_THROW(t.swap_axes(0, 1).reshape({24}), Error);
  EXPECT_THROW(t.narrow(1, 2, 4), Error);
  EXPECT_THROW(t.narrow(3, 0, 1), Error);
  EXPECT_THROW(t.narrow(0, 1, 0), Error);
  EXPECT_TRUE(t.narrow(0, 1, 1).contiguous());  // no elements
}

TEST(Tensor, BlockFormatsKeepTheirLastTwoAxes) {
  FakeDevice device;
  const Tensor t = device.allocate({.shape = {2, 3, 32, 64}, .dtype = DataType::bfp8_b});
  EXPECT_EQ(t.reshape({6, 32, 64}).shape(), (Shape{6, 32, 64}));
  EXPECT_THROW(t.reshape({6, 64, 32}), Error);
  EXPECT_THROW(t.reshape({6 * 32, 64}), Error);
}

TEST(Tensor, HostValuesAreTheTensorsOwnWhereNobodyElseHoldsIt) {
  FakeDevice device;
  const auto values = [](const HostValues& v) { return std::vector<float>(v); };
  Tensor sole = from_host(device, ramp(6), {2, 3}, DataType::f32);
  const float* memory = sole.data<float>();
  HostValues own(std::move(sole));
  EXPECT_EQ(own.data(), memory);
  EXPECT_EQ(own.size(), 6u);
  EXPECT_EQ(values(own), ramp(6));
  const HostValues moved = std::move(own);
  EXPECT_EQ(moved.data(), memory);
  EXPECT_TRUE(own.empty());

  const Tensor shared = from_host(device, ramp(6), {2, 3}, DataType::f32);
  HostValues copy{shared};
  *copy.begin() = 9;
  EXPECT_EQ(to_host(shared), ramp(6));
  EXPECT_EQ(values(HostValues(from_host(device, ramp(6), {2, 3}, DataType::f32).swap_axes(0, 1))),
            (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(values(HostValues(from_host(device, ramp(6), {2, 3}, DataType::f32).narrow(0, 1, 2))),
            (std::vector<float>{3, 4, 5}));
  EXPECT_EQ(values(HostValues(from_host(device, ramp(6), {6}, DataType::bf16))), ramp(6));
  EXPECT_EQ(values(HostValues(ramp(2))), ramp(2));
  EXPECT_TRUE(HostValues().empty());
  EXPECT_THROW(HostValues{Tensor()}, Error);
}

TEST(Tensor, HostCopies) {
  FakeDevice device;
  EXPECT_EQ(to_host_int(from_host(device, std::vector<std::int32_t>{1, -2, 3}, {3})),
            (std::vector<std::int32_t>{1, -2, 3}));
  EXPECT_EQ(from_host(device, std::vector<std::int32_t>{1, 2}, {2}, DataType::u32).dtype(), DataType::u32);
  EXPECT_THROW(from_host(device, std::vector<std::int32_t>{1}, {1}, DataType::bf16), Error);
  EXPECT_THROW(from_host(device, ramp(3), {2}), Error);
  EXPECT_THROW(to_host(Tensor()), Error);
  EXPECT_THROW(to_host_int(from_host(device, ramp(2), {2})), Error);
  Tensor a = from_host(device, ramp(2), {2});
  EXPECT_TRUE(a.sole_owner());
  const Tensor b = a;
  EXPECT_FALSE(a.sole_owner());
}

TEST(Weight, Shapes) {
  EXPECT_EQ(weight_shape({.role = WeightRole::linear}, 5, 7), (Shape{1, 1, 7, 5}));
  EXPECT_EQ(weight_shape({.role = WeightRole::experts, .experts = 3}, 6, 7), (Shape{1, 3, 7, 2}));
  EXPECT_EQ(weight_shape({.role = WeightRole::embedding}, 5, 7), (Shape{1, 1, 5, 7}));
  EXPECT_EQ(weight_shape({.role = WeightRole::vector}, 1, 7), (Shape{1, 1, 1, 7}));
  EXPECT_THROW(weight_shape({.role = WeightRole::experts, .experts = 4}, 6, 7), Error);
}

}  // namespace
}  // namespace ttt

#include <cstdlib>
#include <thread>

#include "backends/cpu/support.h"

namespace ttt::cpu_tests {
namespace {

TEST(CpuDevice, ForcesAnInstructionSet) {
  for (const std::string& isa : isas()) {
    EXPECT_EQ(device(isa, 1)->description(), "cpu: " + isa + ", 1 thread");
  }
  EXPECT_EQ(device("portable", 2, true)->description(), "cpu: portable, 2 threads, deterministic");
}

TEST(CpuDevice, AnUnknownInstructionSetIsAnErrorThatListsTheOthers) {
  try {
    device("sse9");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.problem().find("sse9"), std::string::npos);
    for (const std::string& isa : isas()) EXPECT_NE(e.fix().find(isa), std::string::npos);
  }
  ::setenv("TTT_CPU_ISA", "portable", 1);
  EXPECT_EQ(device("", 1)->description(), "cpu: portable, 1 thread");
  ::setenv("TTT_CPU_ISA", "none", 1);
  EXPECT_THROW(device(""), Error);
  ::unsetenv("TTT_CPU_ISA");
  EXPECT_EQ(device("", 1)->description(), "cpu: " + isas().back() + ", 1 thread");
}

TEST(CpuDevice, RefusesWhatItCannotBe) {
  EXPECT_THROW(open_device("cpu", {.threads = -1}), Error);
  EXPECT_THROW(open_device("cpu", {.mesh = {0, 4}}), Error);
}

TEST(CpuDevice, CountsAndReusesMemory) {
  const auto d = device("portable", 1);
  const std::size_t before = d->allocated_bytes();
  const std::byte* first = nullptr;
  {
    const Tensor a = d->allocate({.shape = {1, 1, 100, 1000}, .dtype = DataType::f32});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data<float>()) % 64, 0u);
    EXPECT_GE(d->allocated_bytes(), before + 400000);
    first = a.data<std::byte>();
  }
  EXPECT_EQ(d->allocated_bytes(), before);
  EXPECT_GE(d->peak_bytes(), 400000u);
  const Tensor b = d->allocate({.shape = {1, 1, 100, 999}, .dtype = DataType::f32});
  EXPECT_EQ(b.data<std::byte>(), first);
  EXPECT_THROW(d->allocate({.shape = {std::int64_t{1} << 40, std::int64_t{1} << 40}}), Error);
}

TEST(CpuDevice, SmallerTensorsLiveInTheMemoryOfLargerOnes) {
  const auto d = device("portable", 1);
  const std::byte* first = nullptr;
  const auto allocate = [&](std::int64_t rows) {
    return d->allocate({.shape = {1, 1, rows, 1000}, .dtype = DataType::f32});
  };
  { first = allocate(1000).data<std::byte>(); }
  // Down to an eighth; then a block of its own.
  for (const std::int64_t rows : {900, 500, 130}) EXPECT_EQ(allocate(rows).data<std::byte>(), first) << rows;
  EXPECT_NE(allocate(50).data<std::byte>(), first);
  // A block that was given out for less is as large as before.
  const Tensor small = allocate(130);
  EXPECT_EQ(small.data<std::byte>(), first);
  EXPECT_NE(allocate(1000).data<std::byte>(), first);
}

TEST(CpuDevice, ReadsBackWhatWasWritten) {
  const auto d = device(isas().back());
  const std::vector<float> values = random_values(3 * 5 * 33, 1);
  for (const DataType t : {DataType::f32, DataType::bf16}) {
    const Tensor x = from_host(*d, values, {3, 5, 33}, t);
    std::vector<float> expected = values;
    if (t == DataType::bf16) {
      for (float& v : expected) v = round_to_bf16(v);
    }
    EXPECT_TRUE(same_bits(to_host(x), expected));
    EXPECT_TRUE(same_bits(to_host(x.swap_axes(0, 2).swap_axes(2, 0)), expected));
    const std::vector<float> swapped = to_host(x.swap_axes(1, 2));
    EXPECT_EQ(swapped[1], expected[33]);
  }
  const std::vector<std::int32_t> integers = {-7, 0, 1 << 30, 12345678};
  EXPECT_EQ(to_host_int(from_host(*d, integers, {4})), integers);
}

TEST(CpuDevice, BlockFloatRowsRoundAsTtnnDoes) {
  const auto d = device(isas().back());
  for (const DataType t : {DataType::bfp8_b, DataType::bfp4_b}) {
    for (const std::int64_t n : {1, 16, 40, 64}) {
      std::vector<float> values = random_values(6 * n, 2);
      if (n == 40) values[3] = INFINITY, values[20] = -NAN;
      const Tensor x = d->allocate({.shape = {2, 3, n}, .dtype = t});
      d->write(x, values);
      for (std::int64_t row = 0; row < 6; ++row) {
        round_to_block_float(
            std::span(values).subspan(static_cast<std::size_t>(row * n), static_cast<std::size_t>(n)), 1, n,
            t);
      }
      EXPECT_TRUE(same_bits(to_host(x), values)) << name(t) << " " << n;
      EXPECT_TRUE(same_bits(to_host(ops::typecast(x.narrow(0, 1, 2), DataType::f32)),
                            {values.begin() + 3 * n, values.end()}));
    }
  }
}

// An embedding table in a mapped file stays where it is.
TEST(CpuDevice, AdoptsRowsWithoutCopying) {
  const auto d = device(isas().back());
  auto memory = std::make_shared<std::vector<std::byte>>(4 * 6 * 2 + 1);
  const std::span<const std::byte> odd(memory->data() + 1, 48);  // nobody aligns the tensors of a file
  for (int i = 0; i < 24; ++i) {
    const std::uint16_t bits = BFloat16(static_cast<float>(i)).bits;
    std::memcpy(memory->data() + 1 + i * 2, &bits, 2);
  }
  const Tensor table = d->adopt({.role = WeightRole::embedding, .dtype = DataType::bf16}, 4, 6, odd, memory);
  EXPECT_EQ(table.buffer().data(), odd.data());
  EXPECT_EQ(d->allocated_bytes(), 0u);
  const Tensor ids = from_host(*d, std::vector<std::int32_t>{2, 0, 9, -1}, {1, 1, 1, 4});
  const std::vector<float> expected = {12, 13, 14, 15, 16, 17, 0, 1, 2, 3, 4, 5,
                                       0,  0,  0,  0,  0,  0,  0, 0, 0, 0, 0, 0};
  EXPECT_EQ(to_host(ops::embedding(ids, table)), expected);
  EXPECT_EQ(to_host(ops::embedding(ids, table, DataType::f32)), expected);
}

// Weights are materialised on whatever thread needs them first.
TEST(CpuDevice, PacksOnSeveralThreadsAtATime) {
  const auto d = device(isas().back(), 2);
  std::vector<LazyWeight> weights;
  for (unsigned i = 0; i < 16; ++i) weights.push_back(random_weight(*d, 200, 100, DataType::bfp8_b, i));
  std::thread other([&] {
    for (std::size_t i = 0; i < weights.size(); i += 2) weights[i].get();
  });
  for (std::size_t i = 1; i < weights.size(); i += 2) weights[i].get();
  other.join();
  for (unsigned i = 0; i < 16; ++i) {
    EXPECT_TRUE(same_bits(to_host(weights[i].get()),
                          to_host(random_weight(*d, 200, 100, DataType::bfp8_b, i).get())));
  }
}

// Each device has its own threads and memory: two may work at the same time.
TEST(CpuDevice, TwoDevicesWorkAtTheSameTime) {
  const auto work = [](unsigned seed) {
    const auto d = device(isas().back(), 2);
    const LazyWeight w = random_weight(*d, 200, 300, DataType::bfp8_b, 1);
    std::vector<float> last;
    for (int i = 0; i < 50; ++i) {
      const Tensor x = random_tensor(*d, {1, 1, 20, 300}, DataType::f32, seed);
      const Tensor h = ops::linear(x, w.get(), {.activation = {UnaryOp::silu}});
      const std::vector<float> now = to_host(ops::softmax(ops::rms_norm(h)));
      if (!last.empty() && !same_bits(now, last)) return std::vector<float>{};
      last = now;
    }
    return last;
  };
  std::vector<float> results[2];
  std::thread other([&] { results[1] = work(3); });
  results[0] = work(3);
  other.join();
  EXPECT_FALSE(results[0].empty());
  EXPECT_TRUE(same_bits(results[0], results[1]));
}

}  // namespace
}  // namespace ttt::cpu_tests

// A mesh of devices simulated in one process: parts of weights, collectives, and layers that are divided the
// ways a network divides them, against one device.
#include <filesystem>

#include "support.h"

namespace ttt {
namespace {

using cpu_tests::random_values;

std::shared_ptr<Backend> mesh(int rows, int cols) {
  return open_device("cpu", {.threads = 2, .mesh = {rows, cols}});
}
std::shared_ptr<Backend> single() { return open_device("cpu", {.threads = 2}); }

constexpr ShardAxis over_rows{.mesh_axis = 0, .parts = 2}, over_cols{.mesh_axis = 1, .parts = 4};

void expect_near(const std::vector<float>& a, const std::vector<float>& b, float bound = 1e-5f) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], bound) << i;
}

TEST(CpuMesh, CollectivesAreTTNNs) {
  const auto d = mesh(2, 4);
  const std::vector<float> values = random_values(3 * 16, 1);
  const Tensor x = from_host(*d, values, {1, 1, 3, 16}, DataType::f32);
  // Every device has the same: the sum over four is four times.
  std::vector<float> four = values;
  for (float& v : four) v *= 4;
  EXPECT_EQ(to_host(ops::all_reduce(x)), four);
  // Parts gathered again are the whole, along either axis of the mesh.
  for (const int axis : {0, 1}) {
    const Tensor part = ops::mesh_partition(x, 3, axis);
    EXPECT_EQ(part.dim(3), axis == 0 ? 8 : 4);
    EXPECT_EQ(to_host(ops::all_gather(part, 3, axis)), values);
    EXPECT_EQ(to_host(ops::all_gather(ops::reduce_scatter(x, 3, axis), 3, axis)),
              to_host(ops::mul(x, axis == 0 ? 2.0f : 4.0f)));
  }
  EXPECT_THROW(ops::mesh_partition(x, 2), Error);  // 3 rows for 4 devices
}

TEST(CpuMesh, DividedLinearLayersAgreeWithOneDevice) {
  constexpr std::int64_t in = 64, out = 96, tokens = 5;
  const std::vector<float> w = random_values(out * in, 2), x = random_values(tokens * in, 3);
  const LazyWeight weight = LazyWeight::from_values(w, out, in);
  const auto one = single();
  const Tensor expected = ops::linear(from_host(*one, x, {1, 1, tokens, in}, DataType::f32),
                                      weight.bind(*one, DataType::f32).get());
  const auto d = mesh(2, 4);
  const Tensor whole = from_host(*d, x, {1, 1, tokens, in}, DataType::f32);
  const Tensor stream = ops::mesh_partition(whole, 3, 0), units = ops::mesh_partition(whole, 3, 1);
  // Column-parallel: the stream over rows of devices, outputs over columns.
  {
    const Tensor part = weight.bind(*d, DataType::f32, {}, {}, {.rows = over_cols, .cols = over_rows}).get();
    EXPECT_EQ(part.shape(), (Shape{1, 1, in / 2, out / 4}));
    const Tensor y = ops::all_gather(ops::all_reduce(ops::linear(stream, part), 0), 3, 1);
    expect_near(to_host(y), to_host(expected));
  }
  // Row-parallel: inputs over columns, the stream over rows.
  {
    const Tensor part = weight.bind(*d, DataType::f32, {}, {}, {.rows = over_rows, .cols = over_cols}).get();
    const Tensor y = ops::all_gather(ops::all_reduce(ops::linear(units, part), 1), 3, 0);
    expect_near(to_host(y), to_host(expected));
  }
}

TEST(CpuMesh, ExpertsDivide) {
  constexpr std::int64_t experts = 8, in = 32, out = 48;
  const std::vector<float> w = random_values(experts * out * in, 4), x = random_values(in, 5);
  const LazyWeight weight =
      LazyWeight(make_source(w, experts * out, in), WeightRole::linear).experts(experts);
  const auto one = single(), d = mesh(1, 4);
  const std::vector<std::int32_t> chosen{5, 0, 7};
  const auto run = [&](Backend& device, const Tensor& part, const Tensor& indices) {
    return ops::sparse_matmul(from_host(device, x, {1, 1, 1, in}, DataType::f32), part, indices);
  };
  const Tensor expected =
      run(*one, weight.bind(*one, DataType::f32).get(), from_host(*one, chosen, {1, 1, 1, 3}));
  const Tensor part = weight.bind(*d, DataType::f32, {}, {}, {.experts = over_cols}).get();
  EXPECT_EQ(part.dim(1), 2);
  // Each device knows experts 0 and 1 of its own.
  const Tensor first =
      ops::mesh_partition(from_host(*d, std::vector<std::int32_t>{0, 2, 4, 6}, {1, 1, 1, 4}), 3);
  const Tensor own = ops::subtract(from_host(*d, chosen, {1, 1, 1, 3}), first);
  expect_near(to_host(ops::all_reduce(run(*d, part, own))), to_host(expected));
}

TEST(CpuMesh, BlocksFormPerShard) {
  // 24 outputs in two parts of 12: neither shares an exponent with the other.
  std::vector<float> w(24 * 32, 1.0f);
  for (std::size_t i = 12 * 32; i < w.size(); ++i) w[i] = 1.0f / 1024;
  const LazyWeight weight = LazyWeight::from_values(w, 24, 32);
  const auto d = mesh(1, 2);
  const Tensor part = weight.bind(*d, DataType::bfp4_b, {}, {}, {.rows = {.mesh_axis = 1, .parts = 2}}).get();
  const std::vector<float> ones(32, 1.0f);
  const Tensor y = ops::all_gather(
      ops::linear(from_host(*d, ones, {1, 1, 1, 32}, DataType::f32), part, {.dtype = DataType::f32}), 3);
  const std::vector<float> values = to_host(y);
  EXPECT_EQ(values.front(), 32.0f);
  EXPECT_EQ(values.back(), 32.0f / 1024);
}

TEST(CpuMesh, FusedWeightsGroupByDevice) {
  const auto column = [](float first, std::int64_t n) {
    std::vector<float> v;
    for (std::int64_t i = 0; i < n; ++i) v.push_back(first + static_cast<float>(i));
    return LazyWeight::from_values(std::move(v), n, 1);
  };
  const LazyWeight fused = LazyWeight::concat({column(0, 4), column(10, 2)}, 2);
  std::vector<float> values(6);
  fused.source()->read(0, 6, values.data());
  EXPECT_EQ(values, (std::vector<float>{0, 1, 10, 2, 3, 11}));
  EXPECT_THROW(LazyWeight::concat({column(0, 4), column(10, 3)}, 2), Error);
}

TEST(CpuMesh, WeightsAreCachedInParts) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "mesh_cache";
  std::filesystem::remove_all(folder);
  const LazyWeight weight = LazyWeight::from_values(random_values(256 * 256, 6), 256, 256);
  const auto d = mesh(2, 4);
  const auto load = [&](const Sharding& s) {
    return weight.bind(*d, DataType::bf16, {}, WeightCache(folder), s).get();
  };
  const std::vector<float> x = random_values(64, 7);
  const auto product = [&](const Tensor& w) {
    return to_host(ops::linear(from_host(*d, x, {1, 1, 1, 64}, DataType::f32), w, {.dtype = DataType::f32}));
  };
  const std::vector<float> converted = product(load({.rows = over_rows, .cols = over_cols}));
  EXPECT_EQ(product(load({.rows = over_rows, .cols = over_cols})), converted);  // mapped
  load({.rows = over_cols, .cols = over_rows});                                 // another file
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 2);
}

TEST(CpuMesh, RefusesWhatDoesNotDivide) {
  const auto d = mesh(2, 4);
  const LazyWeight weight = LazyWeight::from_values(random_values(30 * 8, 8), 30, 8);
  EXPECT_THROW(weight.bind(*d, DataType::f32, {}, {}, {.rows = over_cols}).get(), Error);
  EXPECT_THROW(weight.bind(*d, DataType::f32, {}, {}, {.rows = {.mesh_axis = 1, .parts = 2}}).get(), Error);
  EXPECT_THROW(open_device("cpu", {.mesh = {9, 9}}), Error);
  EXPECT_NE(d->description().find("mesh 2x4"), std::string::npos);
}

}  // namespace
}  // namespace ttt

// Kernels of the cpu backend through the ops API, with the share of the roof measured in the same run: linear
// by rows and weight dtype, attention by batch and context. TTT_CPU_ISA forces an instruction set,
// TTT_THREADS the number of threads.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ttt/ops/backend.h"
#include "ttt/ops/ops.h"
#include "ttt/tensor/lazy_weight.h"
#include "ttt/testing/bench.h"
#include "ttt/testing/profile.h"

namespace {

using namespace ttt;

int threads() {
  const char* text = std::getenv("TTT_THREADS");
  const int n = text != nullptr ? std::atoi(text) : static_cast<int>(std::thread::hardware_concurrency());
  return n > 0 ? n : 1;
}

Backend& device() {
  static const std::shared_ptr<Backend> d = open_device("cpu", {.threads = threads()});
  return *d;
}

// Cheap pseudo-random values; speed does not depend on which.
class Noise final : public WeightSource {
 public:
  Noise(std::int64_t rows, std::int64_t cols) : rows_(rows), cols_(cols) {}
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    auto state = static_cast<std::uint32_t>(begin * 2654435761 + 1);
    for (std::int64_t i = 0; i < count * cols_; ++i) {
      state = state * 1664525u + 1013904223u;
      out[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-35f;
    }
  }
  std::uint64_t fingerprint() const override { return static_cast<std::uint64_t>(rows_ * 31 + cols_); }
  std::string describe() const override { return "noise"; }

 private:
  std::int64_t rows_, cols_;
};

Tensor noise(const Shape& shape, DataType dtype) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  for (float& v : values) v = uniform(generator);
  return from_host(device(), values, shape, dtype);
}

struct Roofs {
  double read_bytes = testing::read_bandwidth(threads());
  double f32_flops = testing::matrix_peak(threads(), false),
         bf16_flops = testing::matrix_peak(threads(), true);
};
const Roofs& roofs() {
  static const Roofs measured;
  return measured;
}

void report(benchmark::State& state, double bytes, double flops, bool bf16) {
  const Roofs& roof = roofs();
  const double runs = static_cast<double>(state.iterations());
  const double peak = bf16 ? roof.bf16_flops : roof.f32_flops;
  const auto rate = benchmark::Counter::kIsRate;
  state.counters["GB/s"] = benchmark::Counter(bytes * runs / 1e9, rate);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * runs / 1e9, rate);
  state.counters["%read"] = benchmark::Counter(bytes * runs / roof.read_bytes * 100, rate);
  state.counters["%peak"] = benchmark::Counter(flops * runs / peak * 100, rate);
}

// x [rows, in] bf16 times enough different weights that none is still in a cache when its turn comes again.
void linear(benchmark::State& state, std::int64_t in, std::int64_t out, DataType weights,
            DataType activations) {
  const std::int64_t rows = state.range(0);
  const WeightSpec spec{.role = WeightRole::linear, .dtype = weights};
  const std::size_t size = device().packed_bytes(spec, out, in);
  const std::size_t copies = rows <= 64 ? std::max<std::size_t>(2, (std::size_t{400} << 20) / size) : 2;
  std::vector<LazyWeight> list;
  for (std::size_t i = 0; i < copies; ++i) {
    list.push_back(LazyWeight(std::make_shared<Noise>(out, in), WeightRole::linear).bind(device(), weights));
    list.back().get();
  }
  const Tensor x = noise({1, 1, rows, in}, activations);
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(ops::linear(x, list[next].get()));
    next = (next + 1) % copies;
  }
  report(state, static_cast<double>(size), 2.0 * static_cast<double>(rows * in * out),
         activations == DataType::bf16);
}

struct Heads {
  std::int64_t heads, kv_heads;
};

// One token of each of `batch` sequences, in pages that no cache holds when their turn comes again.
void attention_decode(benchmark::State& state, Heads s, DataType kv) {
  const std::int64_t batch = state.range(0), context = state.range(1), dim = 64, block = 32;
  const std::int64_t row = kv == DataType::bfp8_b ? 68 : 128, width = (context + block - 1) / block,
                     pages = batch * width,
                     copies = (std::int64_t{128} << 20) / (2 * row * context * batch * s.kv_heads) + 1;
  const Tensor q = noise({1, batch, s.heads, dim}, DataType::bf16);
  const TensorSpec cache{.shape = {pages * copies, s.kv_heads, block, dim}, .dtype = kv};
  const Tensor k = device().allocate(cache), v = device().allocate(cache);
  device().write(k, std::vector<float>(static_cast<std::size_t>(cache.shape.elements()), 0.25f));
  device().write(v, std::vector<float>(static_cast<std::size_t>(cache.shape.elements()), 0.25f));
  std::vector<Tensor> tables;
  for (std::int64_t copy = 0; copy < copies; ++copy) {
    std::vector<std::int32_t> table(static_cast<std::size_t>(pages));
    std::iota(table.begin(), table.end(), static_cast<std::int32_t>(copy * pages));
    tables.push_back(from_host(device(), table, {batch, width}));
  }
  const Tensor positions = from_host(
      device(),
      std::vector<std::int32_t>(static_cast<std::size_t>(batch), static_cast<std::int32_t>(context - 1)),
      {batch});
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        ops::paged_scaled_dot_product_attention_decode(q, k, v, tables[next], positions));
    next = (next + 1) % tables.size();
  }
  report(state, 2.0 * static_cast<double>(row * context * s.kv_heads * batch),
         4.0 * static_cast<double>(context * s.heads * dim * batch), kv != DataType::f32);
}

void attention_prefill(benchmark::State& state) {
  const std::int64_t tokens = state.range(0), heads = 32, kv_heads = 8, dim = 64;
  const Tensor q = noise({1, heads, tokens, dim}, DataType::bf16),
               k = noise({1, kv_heads, tokens, dim}, DataType::bf16);
  for (auto _ : state) benchmark::DoNotOptimize(ops::scaled_dot_product_attention(q, k, k));
  report(state, 0, 2.0 * static_cast<double>(tokens * tokens * heads * dim), false);
}

void rms_norm(benchmark::State& state) {
  const Tensor x = noise({1, 1, state.range(0), 2048}, DataType::bf16),
               weight = noise({1, 1, 1, 2048}, DataType::bf16);
  for (auto _ : state) benchmark::DoNotOptimize(ops::rms_norm(x, {.weight = &weight}));
  report(state, 4.0 * static_cast<double>(x.shape().elements()), 0, false);
}

void gated_mul(benchmark::State& state) {
  const Tensor gate = noise({1, 1, state.range(0), 8192}, DataType::bf16),
               up = noise({1, 1, state.range(0), 8192}, DataType::bf16);
  for (auto _ : state) benchmark::DoNotOptimize(ops::mul(gate, up, {.lhs_activation = {UnaryOp::silu}}));
  report(state, 6.0 * static_cast<double>(gate.shape().elements()), 0, false);
}
BENCHMARK(rms_norm)->Arg(1)->Arg(512)->UseRealTime();
BENCHMARK(gated_mul)->Arg(1)->Arg(512)->UseRealTime();

void register_all() {
  for (const auto& [in, out] :
       {std::pair<std::int64_t, std::int64_t>{2048, 8192}, {8192, 2048}, {576, 1536}, {2048, 512}}) {
    for (const DataType w : {DataType::bf16, DataType::bfp8_b, DataType::bfp4_b, DataType::f32}) {
      const DataType x = w == DataType::f32 ? DataType::f32 : DataType::bf16;
      auto* b = benchmark::RegisterBenchmark(
          ("linear/" + std::to_string(in) + "x" + std::to_string(out) + "/" + std::string(name(w))).c_str(),
          [in = in, out = out, w, x](benchmark::State& state) { linear(state, in, out, w, x); });
      for (const int rows : {1, 4, 8, 32, 512}) b->Arg(rows);
      b->UseRealTime()->Unit(benchmark::kMicrosecond);
    }
  }
  for (const Heads s : {Heads{32, 8}, Heads{9, 3}}) {
    for (const DataType kv : {DataType::bf16, DataType::bfp8_b}) {
      benchmark::RegisterBenchmark(("attention_decode/" + std::to_string(s.heads) + "x" +
                                    std::to_string(s.kv_heads) + "/" + std::string(name(kv)))
                                       .c_str(),
                                   [s, kv](benchmark::State& state) { attention_decode(state, s, kv); })
          ->ArgNames({"batch", "context"})
          ->Args({1, 64})
          ->Args({1, 512})
          ->Args({1, 4096})
          ->Args({32, 128})
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  benchmark::RegisterBenchmark("attention_prefill", attention_prefill)
      ->Arg(512)
      ->Arg(2048)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  register_all();
  const Roofs& roof = roofs();
  std::cerr << device().description() << "; read " << roof.read_bytes / 1e9 << " GB/s, f32 "
            << roof.f32_flops / 1e9 << " GFLOP/s, bf16 " << roof.bf16_flops / 1e9 << " GFLOP/s\n";
  benchmark::RunSpecifiedBenchmarks();
}

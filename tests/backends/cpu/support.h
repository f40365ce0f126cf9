// What the tests of the cpu backend share: a device of every instruction set that works here, random tensors,
// comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ops/composed.h"
#include "ttt/ops/backend.h"
#include "ttt/ops/ops.h"
#include "ttt/tensor/block_float.h"
#include "ttt/tensor/lazy_weight.h"

namespace ttt::cpu_tests {

using Oracle = ops::composed::OracleScope;

// Instruction sets that this machine runs: the error for an unknown one lists them.
inline const std::vector<std::string>& isas() {
  static const std::vector<std::string> found = [] {
    std::vector<std::string> names;
    for (const char* name : {"portable", "avx2", "avx512", "avx512_bf16", "amx"}) {
      try {
        open_device("cpu", {.threads = 1, .isa = name});
        names.emplace_back(name);
      } catch (const Error&) {}
    }
    return names;
  }();
  return found;
}

inline std::shared_ptr<Backend> device(const std::string& isa, int threads = 2, bool deterministic = false) {
  return open_device("cpu", {.threads = threads, .deterministic = deterministic, .isa = isa});
}

inline std::vector<float> random_values(std::int64_t n, unsigned seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = normal(generator);
  return values;
}

inline Tensor random_tensor(Device& d, const Shape& shape, DataType dtype, unsigned seed, float scale = 1) {
  return from_host(d, random_values(shape.elements(), seed, scale), shape, dtype);
}

// A weight of role linear or experts with random values, as modules get it.
inline LazyWeight random_weight(Device& d, std::int64_t rows, std::int64_t in, DataType dtype, unsigned seed,
                                std::int64_t experts = 0) {
  const float scale = 1 / std::sqrt(static_cast<float>(in));
  auto w = LazyWeight::from_values(random_values(rows * in, seed, scale), rows, in,
                                   experts > 0 ? WeightRole::experts : WeightRole::linear);
  if (experts > 0) w = w.experts(experts);
  return w.bind(d, dtype);
}

// Largest difference relative to the largest magnitude; infinite when one of them is not finite where the
// other is.
inline double difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isfinite(b[i])) largest = std::max(largest, std::abs(static_cast<double>(b[i])));
    if (std::isfinite(a[i]) != std::isfinite(b[i])) return INFINITY;
    if (std::isfinite(a[i])) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return worst / largest;
}

inline void expect_near(const Tensor& actual, const Tensor& expected, double tolerance,
                        const std::string& what) {
  ASSERT_EQ(to_string(actual.shape()), to_string(expected.shape())) << what;
  EXPECT_LE(difference(to_host(actual), to_host(expected)), tolerance) << what;
}

// bf16 results are rounded once: where float32 differs in its last bits, by one unit of 8 bits at most.
inline double tolerance(DataType t, double f32 = 2e-6) { return t == DataType::f32 ? f32 : 0.0079; }

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

}  // namespace ttt::cpu_tests

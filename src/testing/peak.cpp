// The arithmetic peak of the processor, from registers alone.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "ttt/base/threads.h"
#include "ttt/testing/profile.h"

namespace ttt::inline v2::testing {

namespace {

constexpr int chains = 12;  // independent sums: more than latency times units

// Runs `rounds` of `chains` multiply-adds and returns their FLOPs. `result` keeps the compiler honest.
using Kernel = std::uint64_t (*)(std::uint64_t rounds, float& result);

template <class Vector>
[[gnu::always_inline]] inline std::uint64_t multiply_add(std::uint64_t rounds, float& result) {
  Vector sums[chains], a, b;
  for (std::size_t i = 0; i < sizeof(Vector) / sizeof(float); ++i) a[i] = 0.999f + result, b[i] = 0.5f;
  for (int i = 0; i < chains; ++i) sums[i] = b * static_cast<float>(i);  // equal chains would become one
  for (std::uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (Vector& sum : sums) sum = sum * a + b;
  }
  for (const Vector& sum : sums) result += sum[0] * 1e-30f;
  return rounds * chains * 2 * (sizeof(Vector) / sizeof(float));
}

using Vector4 [[gnu::vector_size(16)]] = float;
std::uint64_t portable(std::uint64_t rounds, float& result) { return multiply_add<Vector4>(rounds, result); }

#if defined(__x86_64__)
using Vector8 [[gnu::vector_size(32)]] = float;
using Vector16 [[gnu::vector_size(64)]] = float;
[[gnu::target("avx2,fma")]] std::uint64_t avx2(std::uint64_t rounds, float& result) {
  return multiply_add<Vector8>(rounds, result);
}
[[gnu::target("avx512f")]] std::uint64_t avx512(std::uint64_t rounds, float& result) {
  return multiply_add<Vector16>(rounds, result);
}
[[gnu::target("avx512f,avx512bf16")]] std::uint64_t avx512_bf16(std::uint64_t rounds, float& result) {
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(result), _mm512_set1_ps(0.5f)),
                 b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.25f), _mm512_set1_ps(0.5f));
  __m512 sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  for (std::uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, b);
  }
  for (const __m512& sum : sums) result += sum[0] * 1e-30f;
  return rounds * chains * 2 * 32;
}
#endif

Kernel best_kernel(bool bf16) {
#if defined(__x86_64__)
  if (bf16 && __builtin_cpu_supports("avx512bf16")) return avx512_bf16;
  if (__builtin_cpu_supports("avx512f")) return avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
  (void)bf16;
  return portable;
}

}  // namespace

double matrix_peak(int threads, bool bf16) {
  using Clock = std::chrono::steady_clock;
  constexpr int passes = 6;
  constexpr std::uint64_t rounds = 2'000'000;
  const Kernel kernel = best_kernel(bf16);
  const auto n = static_cast<std::size_t>(threads > 0 ? threads : usable_threads());
  std::vector<float> results(n);
  std::vector<std::uint64_t> flops(n);
  std::vector<Clock::time_point> begin(n), end(n);
  double best = std::numeric_limits<double>::infinity();
  std::barrier gate(static_cast<std::ptrdiff_t>(n) + 1);
  std::vector<std::jthread> workers;
  for (std::size_t t = 0; t < n; ++t) {
    workers.emplace_back([&, t] {
      for (int pass = 0; pass < passes; ++pass) {
        gate.arrive_and_wait();
        begin[t] = Clock::now();
        flops[t] = kernel(rounds, results[t]);
        end[t] = Clock::now();
        gate.arrive_and_wait();
      }
    });
  }
  for (int pass = 0; pass < passes; ++pass) {
    gate.arrive_and_wait();
    gate.arrive_and_wait();  // nobody writes a time before the next one
    const auto whole = *std::ranges::max_element(end) - *std::ranges::min_element(begin);
    best = std::min(best, std::chrono::duration<double>(whole).count());
  }
  workers.clear();
  std::uint64_t total = 0;
  for (const std::uint64_t part : flops) total += part;
  return static_cast<double>(total) / best;
}

}  // namespace ttt::inline v2::testing

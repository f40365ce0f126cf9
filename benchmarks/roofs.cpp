#include "roofs.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ttt::benchmarks {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds(int threads, const std::function<void(int)>& work) {
  const double start = now();
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& t : others) t.join();
  return now() - start;
}

double best(int threads, int runs, const std::function<void(int)>& work) {
  double least = 1e9;
  for (int i = 0; i < runs; ++i) least = std::min(least, seconds(threads, work));
  return least;
}

std::uint64_t sum_words(const std::uint64_t* p, std::size_t words) {
  std::uint64_t s[32] = {};
  for (std::size_t i = 0; i < words; i += 32) {
    for (int j = 0; j < 32; ++j) s[j] += p[i + static_cast<std::size_t>(j)];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t v : s) total += v;
  return total;
}

constexpr long steps = 1'000'000;
constexpr int chains = 12;

float portable_fma() {
  float x[chains * 4];
  for (int i = 0; i < chains * 4; ++i) x[i] = static_cast<float>(i);
  for (long k = 0; k < steps / 8; ++k) {
    for (float& v : x) v = v * 1.0001f + 0.0001f;
  }
  float total = 0;
  for (const float v : x) total += v;
  return total;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) float avx512_fma() {
  __m512 c0 = _mm512_set1_ps(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0, c8 = c0,
         c9 = c0, c10 = c0, c11 = c0;
  const __m512 x = _mm512_set1_ps(1.0001f), y = _mm512_set1_ps(1e-4f);
  for (long k = 0; k < steps; ++k) {
    c0 = _mm512_fmadd_ps(c0, x, y), c1 = _mm512_fmadd_ps(c1, x, y), c2 = _mm512_fmadd_ps(c2, x, y),
    c3 = _mm512_fmadd_ps(c3, x, y);
    c4 = _mm512_fmadd_ps(c4, x, y), c5 = _mm512_fmadd_ps(c5, x, y), c6 = _mm512_fmadd_ps(c6, x, y),
    c7 = _mm512_fmadd_ps(c7, x, y);
    c8 = _mm512_fmadd_ps(c8, x, y), c9 = _mm512_fmadd_ps(c9, x, y), c10 = _mm512_fmadd_ps(c10, x, y),
    c11 = _mm512_fmadd_ps(c11, x, y);
    __asm__ volatile("" : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3));
  }
  return _mm512_reduce_add_ps(c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11);
}

__attribute__((target("avx512f,avx512bf16"))) float avx512_bf16() {
  __m512 c0 = _mm512_set1_ps(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0, c8 = c0,
         c9 = c0, c10 = c0, c11 = c0;
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3F803F80), y = (__m512bh)_mm512_set1_epi32(0x3C003C00);
  for (long k = 0; k < steps; ++k) {
    c0 = _mm512_dpbf16_ps(c0, x, y), c1 = _mm512_dpbf16_ps(c1, x, y), c2 = _mm512_dpbf16_ps(c2, x, y),
    c3 = _mm512_dpbf16_ps(c3, x, y);
    c4 = _mm512_dpbf16_ps(c4, x, y), c5 = _mm512_dpbf16_ps(c5, x, y), c6 = _mm512_dpbf16_ps(c6, x, y),
    c7 = _mm512_dpbf16_ps(c7, x, y);
    c8 = _mm512_dpbf16_ps(c8, x, y), c9 = _mm512_dpbf16_ps(c9, x, y), c10 = _mm512_dpbf16_ps(c10, x, y),
    c11 = _mm512_dpbf16_ps(c11, x, y);
    __asm__ volatile("" : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3));
  }
  return _mm512_reduce_add_ps(c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11);
}

__attribute__((target("avx2,fma"))) float avx2_fma() {
  __m256 c[chains];
  for (int i = 0; i < chains; ++i) c[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 x = _mm256_set1_ps(1.0001f), y = _mm256_set1_ps(1e-4f);
  for (long k = 0; k < steps; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) c[i] = _mm256_fmadd_ps(c[i], x, y);
  }
  float total = 0;
  for (int i = 0; i < chains; ++i) total += _mm256_cvtss_f32(c[i]);
  return total;
}
#endif

Roofs measure(int threads) {
  volatile float keep = 0;
  Roofs r;
  constexpr std::size_t bytes = std::size_t{1} << 28;
  const std::unique_ptr<std::uint64_t, decltype(&std::free)> memory(
      static_cast<std::uint64_t*>(std::aligned_alloc(4096, bytes)), &std::free);
  for (std::size_t i = 0; i < bytes / 8; ++i) memory.get()[i] = i;
  const std::size_t words = bytes / 8 / static_cast<std::size_t>(threads) / 32 * 32;
  r.read_bytes = static_cast<double>(words * 8) * threads / best(threads, 8, [&](int i) {
                   volatile std::uint64_t sum =
                       sum_words(memory.get() + words * static_cast<std::size_t>(i), words);
                   static_cast<void>(sum);
                 });
  const auto rate = [&](float (*work)(), double flops) {
    return flops * threads / best(threads, 6, [&](int) { keep = work(); });
  };
  r.f32_flops = rate(portable_fma, steps / 8 * chains * 4 * 2.0);
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("fma"))
    r.f32_flops = std::max(r.f32_flops, rate(avx2_fma, steps * chains * 16.0));
  if (__builtin_cpu_supports("avx512f"))
    r.f32_flops = std::max(r.f32_flops, rate(avx512_fma, steps * chains * 32.0));
  if (__builtin_cpu_supports("avx512bf16")) r.bf16_flops = rate(avx512_bf16, steps * chains * 64.0);
#endif
  static_cast<void>(keep);
  return r;
}

}  // namespace

const Roofs& roofs(int threads) {
  static std::map<int, Roofs> known;
  if (!known.contains(threads)) known[threads] = measure(threads);
  return known[threads];
}

}  // namespace ttt::benchmarks

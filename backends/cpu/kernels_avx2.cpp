// Kernels for AVX2 with FMA and F16C.
#include <immintrin.h>

#include "kernels.h"

namespace ttt::inline v2::cpu {
namespace {

constexpr int lanes = 8;
typedef float F __attribute__((vector_size(32)));
typedef int32_t I __attribute__((vector_size(32)));
typedef uint32_t U __attribute__((vector_size(32)));

constexpr int most_rows = 6, gemm_vectors = 2;  // of the 16 registers: 12 sums, 2 weights, 1 factor
constexpr int most_direct_rows = 2;
constexpr int panels_for[] = {0, 2, 1};
constexpr int transpose_size = 8;

typedef float Four __attribute__((vector_size(16)));
template <class Op>
inline Four fold(F v, Op op) {
  return op((Four)_mm256_castps256_ps128((__m256)v), (Four)_mm256_extractf128_ps((__m256)v, 1));
}

inline F set1(float x) { return (F)_mm256_set1_ps(x); }
inline F load(const float* p) { return (F)_mm256_loadu_ps(p); }
inline void store(float* p, F v) { _mm256_storeu_ps(p, (__m256)v); }
inline F fma(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
inline F scale_by_power(F x, F n) {
  // Two factors, so that the ends neither overflow early nor lose denormals.
  const I whole = (I)(n + 12582912.0f) - 0x4B400000, half = whole >> 1;
  return x * (F)((half + 127) << 23) * (F)((whole - half + 127) << 23);
}

inline F load_bf16(const uint16_t* p) {
  return (F)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
}
inline void store_bf16(uint16_t* p, F x) {
  const U word = (U)x;
  const U rounded = (word + 0x7FFFu + (word >> 16 & 1u)) >> 16, nan = word >> 16 | 0x40u;
  const __m256i bits = (__m256i)(x != x ? nan : rounded);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(packed));
}

// The upper halves of values that are exact in bf16.
inline void store_upper(uint16_t* p, F x) {
  const __m256i bits = (__m256i)((U)x >> 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(packed));
}

inline F load_i8(const int8_t* p) {
  return (F)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}

// 2^(e - 127) for eight biased exponents.
inline F exponents(const uint8_t* p) {
  return (F)_mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)), 23);
}

// Moves byte k of each output's four to the top of its 32-bit lane, zeros below: the value times 2^24 as an
// integer.
inline __m256i bfp8_order(int k) {
  const int a = k / 2 * 8 + k % 2;
  return _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, -1, -1, (char)a, -1, -1, -1, (char)(a + 2), -1, -1, -1,
                                                   (char)(a + 4), -1, -1, -1, (char)(a + 6)));
}
inline void bfp8_lanes(const uint8_t* p, F* out) {
  const __m256i raw = _mm256_loadu_si256((const __m256i*)p);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) out[k] = (F)_mm256_cvtepi32_ps(_mm256_shuffle_epi8(raw, bfp8_order(k)));
}

inline void bfp4_lanes(const uint8_t* p, F* out) {
  const __m256i raw = _mm256_loadu_si256((const __m256i*)p);
  const __m256 table = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {
    const int at =
        k / 2 * 4 + k % 2 * 16;  // of the nibble; the permutation reads three bits, the fourth is the sign
    const __m256 magnitude = _mm256_permutevar8x32_ps(table, _mm256_srli_epi32(raw, at));
    const __m256i sign =
        _mm256_and_si256(_mm256_slli_epi32(raw, 28 - at), _mm256_set1_epi32((int)0x80000000));
    out[k] = (F)_mm256_or_ps(magnitude, _mm256_castsi256_ps(sign));
  }
}

inline void part_pairs(F a, F b, F& even, F& odd) {
  const __m256 low = _mm256_shuffle_ps(a, b, 0x88), high = _mm256_shuffle_ps(a, b, 0xDD);
  even = (F)_mm256_permute4x64_pd((__m256d)low, 0xD8);
  odd = (F)_mm256_permute4x64_pd((__m256d)high, 0xD8);
}
inline void join_pairs(F even, F odd, F& a, F& b) {
  const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
  a = (F)_mm256_permute2f128_ps(low, high, 0x20);
  b = (F)_mm256_permute2f128_ps(low, high, 0x31);
}

inline void transpose_block(const float* x, int64_t ldx, float* y, int64_t ldy) {
  __m256 a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(x + i * ldx);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
  }
  // Columns in ascending order, on which interleave() relies.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm256_storeu_ps(y + i * ldy, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    _mm256_storeu_ps(y + (i + 4) * ldy, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
}

#include "kernels_impl.h"

}  // namespace

constexpr Kernels avx2_table = table();
const Kernels kernels_avx2 = avx2_table;

}  // namespace ttt::inline v2::cpu

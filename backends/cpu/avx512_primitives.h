// Primitives of kernels_impl.h for AVX-512 (F, BW, DQ, VL); for inclusion inside the anonymous namespace of a
// kernel file.

constexpr int lanes = 16;
typedef float F __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef uint32_t U __attribute__((vector_size(64)));

constexpr int most_rows = 12,
              gemm_vectors = 2;  // of the 32 registers: 24 sums, 2 weights, factors from memory
constexpr int most_direct_rows = 4;
constexpr int panels_for[] = {0, 4, 2, 2, 2};
constexpr int transpose_size = 16;

typedef float Four __attribute__((vector_size(16)));
template <class Op>
inline Four fold(F v, Op op) {
  typedef float Eight __attribute__((vector_size(32)));
  const Eight half =
      op((Eight)_mm512_castps512_ps256((__m512)v), (Eight)_mm512_extractf32x8_ps((__m512)v, 1));
  return op((Four)_mm256_castps256_ps128((__m256)half), (Four)_mm256_extractf128_ps((__m256)half, 1));
}

inline F set1(float x) { return (F)_mm512_set1_ps(x); }
inline F load(const float* p) { return (F)_mm512_loadu_ps(p); }
inline void store(float* p, F v) { _mm512_storeu_ps(p, (__m512)v); }
inline F fma(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline F scale_by_power(F x, F n) { return (F)_mm512_scalef_ps((__m512)x, (__m512)n); }

inline F load_bf16(const uint16_t* p) {
  return (F)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
inline void store_bf16(uint16_t* p, F x) {
  const U word = (U)x;
  const U rounded = (word + 0x7FFFu + (word >> 16 & 1u)) >> 16, nan = word >> 16 | 0x40u;
  const U bits = x != x ? nan : rounded;
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)bits));
}

// The upper halves of values that are exact in bf16.
inline void store_upper(uint16_t* p, F x) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)((U)x >> 16)));
}

inline F load_i8(const int8_t* p) {
  return (F)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}

// 2^(e - 127) for sixteen biased exponents.
inline F exponents(const uint8_t* p) {
  return (F)_mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)), 23);
}

// Moves byte k of each output's four to the top of its 32-bit lane, zeros below: the value times 2^24 as an
// integer.
inline __m512i bfp8_order(int k) {
  const int a = k / 2 * 8 + k % 2;
  return _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, -1, (char)a, -1, -1, -1, (char)(a + 2), -1, -1, -1,
                                              (char)(a + 4), -1, -1, -1, (char)(a + 6)));
}
inline void bfp8_lanes(const uint8_t* p, F* out) {
  const __m512i raw = _mm512_loadu_si512(p);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) out[k] = (F)_mm512_cvtepi32_ps(_mm512_shuffle_epi8(raw, bfp8_order(k)));
}

inline void bfp4_lanes(const uint8_t* p, F* out) {
  const __m512i raw = _mm512_loadu_si512(p);
  const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 0, -1, -2, -3, -4, -5, -6, -7);
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {  // the permutation reads four bits, which are the nibble
    const unsigned at = (unsigned)(k / 2 * 4 + k % 2 * 16);
    out[k] = (F)_mm512_permutexvar_ps(k == 0 ? raw : _mm512_srli_epi32(raw, at), table);
  }
}

inline void part_pairs(F a, F b, F& even, F& odd) {
  const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  even = (F)_mm512_permutex2var_ps((__m512)a, index, (__m512)b);
  odd = (F)_mm512_permutex2var_ps((__m512)a, _mm512_add_epi32(index, _mm512_set1_epi32(1)), (__m512)b);
}
inline void join_pairs(F even, F odd, F& a, F& b) {
  const __m512i index = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  a = (F)_mm512_permutex2var_ps((__m512)even, index, (__m512)odd);
  b = (F)_mm512_permutex2var_ps((__m512)even, _mm512_add_epi32(index, _mm512_set1_epi32(8)), (__m512)odd);
}

inline void transpose_block(const float* x, int64_t ldx, float* y, int64_t ldy) {
  __m512 a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(x + i * ldx);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xEE);
    a[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // a[i + 4 j]: columns i, i + 4, i + 8, i + 12 of rows 4 j to 4 j + 3
    b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xDD);
    b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xDD);
  }
  // Columns in ascending order, on which interleave() relies.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_storeu_ps(y + i * ldy, _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    _mm512_storeu_ps(y + (i + 4) * ldy, _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0x88));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_storeu_ps(y + (i + 8) * ldy, _mm512_shuffle_f32x4(b[i], b[i + 8], 0xDD));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    _mm512_storeu_ps(y + (i + 12) * ldy, _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0xDD));
}

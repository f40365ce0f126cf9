// Kernels for any machine: vectors of four floats that the compiler maps to what the baseline has.
#include "kernels.h"

namespace ttt::inline v2::cpu {
namespace {

constexpr int lanes = 4;
typedef float F __attribute__((vector_size(16)));
typedef int32_t I __attribute__((vector_size(16)));
typedef uint32_t U __attribute__((vector_size(16)));

constexpr int most_rows = 4, gemm_vectors = 2;  // of the 16 registers: 8 sums, 2 weights, 1 factor
constexpr int most_direct_rows = 1;
constexpr int panels_for[] = {0, 1};
constexpr int transpose_size = 4;

typedef F Four;
template <class Op>
inline Four fold(F v, Op) {
  return v;
}

inline F set1(float x) { return F{x, x, x, x}; }
inline F load(const float* p) {
  F v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
inline F fma(F a, F b, F c) { return a * b + c; }
inline F scale_by_power(F x, F n) {
  // Two factors, so that the ends neither overflow early nor lose denormals.
  const I whole = (I)(n + 12582912.0f) - 0x4B400000, half = whole >> 1;
  return x * (F)((half + 127) << 23) * (F)((whole - half + 127) << 23);
}

inline F load_bf16(const uint16_t* p) {
  uint16_t t[lanes];
  __builtin_memcpy(t, p, sizeof t);
  U v;
  for (int i = 0; i < lanes; ++i) v[i] = (uint32_t)t[i] << 16;
  return (F)v;
}
inline void store_bf16(uint16_t* p, F x) {
  const U word = (U)x;
  const U rounded = (word + 0x7FFFu + (word >> 16 & 1u)) >> 16, nan = word >> 16 | 0x40u;
  const U bits = x != x ? nan : rounded;
  uint16_t t[lanes];
  for (int i = 0; i < lanes; ++i) t[i] = (uint16_t)bits[i];
  __builtin_memcpy(p, t, sizeof t);
}

// The upper halves of values that are exact in bf16.
inline void store_upper(uint16_t* p, F x) {
  for (int i = 0; i < lanes; ++i) p[i] = (uint16_t)((U)x >> 16)[i];
}

inline F load_i8(const int8_t* p) {
  I v;
  for (int i = 0; i < lanes; ++i) v[i] = p[i];
  return __builtin_convertvector(v, F);
}

// 2^(e - 127) for four biased exponents.
inline F exponents(const uint8_t* p) {
  U v;
  for (int i = 0; i < lanes; ++i) v[i] = (uint32_t)p[i] << 23;
  return (F)v;
}

// Values times 2^24 of four outputs and four inputs, see layout.h: 16-bit words hold two inputs of an output,
// the even one below.
inline void bfp8_lanes(const uint8_t* p, F* out) {
  typedef uint16_t W __attribute__((vector_size(16)));
  W raw;
  __builtin_memcpy(&raw, p, sizeof raw);
  const W none = {}, even = raw << 8, odd = raw & 0xFF00;
  const W words[4] = {__builtin_shufflevector(none, even, 0, 8, 1, 9, 2, 10, 3, 11),
                      __builtin_shufflevector(none, odd, 0, 8, 1, 9, 2, 10, 3, 11),
                      __builtin_shufflevector(none, even, 4, 12, 5, 13, 6, 14, 7, 15),
                      __builtin_shufflevector(none, odd, 4, 12, 5, 13, 6, 14, 7, 15)};
  for (int k = 0; k < 4; ++k) out[k] = __builtin_convertvector((I)words[k], F);
}

inline void bfp4_lanes(const uint8_t* p, F* out) {
  U raw;
  __builtin_memcpy(&raw, p, sizeof raw);
  for (int k = 0; k < 8; ++k) {
    const U nibble = raw >> (k / 2 * 4 + k % 2 * 16);
    const F magnitude = __builtin_convertvector((I)(nibble & 7u), F);
    out[k] = (F)((U)magnitude | (nibble & 8u) << 28);
  }
}

inline void part_pairs(F a, F b, F& even, F& odd) {
  even = __builtin_shufflevector(a, b, 0, 2, 4, 6);
  odd = __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
inline void join_pairs(F even, F odd, F& a, F& b) {
  a = __builtin_shufflevector(even, odd, 0, 4, 1, 5);
  b = __builtin_shufflevector(even, odd, 2, 6, 3, 7);
}

inline void transpose_block(const float* x, int64_t ldx, float* y, int64_t ldy) {
  for (int c = 0; c < transpose_size; ++c) {
    for (int r = 0; r < transpose_size; ++r) y[c * ldy + r] = x[r * ldx + c];
  }
}

#include "kernels_impl.h"

}  // namespace

constexpr Kernels portable_table = table();
const Kernels kernels_portable = portable_table;

}  // namespace ttt::inline v2::cpu

// Kernels for AVX-512 with BF16 and VBMI: as kernels_avx512.cpp, and products of bf16 pairs.
//
// Values of the block formats are integers of at most 7 bits times a power of two, so they are exact in bf16;
// in the direct kernels the power of two goes into the activation, once per 16 outputs. VDPBF16PS multiplies
// exactly, rounds its sums to nearest even and takes denormals as zero; blocks whose exponent is so small
// that they hold denormals count as zero, too.
#include <immintrin.h>

#include "kernels.h"

namespace ttt::inline v2::cpu {
namespace {

#include "avx512_primitives.h"
#include "kernels_impl.h"

inline F dot_pairs(F c, __m512i x, __m512i w) {
  return (F)_mm512_dpbf16_ps((__m512)c, (__m512bh)x, (__m512bh)w);
}

// bf16 of 0 to 127, low and high bytes apart, for look-ups by byte.
struct IntegerTable {
  alignas(64) uint8_t low[128];
  alignas(64) uint8_t high[128];
};
constexpr IntegerTable integer_table() {
  IntegerTable t{};
  for (int m = 1; m < 128; ++m) {
    int top = 0;
    while (m >> (top + 1)) ++top;
    const unsigned bits = (unsigned)(127 + top) << 7 | ((unsigned)(m << (7 - top)) & 0x7Fu);
    t.low[m] = (uint8_t)(bits & 0xFF);
    t.high[m] = (uint8_t)(bits >> 8);
  }
  return t;
}
constexpr IntegerTable integers = integer_table();

// Each tile of the packing as words of bf16 integers: for 16 outputs (half h), pairs of inputs of one group.
// `panels`: of few rows, multiplied together.
struct Bf16Pairs {
  static constexpr int group_pairs = 1, panels = 1;
  static constexpr size_t bytes = 2048;
  static constexpr bool scaled = false;
  static constexpr float unit = 1;
  Bf16Pairs() {}
  void decode(const uint8_t* tile, int g, int h, __m512i* out) const {
    out[0] = _mm512_loadu_si512(tile + g * 128 + h * 64);
  }
};
struct Bfp8Pairs {
  static constexpr int group_pairs = 2, panels = 1;
  static constexpr size_t bytes = 1088;
  static constexpr bool scaled = true;
  static constexpr float unit = 0x1p-6f;
  static constexpr int bias = 133;
  __m512i low0, low1, high0, high1, sign;
  Bfp8Pairs()
      : low0(_mm512_load_si512(integers.low)),
        low1(_mm512_load_si512(integers.low + 64)),
        high0(_mm512_load_si512(integers.high)),
        high1(_mm512_load_si512(integers.high + 64)),
        sign(_mm512_set1_epi8((char)0x80)) {}
  void decode(const uint8_t* tile, int g, int h, __m512i* out) const {
    split(_mm512_loadu_si512(tile + 64 + g * 128 + h * 64), out);
  }
  void split(__m512i raw, __m512i* out) const {
    const __m512i magnitude = _mm512_abs_epi8(raw);
    const __m512i low = _mm512_permutex2var_epi8(low0, magnitude, low1);
    const __m512i high =
        _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, magnitude, high1), raw, sign, 0xF8);
    out[0] = _mm512_unpacklo_epi8(low, high);
    out[1] = _mm512_unpackhi_epi8(low, high);
  }
};
struct Bfp4Pairs {
  static constexpr int group_pairs = 4, panels = 2;
  static constexpr size_t bytes = 576;
  static constexpr bool scaled = true;
  static constexpr float unit = 0x1p-2f;
  static constexpr int bias = 129;
  __m512i table;  // the permutation reads five bits: the nibble and one that does not matter
  Bfp4Pairs()
      : table(_mm512_broadcast_i64x4(_mm256_setr_epi16(
            0, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0, 0, (short)0xBF80, (short)0xC000,
            (short)0xC040, (short)0xC080, (short)0xC0A0, (short)0xC0C0, (short)0xC0E0))) {}
  void decode(const uint8_t* tile, int g, int h, __m512i* out) const {
    const __m512i raw = _mm512_loadu_si512(tile + 64 + g * 128 + h * 64);
    out[0] = _mm512_permutexvar_epi16(raw, table);
    out[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(raw, 4), table);
    out[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(raw, 8), table);
    out[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(raw, 12), table);
  }
};

// The tile's integers as values, which takes an addition to their exponents; y[pair][32][2].
template <class Pairs>
class Expansion {
 public:
  void begin(const uint8_t* tile) {
    tile_ = tile;
    for (int h = 0; h < 2; ++h) {
      const __m512i e = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)(tile + h * tile_depth)));
      _mm512_store_si512(shift_[h],
                         _mm512_slli_epi16(_mm512_sub_epi16(e, _mm512_set1_epi16(Pairs::bias)), 7));
      const __mmask32 holds = _mm512_cmp_epi16_mask(e, _mm512_set1_epi16(Pairs::bias - 126), _MM_CMPINT_NLT);
      _mm512_store_si512(valid_[h], _mm512_movm_epi16(holds));
    }
  }
  void group(int g, uint16_t* y) const {
    prefetch_tiles(tile_ + g * 128, Pairs::bytes);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      __m512i words[Pairs::group_pairs];
      pairs_.decode(tile_, g, h, words);
#pragma GCC unroll 4
      for (int j = 0; j < Pairs::group_pairs; ++j) {
        const int pair = g * Pairs::group_pairs + j;
        int both_shifts, both_valid;
        __builtin_memcpy(&both_shifts, &shift_[h][2 * pair], 4);
        __builtin_memcpy(&both_valid, &valid_[h][2 * pair], 4);
        const __mmask32 nonzero = _mm512_test_epi16_mask(words[j], _mm512_set1_epi32(both_valid));
        _mm512_storeu_si512(y + pair * 64 + h * 32,
                            _mm512_maskz_add_epi16(nonzero, words[j], _mm512_set1_epi32(both_shifts)));
      }
    }
  }

 private:
  const Pairs pairs_{};
  const uint8_t* tile_ = nullptr;
  alignas(64) uint16_t shift_[2][tile_depth], valid_[2][tile_depth];
};

template <class Pairs>
void expand_dp(const uint8_t* tiles, int64_t count, uint16_t* y) {
  Expansion<Pairs> expansion;
  for (int64_t t = 0; t < count; ++t, tiles += Pairs::bytes, y += tile_depth * panel_width) {
    expansion.begin(tiles);
    for (int g = 0; g < tile_depth / 2 / Pairs::group_pairs; ++g) expansion.group(g, y);
  }
}

// Pairs of `Rows` rows: few addresses, from each of which the processor reaches three.
template <int Rows>
struct RowsOf {
  const uint32_t* every_third[(Rows + 2) / 3];
  int64_t ldx;

  RowsOf(const uint32_t* x, int64_t distance) : ldx(distance) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r += 3) every_third[r / 3] = x + r * distance;
  }
  uint32_t at(int r, int64_t i) const { return every_third[r / 3][i + r % 3 * ldx]; }
  void advance(int64_t pairs) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r += 3) every_third[r / 3] += pairs;
  }
};

// `Rows` rows times a panel, sums in registers.
template <int Rows>
struct Sums {
  F acc[Rows][2];

  void load_from(const float* c, int64_t ldc, bool accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) acc[r][v] = accumulate ? load(c + r * ldc + v * lanes) : zero();
    }
  }
  void add_pair(const RowsOf<Rows>& x, int64_t i, const uint16_t* w) {
    const __m512i b0 = _mm512_loadu_si512(w), b1 = _mm512_loadu_si512(w + 32);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const __m512i a = _mm512_set1_epi32((int)x.at(r, i));
      acc[r][0] = dot_pairs(acc[r][0], a, b0);
      acc[r][1] = dot_pairs(acc[r][1], a, b1);
    }
  }
  void store_to(float* c, int64_t ldc) const {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) store(c + r * ldc + v * lanes, acc[r][v]);
    }
  }
};

// Products leave the ports of integer operations idle, which expand the next tiles meanwhile.
template <class Pairs, int Rows>
void gemm_dp_rows(const uint32_t* x, int64_t ldx, const uint16_t* w, int64_t pairs, float* c, int64_t ldc,
                  bool accumulate, const uint8_t* next, int64_t next_tiles, uint16_t* y) {
  constexpr int tile_pairs = tile_depth / 2;
  Sums<Rows> sums;
  sums.load_from(c, ldc, accumulate);
  RowsOf<Rows> rows(x, ldx);
  if constexpr (Pairs::scaled) {
    Expansion<Pairs> expansion;
    for (; next_tiles > 0 && pairs >= tile_pairs; pairs -= tile_pairs, --next_tiles) {
      expansion.begin(next);
#pragma GCC unroll 1
      for (int g = 0; g < tile_pairs / Pairs::group_pairs; ++g) {
        expansion.group(g, y);
#pragma GCC unroll 4
        for (int j = 0; j < Pairs::group_pairs; ++j) sums.add_pair(rows, j, w + j * 64);
        rows.advance(Pairs::group_pairs);
        w += Pairs::group_pairs * 64;
      }
      next += Pairs::bytes;
      y += tile_depth * panel_width;
    }
  }
  for (; pairs > 0; --pairs, w += 64) {
    sums.add_pair(rows, 0, w);
    rows.advance(1);
  }
  sums.store_to(c, ldc);
  if constexpr (Pairs::scaled) expand_dp<Pairs>(next, next_tiles, y);
}

template <class Pairs, int Rows>
inline void gemm_dp_dispatch(int rows, const uint32_t* x, int64_t ldx, const uint16_t* w, int64_t pairs,
                             float* c, int64_t ldc, bool accumulate, const uint8_t* next, int64_t next_tiles,
                             uint16_t* y) {
  if (rows == Rows)
    return gemm_dp_rows<Pairs, Rows>(x, ldx, w, pairs, c, ldc, accumulate, next, next_tiles, y);
  if constexpr (Rows > 1)
    gemm_dp_dispatch<Pairs, Rows - 1>(rows, x, ldx, w, pairs, c, ldc, accumulate, next, next_tiles, y);
}
void gemm_dp(int rows, const uint32_t* x, int64_t ldx, const uint16_t* w, int64_t pairs, float* c,
             int64_t ldc, bool accumulate) {
  gemm_dp_dispatch<Bf16Pairs, most_rows>(rows, x, ldx, w, pairs, c, ldc, accumulate, nullptr, 0, nullptr);
}
template <class Pairs>
void gemm_dp_expand(int rows, const uint32_t* x, int64_t ldx, const uint16_t* w, int64_t pairs, float* c,
                    int64_t ldc, bool accumulate, const uint8_t* next, int64_t next_tiles, uint16_t* y) {
  gemm_dp_dispatch<Pairs, most_rows>(rows, x, ldx, w, pairs, c, ldc, accumulate, next, next_tiles, y);
}

// Groups of four values of sixteen rows are transposed, then split as a tile of bfp8_b is. An exponent of 255
// makes an Inf or NaN of a value whose leading bit is set, as it should.
void block_rows_to_pairs(const uint8_t* rows, int64_t n, int mantissa_bits, uint32_t* y) {
  const Bfp8Pairs pairs;
  const int64_t blocks = n / 16, row_bytes = blocks * 17;
  const __m512i order =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  const int bias = 126 + mantissa_bits;
  for (int64_t b = 0; b < blocks; b += 4, y += 32 * panel_width) {
    alignas(64) uint32_t exponent[16];
    for (int r = 0; r < 16; ++r) __builtin_memcpy(exponent + r, rows + r * row_bytes + b, 4);
    const __m512i four = _mm512_load_si512(exponent);
    alignas(64) float words[16 * 16];
    transpose_block((const float*)(rows + blocks + b * 16), row_bytes / 4, words, 16);
#pragma GCC unroll 4
    for (int block = 0; block < 4; ++block) {
      // Each key's exponent in both halves of its word.
      const __m512i e = _mm512_shuffle_epi8(
          four, _mm512_add_epi32(_mm512_broadcast_i32x4(
                                     _mm_setr_epi8(0, -1, 0, -1, 4, -1, 4, -1, 8, -1, 8, -1, 12, -1, 12, -1)),
                                 _mm512_set1_epi16((short)block)));
      const __m512i shift = _mm512_slli_epi16(_mm512_sub_epi16(e, _mm512_set1_epi16((short)bias)), 7);
      const __mmask32 holds =
          _mm512_cmp_epi16_mask(e, _mm512_set1_epi16((short)(bias - 126)), _MM_CMPINT_NLT);
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        __m512i out[2];
        pairs.split(_mm512_shuffle_epi8(_mm512_load_si512(words + (block * 4 + g) * 16), order), out);
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          const __mmask32 nonzero = _mm512_mask_test_epi16_mask(holds, out[j], out[j]);
          _mm512_storeu_si512(y + ((block * 4 + g) * 2 + j) * panel_width,
                              _mm512_maskz_add_epi16(nonzero, out[j], shift));
        }
      }
    }
  }
}

template <class Pairs, int Rows, int Panels>
void direct_dp_rows(const float* x, int64_t ldx, const uint8_t* w, size_t panel_bytes, int64_t tiles,
                    float* c, int64_t ldc) {
  constexpr int64_t distance = 4;  // tiles that are fetched ahead
  const Pairs pairs;
  Sums<Rows> sums[Panels];
#pragma GCC unroll 2
  for (int p = 0; p < Panels; ++p) sums[p].load_from(c, ldc, false);
  constexpr int halves = Pairs::scaled ? 2 : 1;
  for (int64_t t = 0; t < tiles; ++t, w += Pairs::bytes, x += tile_depth) {
    alignas(64) uint32_t factors[Rows][Panels][halves][tile_depth / 2];
    for (int r = 0; r < Rows; ++r) {
      const F x0 = load(x + r * ldx) * set1(Pairs::unit), x1 = load(x + r * ldx + lanes) * set1(Pairs::unit);
      for (int p = 0; p < (Pairs::scaled ? Panels : 1); ++p) {
        for (int h = 0; h < halves; ++h) {
          F a = x0, b = x1;
          if constexpr (Pairs::scaled) {
            const uint8_t* e = w + (size_t)p * panel_bytes + h * tile_depth;
            a = a * exponents(e);
            b = b * exponents(e + lanes);
          }
          _mm512_store_si512(factors[r][p][h], (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
        }
      }
    }
    const size_t ahead =
        distance * Pairs::bytes + (t + distance < tiles ? 0 : (size_t)(Panels - 1) * panel_bytes);
#pragma GCC unroll 1
    for (int g = 0; g < tile_depth / 2 / Pairs::group_pairs; ++g) {
#pragma GCC unroll 2
      for (int p = 0; p < Panels; ++p) {
        const uint8_t* tile = w + (size_t)p * panel_bytes;
        __builtin_prefetch(tile + ahead + g * 128);
        __builtin_prefetch(tile + ahead + g * 128 + 64);
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          __m512i words[Pairs::group_pairs];
          pairs.decode(tile, g, h, words);
#pragma GCC unroll 4
          for (int j = 0; j < Pairs::group_pairs; ++j) {
#pragma GCC unroll 16
            for (int r = 0; r < Rows; ++r) {
              const uint32_t a = Pairs::scaled ? factors[r][p][h][g * Pairs::group_pairs + j]
                                               : factors[r][0][0][g * Pairs::group_pairs + j];
              sums[p].acc[r][h] = dot_pairs(sums[p].acc[r][h], _mm512_set1_epi32((int)a), words[j]);
            }
          }
        }
      }
    }
  }
#pragma GCC unroll 2
  for (int p = 0; p < Panels; ++p) sums[p].store_to(c + p * panel_width, ldc);
}

// One panel at a time reads memory in order. Pairs that come four to the bytes of one wait for their sums
// then, so two long panels of them go together.
template <class Pairs, int Rows>
inline void direct_dp_dispatch(int rows, const float* x, int64_t ldx, const uint8_t* w, size_t panel_bytes,
                               int64_t tiles, int64_t panels, float* c, int64_t ldc) {
  if (rows == Rows) {
    constexpr int together = Pairs::panels;
    constexpr int64_t long_panel = 32;  // shorter ones end before the processor foresees two
    for (; panels >= together && tiles >= long_panel;
         panels -= together, w += together * panel_bytes, c += together * panel_width)
      direct_dp_rows<Pairs, Rows, together>(x, ldx, w, panel_bytes, tiles, c, ldc);
    for (; panels > 0; --panels, w += panel_bytes, c += panel_width)
      direct_dp_rows<Pairs, Rows, 1>(x, ldx, w, panel_bytes, tiles, c, ldc);
    return;
  }
  if constexpr (Rows > 1)
    direct_dp_dispatch<Pairs, Rows - 1>(rows, x, ldx, w, panel_bytes, tiles, panels, c, ldc);
}
template <class Pairs>
void direct_dp(int rows, int panels, const float* x, int64_t ldx, const uint8_t* w, size_t panel_bytes,
               int64_t tiles, float* c, int64_t ldc) {
  direct_dp_dispatch<Pairs, most_direct_rows>(rows, x, ldx, w, panel_bytes, tiles, panels, c, ldc);
}

constexpr Kernels table_with_pairs() {
  Kernels k = table();
  k.pair_rows = most_rows;
  k.pair_step = 2;
  k.pair_tiles = 6;
  k.gemm_dp = gemm_dp;
  k.block_rows_to_pairs = block_rows_to_pairs;
  k.expand_dp[2] = expand_dp<Bfp8Pairs>;
  k.expand_dp[3] = expand_dp<Bfp4Pairs>;
  k.gemm_dp_expand[2] = gemm_dp_expand<Bfp8Pairs>;
  k.gemm_dp_expand[3] = gemm_dp_expand<Bfp4Pairs>;
  k.direct_dp[1] = direct_dp<Bf16Pairs>;
  k.direct_dp[2] = direct_dp<Bfp8Pairs>;
  k.direct_dp[3] = direct_dp<Bfp4Pairs>;
  return k;
}

}  // namespace

constexpr Kernels avx512_bf16_table = table_with_pairs();
const Kernels kernels_avx512_bf16 = avx512_bf16_table;

}  // namespace ttt::inline v2::cpu

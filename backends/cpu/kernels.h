// The kernels, once per instruction set, behind a table of function pointers. Files that are compiled for one
// instruction set include this header and C headers only: an inline function of the standard library emitted
// there could be the copy that the linker keeps for everyone.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "layout.h"

namespace ttt::inline v2::cpu {

// As UnaryOp, BinaryOp and ReduceOp (ops/op_call.h), in their order.
enum class Fn : int {
  identity,
  silu,
  gelu,
  gelu_tanh,
  relu,
  relu2,
  tanh,
  sigmoid,
  quick_gelu,
  softplus,
  exp,
  log,
  sqrt,
  rsqrt,
  neg,
  abs,
  square,
  reciprocal,
  sin,
  cos,
  elu,
  hardswish,
  xielu,
  clamp,
  add_scalar,
  mul_scalar,
  pow_scalar,
  floor,
  sign,
  log1p,
  expm1
};
enum class Fn2 : int { add, subtract, multiply, divide, maximum, minimum, eq, lt, gt, le, ge };

// How the raw scores of one query against 64 neighbouring keys become what the softmax sees.
struct ScoreRule {
  float scale = 1, softcap = 0, slope = 0;  // softcap 0: none; slope: ALiBi, times the key's position
  int64_t first_key = 0;                    // position of key 0 of the block
  int32_t begin = 0, end = 0;               // keys [begin, end) of the block take part
  const float* mask = nullptr;              // added, or null
};

constexpr int key_block = 64;

// Lines of memory that a kernel asks for while it computes, for whoever comes next.
struct Fetch {
  const void* from = nullptr;
  int64_t lines = 0;
};

struct Kernels {
  // Conversions of n contiguous values; pointers may be unaligned.
  void (*bf16_to_f32)(const uint16_t* x, float* y, int64_t n);
  void (*f32_to_bf16)(const float* x, uint16_t* y, int64_t n);
  void (*f32_to_bf16_rows)(const float* x, int64_t ldx, uint16_t* y, int64_t ldy, int64_t rows, int64_t n);
  // rows x n values from block rows (layout.h).
  void (*block_rows_to_f32)(const uint8_t* rows, int64_t count, int64_t n, int mantissa_bits, float* y,
                            int64_t ldy);
  // The same as bf16, where they are exact, too.
  void (*block_rows_to_bf16)(const uint8_t* rows, int64_t count, int64_t n, int mantissa_bits, uint16_t* y,
                             int64_t ldy);

  void (*unary)(Fn, float a, float b, const float* x, float* y, int64_t n);
  void (*binary)(Fn2, const float* a, const float* b, float* y, int64_t n);
  void (*binary_scalar)(Fn2, const float* a, float b, float* y, int64_t n);
  float (*sum)(const float* x, int64_t n);
  float (*sum_squares)(const float* x, float mean, int64_t n);  // of x - mean
  float (*max)(const float* x, int64_t n);
  // y = (x - mean) * scale, times weight (+ 1 where plus_one), plus bias; weight and bias may be null.
  void (*normalize)(const float* x, float mean, float scale, const float* weight, float plus_one,
                    const float* bias, float* y, int64_t n);
  float (*exp_sum)(const float* x, float max, float* y, int64_t n);  // y = exp(x - max), returns its sum
  void (*rope_half)(const float* x, const float* cos, const float* sin, float* y, int64_t half);
  // The same from bf16 to bf16; half: a multiple of 16.
  void (*rope_half_bf16)(const uint16_t* x, const float* cos, const float* sin, uint16_t* y, int64_t half);
  void (*rope_interleaved)(const float* x, const float* cos, const float* sin, float* y, int64_t half);
  int64_t (*argmax)(const float* x, int64_t n);  // lowest index of the largest

  // Attention. scores[64] of one query become softmax weights: exp(score - top), 0 for keys that take no
  // part. `top` and `sum` are the largest score and the sum of weights so far, both updated; returns the
  // factor by which sums of values so far shrink.
  float (*softmax_block)(float* scores, const ScoreRule&, float* top, float* sum);
  // c[r] = c[r] * shrink[r] plus the sum over keys i in [begin, end), in ascending order, of weights[r *
  // key_block + i] times row i; rows <= gemm_rows. halves: rows of bf16 of keys 0 to 31 and 32 to 63, ldv
  // values apart, at least `columns` long, a multiple of panel_width.
  void (*add_values)(int rows, const float* weights, const uint16_t* const* halves, int64_t ldv, int begin,
                     int end, const Fetch&, const float* shrink, int64_t columns, float* c, int64_t ldc);
  // The same of block rows of `blocks` blocks that are finite.
  void (*add_block_values)(int rows, const float* weights, const uint8_t* const* halves, int64_t blocks,
                           int mantissa_bits, int begin, int end, const Fetch&, const float* shrink,
                           int64_t columns, float* c, int64_t ldc);
  // Whether no exponent of these block rows is that of Infs and NaNs.
  bool (*finite_blocks)(const uint8_t* rows, int64_t count, int64_t blocks);
  // y[c * ldy + r] = x[r * ldx + c] for rows x cols.
  void (*transpose)(const float* x, int64_t ldx, float* y, int64_t ldy, int64_t rows, int64_t cols);
  // y[c * rows + r] = x[r * ldx + c] for rows <= gemm_rows. Reads 16 rows of x and writes up to 16 values
  // behind y.
  void (*interleave)(const float* x, int64_t ldx, float* y, int64_t rows, int64_t cols);

  // Matrix products. In each, output n of a row sums over k in ascending order from c (accumulate) or zero
  // with one rounding per step, so a row's result does not depend on how many rows are computed together.
  int gemm_rows;  // most rows of one call
  // c[rows][32] += x[k][rows] * w[k][32]; w has ldw floats between rows.
  void (*gemm)(int rows, const float* x, const float* w, int64_t ldw, int64_t k, float* c, int64_t ldc,
               bool accumulate);
  // y[tile_depth * tiles][32] of the values of tiles of one panel.
  void (*expand[format_count])(const uint8_t* tiles, int64_t count, float* y);
  // c[rows][32 * panels] for few rows straight from the packing; x[rows][ldx], padded with zeros to whole
  // tiles.
  int direct_rows;
  int direct_panels[8];  // [rows]: most panels of one call
  void (*direct[format_count])(int rows, int panels, const float* x, int64_t ldx, const uint8_t* w,
                               size_t panel_bytes, int64_t tiles, float* c, int64_t ldc);

  // The same with products of bf16 pairs, where the instruction set has them; else null. x: row after row,
  // ldx pairs apart.
  int pair_rows;   // most rows of one call
  int pair_step;   // inputs of a call are a multiple of it
  int pair_tiles;  // of a panel, expanded, that stay in the first-level cache beside the next
  void (*gemm_dp)(int rows, const uint32_t* x, int64_t ldx, const uint16_t* w, int64_t pairs, float* c,
                  int64_t ldc, bool accumulate);
  // y[n / 2][panel_width] of 16 block rows of n values, a multiple of 64.
  void (*block_rows_to_pairs)(const uint8_t* rows, int64_t n, int mantissa_bits, uint32_t* y);
  void (*expand_dp[format_count])(const uint8_t* tiles, int64_t count, uint16_t* y);  // [pairs][32][2]
  // gemm_dp that expands the next tiles meanwhile, which costs little beside the products; null where there
  // is none.
  void (*gemm_dp_expand[format_count])(int rows, const uint32_t* x, int64_t ldx, const uint16_t* w,
                                       int64_t pairs, float* c, int64_t ldc, bool accumulate,
                                       const uint8_t* next, int64_t next_tiles, uint16_t* y);
  void (*direct_dp[format_count])(int rows, int panels, const float* x, int64_t ldx, const uint8_t* w,
                                  size_t panel_bytes, int64_t tiles, float* c, int64_t ldc);
};

extern const Kernels kernels_portable;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512_bf16;
void gemm_amx(int rows, const uint32_t* x, int64_t ldx, const uint16_t* w, int64_t pairs, float* c,
              int64_t ldc, bool accumulate);
#endif

}  // namespace ttt::inline v2::cpu

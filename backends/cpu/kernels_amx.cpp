// Products of bf16 pairs on AMX tiles. Everything else of that instruction set is kernels_avx512_bf16.cpp.
#include <immintrin.h>

#include "amx_gemm.h"
#include "kernels.h"

namespace ttt::inline v2::cpu {
namespace {

struct AmxTiles {
  static void configure(int upper, int lower) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes_per_row[16] = {};
      uint8_t rows[16] = {};
    } config;
    const int second = lower > 0 ? lower : 1;  // a tile has at least one row
    const int rows[8] = {upper, upper, second, second, upper, second, 16, 16};
    for (int i = 0; i < 8; ++i) {
      config.bytes_per_row[i] = 64;
      config.rows[i] = (uint8_t)rows[i];
    }
    __asm__ volatile("" : : "r"(&config) : "memory");  // the intrinsic names only a part of what it reads
    _tile_loadconfig(&config);
  }
  static void release() { _tile_release(); }
  // The intrinsics want their tiles as literals.
  template <int T>
  static void zero() {
    if constexpr (T == 0) _tile_zero(0);
    if constexpr (T == 1) _tile_zero(1);
    if constexpr (T == 2) _tile_zero(2);
    if constexpr (T == 3) _tile_zero(3);
  }
  template <int T>
  static void load(const void* from, size_t stride) {
    if constexpr (T == 0) _tile_loadd(0, from, stride);
    if constexpr (T == 1) _tile_loadd(1, from, stride);
    if constexpr (T == 2) _tile_loadd(2, from, stride);
    if constexpr (T == 3) _tile_loadd(3, from, stride);
    if constexpr (T == 4) _tile_loadd(4, from, stride);
    if constexpr (T == 5) _tile_loadd(5, from, stride);
    if constexpr (T == 6) _tile_loadd(6, from, stride);
    if constexpr (T == 7) _tile_loadd(7, from, stride);
  }
  template <int T>
  static void store(void* to, size_t stride) {
    if constexpr (T == 0) _tile_stored(0, to, stride);
    if constexpr (T == 1) _tile_stored(1, to, stride);
    if constexpr (T == 2) _tile_stored(2, to, stride);
    if constexpr (T == 3) _tile_stored(3, to, stride);
  }
  template <int C, int A, int B>
  static void multiply_add() {
    static_assert(A == 4 + C / 2 && B == 6 + C % 2);
    if constexpr (C == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (C == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (C == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (C == 3) _tile_dpbf16ps(3, 5, 7);
  }
};

}  // namespace

void gemm_amx(int rows, const uint32_t* x, int64_t ldx, const uint16_t* w, int64_t pairs, float* c,
              int64_t ldc, bool accumulate) {
  gemm_tiles<AmxTiles>(rows, (const uint16_t*)x, ldx * 2, w, pairs, c, ldc, accumulate);
}

}  // namespace ttt::inline v2::cpu

// The product of bf16 pairs on AMX tiles, over the tile operations of `Tiles`: the processor's
// (kernels_amx.cpp) or, in the tests, ones that compute the same in plain code, since few machines have
// tiles.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace ttt::inline v2::cpu {

// c[rows][32] (+)= x[rows][2 * pairs] * w[pairs][32][2] for up to 32 rows; ldx in bf16 values, ldc in floats.
// `pairs` is a multiple of
// 16. Tiles 0 to 3 are sums (two of 16 rows times two of 16 outputs), 4 and 5 rows of x, 6 and 7 weights.
template <class Tiles>
void gemm_tiles(int rows, const uint16_t* x, int64_t ldx, const uint16_t* w, int64_t pairs, float* c,
                int64_t ldc, bool accumulate) {
  const int upper = rows < 16 ? rows : 16, lower = rows - upper;
  const size_t c_bytes = (size_t)ldc * 4, x_bytes = (size_t)ldx * 2;
  constexpr size_t w_bytes = 128;
  Tiles::configure(upper, lower);
  if (accumulate) {
    Tiles::template load<0>(c, c_bytes);
    Tiles::template load<1>(c + 16, c_bytes);
    if (lower > 0) {
      Tiles::template load<2>(c + 16 * ldc, c_bytes);
      Tiles::template load<3>(c + 16 * ldc + 16, c_bytes);
    }
  } else {
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    Tiles::template zero<2>();
    Tiles::template zero<3>();
  }
  for (int64_t p = 0; p < pairs; p += 16) {
    Tiles::template load<6>(w + p * 64, w_bytes);
    Tiles::template load<7>(w + p * 64 + 32, w_bytes);
    Tiles::template load<4>(x + p * 2, x_bytes);
    Tiles::template multiply_add<0, 4, 6>();
    Tiles::template multiply_add<1, 4, 7>();
    if (lower > 0) {
      Tiles::template load<5>(x + 16 * ldx + p * 2, x_bytes);
      Tiles::template multiply_add<2, 5, 6>();
      Tiles::template multiply_add<3, 5, 7>();
    }
  }
  Tiles::template store<0>(c, c_bytes);
  Tiles::template store<1>(c + 16, c_bytes);
  if (lower > 0) {
    Tiles::template store<2>(c + 16 * ldc, c_bytes);
    Tiles::template store<3>(c + 16 * ldc + 16, c_bytes);
  }
  Tiles::release();
}

}  // namespace ttt::inline v2::cpu

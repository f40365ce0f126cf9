// Kernels for AVX-512 F, BW, DQ and VL.
#include <immintrin.h>

#include "kernels.h"

namespace ttt::inline v2::cpu {
namespace {

#include "avx512_primitives.h"
#include "kernels_impl.h"

}  // namespace

constexpr Kernels avx512_table = table();
const Kernels kernels_avx512 = avx512_table;

}  // namespace ttt::inline v2::cpu

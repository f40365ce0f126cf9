// Kernels for AVX-512 with BF16 and VBMI: as kernels_avx512.cpp, and products of bf16 pairs.
//
// VDPBF16PS multiplies exactly, takes denormals as zero and rounds its sums by its own rule (nearest even,
// without exceptions).
#include <immintrin.h>

#include "kernels.h"

namespace ttt::inline v2::cpu {
namespace {

#include "avx512_primitives.h"
#include "kernels_impl.h"

}  // namespace

constexpr Kernels avx512_bf16_table = table();
const Kernels kernels_avx512_bf16 = avx512_bf16_table;

}  // namespace ttt::inline v2::cpu

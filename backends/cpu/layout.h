// How this backend keeps weights in memory. The values are TTNN's to the bit; the arrangement is ours and the
// same on every instruction set.
//
// A linear weight [in, out] is cut into panels of 32 outputs. A panel is a sequence of tiles of 32 inputs by
// 32 outputs, both padded with zeros:
//   f32     [32 inputs][32 outputs]                                                                4,096
//   bytes bf16    [16 pairs of inputs][32 outputs][2 inputs] 2,048 bytes bfp8_b  exponents [2 halves][32
//   inputs], then [8 groups of 4 inputs][2 halves][64 bytes]       1,088 bytes bfp4_b  exponents [2
//   halves][32 inputs], then [4 groups of 8 inputs][2 halves][64 bytes]         576 bytes
// A half is 16 outputs. In the 64 bytes of bfp8_b, output n and input k of the group stand at byte
// n/4*16 + k/2*8 + n%4*2 + k%2, in two's complement. In those of bfp4_b, output n owns the 32-bit word n;
// input k of the group is the nibble k/2 of its lower (even k) or upper (odd k) half, sign in bit 3 as TTNN
// has it.
//
// Rows of other block-float tensors (KV caches, tables): one exponent per 16 values, then the values as
// signed bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ttt::inline v2::cpu {

constexpr int panel_width = 32;
constexpr int tile_depth = 32;

enum class Format : int { f32, bf16, bfp8_b, bfp4_b };  // as DataType
constexpr int format_count = 4;

constexpr std::size_t packed_tile_bytes(Format f) {
  constexpr std::size_t bytes[format_count] = {4096, 2048, 1088, 576};
  return bytes[static_cast<int>(f)];
}

constexpr std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

constexpr std::size_t block_row_bytes(std::int64_t n) { return static_cast<std::size_t>((n + 15) / 16 * 17); }

}  // namespace ttt::inline v2::cpu

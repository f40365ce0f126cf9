// TTNN's block floating-point formats on the host, bit-exact with its own packer.
//
// A tile is 32x32 values as four 16x16 faces (upper left, upper right, lower left, lower right). Its bytes
// are 64 shared exponents (face by face, row by row), then the values face by face, row-major: sign and 7
// magnitude bits (bfp8_b), or sign and 3 bits, two values per byte with the first one in the low nibble
// (bfp4_b). There is no implicit leading one: a value is (-1)^s * m * 2^(e - 127 - 6) for bfp8_b and (-1)^s *
// m * 2^(e - 127 - 2) for bfp4_b.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ttt/tensor/dtype.h"

namespace ttt::inline v2 {

constexpr int tile_size = 32;
constexpr int face_size = 16;
constexpr std::size_t tile_bytes(DataType t) { return t == DataType::bfp8_b ? 1088 : 576; }

// Sixteen neighbouring values of a row, which share `exponent` (biased by 127).
struct BlockFloat16 {
  std::uint8_t exponent = 0;
  std::uint8_t values[face_size] = {};  // sign in bit 7 (bfp8_b) or bit 3 (bfp4_b), magnitude below it
};

// Rounds to nearest even after dropping what the shift to the shared exponent pushes out; saturates;
// denormals, -0 and what rounds to zero become +0; an Inf or NaN makes the exponent 255
// and comes back as such, what stands beside it is lost.
BlockFloat16 encode_block(const float* values, DataType);
void decode_block(const BlockFloat16&, DataType, float* values);

// Bytes of a [rows, cols] matrix in tiles, both extents padded up to 32.
std::size_t packed_bytes(std::int64_t rows, std::int64_t cols, DataType);
// Packs a row-major matrix in tile order (tiles row by row); padding is zero. Error when a size does not fit.
std::vector<std::uint8_t> pack_tiles(std::span<const float> values, std::int64_t rows, std::int64_t cols,
                                     DataType);
std::vector<float> unpack_tiles(std::span<const std::uint8_t> bytes, std::int64_t rows, std::int64_t cols,
                                DataType);

// In place: the values that a row-major [rows, cols] matrix has after a round trip through the format.
void round_to_block_float(std::span<float> values, std::int64_t rows, std::int64_t cols, DataType);

}  // namespace ttt::inline v2

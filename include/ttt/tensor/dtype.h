// Element types, with TTNN's names (short forms as on the command line).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ttt::inline v2 {

enum class DataType : std::uint8_t {
  f32,     // ttnn.float32
  bf16,    // ttnn.bfloat16
  bfp8_b,  // ttnn.bfloat8_b: 16 neighbours of a row share an 8-bit exponent; 1,088 bytes per 32x32 tile
  bfp4_b,  // ttnn.bfloat4_b: the same with 4-bit values; 576 bytes per tile
  i32,     // ttnn.int32
  u32,     // ttnn.uint32
  u16,     // ttnn.uint16
  u8,      // ttnn.uint8
};

std::string_view name(DataType);         // "f32", "bf16", ...
DataType parse_dtype(std::string_view);  // also TTNN's long names; Error names the choices
constexpr bool is_block_float(DataType t) { return t == DataType::bfp8_b || t == DataType::bfp4_b; }
constexpr bool is_float(DataType t) { return t <= DataType::bfp4_b; }

// Bytes of one element; 0 for the block formats, which exist per tile only.
constexpr std::size_t element_size(DataType t) {
  switch (t) {
    case DataType::f32:
    case DataType::i32:
    case DataType::u32:
      return 4;
    case DataType::bf16:
    case DataType::u16:
      return 2;
    case DataType::u8:
      return 1;
    default:
      return 0;
  }
}

// A bfloat16 as stored. Conversion from float rounds to nearest even; NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  explicit constexpr BFloat16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const bool nan = (word & 0x7FFFFFFFu) > 0x7F800000u;
    bits =
        static_cast<std::uint16_t>(nan ? (word >> 16 | 0x40u) : (word + 0x7FFFu + (word >> 16 & 1u)) >> 16);
  }
  constexpr operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

constexpr float round_to_bf16(float value) { return BFloat16(value); }

}  // namespace ttt::inline v2

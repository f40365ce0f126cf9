#include "pack.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "ttt/tensor/block_float.h"

namespace ttt::inline v2::cpu {

namespace {

constexpr int halves = panel_width / face_size;

// Byte of output n (of 16), input k (of 4).
constexpr int bfp8_byte(int n, int k) { return n / 4 * 16 + k / 2 * 8 + n % 4 * 2 + k % 2; }

// Sixteen outputs of one half for all inputs of a tile: exponents[k] and signed codes[n][k]. Equal to
// encode_block of ttt/tensor/block_float.h on every column; arranged so that the loops over k become vector
// instructions.
template <int Bits>
void encode_columns(const std::uint32_t (&words)[face_size][tile_depth], std::uint8_t* exponents,
                    std::int8_t (&codes)[face_size][tile_depth]) {
  constexpr std::uint32_t limit = (1u << Bits) - 1;
  constexpr int shift = 24 - Bits;
  std::uint32_t largest[tile_depth] = {};
  for (int n = 0; n < face_size; ++n) {
    for (int k = 0; k < tile_depth; ++k) largest[k] = std::max(largest[k], words[n][k] & 0x7FFFFFFFu);
  }
  for (int k = 0; k < tile_depth; ++k) exponents[k] = static_cast<std::uint8_t>(largest[k] >> 23);
  for (int n = 0; n < face_size; ++n) {
    for (int k = 0; k < tile_depth; ++k) {
      const std::uint32_t magnitude = words[n][k] & 0x7FFFFFFFu, exponent = magnitude >> 23;
      const std::uint32_t drop = (largest[k] >> 23) - exponent;
      const std::uint32_t full = (magnitude & 0x7FFFFFu) | 0x800000u;
      const std::uint32_t kept = exponent == 0 || drop > 23 ? 0u : full >> (drop & 31u);
      const std::uint32_t rounded = (kept + ((1u << (shift - 1)) - 1) + (kept >> shift & 1u)) >> shift;
      const auto code = static_cast<std::int32_t>(std::min(rounded, limit));
      codes[n][k] = static_cast<std::int8_t>(words[n][k] >> 31 ? -code : code);
    }
  }
}

template <int Bits>
void pack_block_tiles(const Packed& p, const float* values, std::int64_t ld, std::int64_t outputs,
                      std::byte* panel) {
  auto* tile = reinterpret_cast<std::uint8_t*>(panel);
  for (std::int64_t t = 0; t < p.tiles(); ++t, tile += packed_tile_bytes(p.format)) {
    const std::int64_t k0 = t * tile_depth, depth = std::min<std::int64_t>(tile_depth, p.in - k0);
    std::memset(tile, 0, packed_tile_bytes(p.format));
    for (int h = 0; h < halves; ++h) {
      std::uint32_t words[face_size][tile_depth] = {};
      for (int n = 0; n < face_size && h * face_size + n < outputs; ++n) {
        std::memcpy(words[n], values + (h * face_size + n) * ld + k0, static_cast<std::size_t>(depth) * 4);
      }
      std::int8_t codes[face_size][tile_depth];
      encode_columns<Bits>(words, tile + h * tile_depth, codes);
      std::uint8_t* body = tile + 64 + h * 64;
      if constexpr (Bits == 7) {
        for (int g = 0; g < tile_depth / 4; ++g) {
          for (int n = 0; n < face_size; ++n) {
            for (int k = 0; k < 4; ++k)
              body[g * 128 + bfp8_byte(n, k)] = static_cast<std::uint8_t>(codes[n][g * 4 + k]);
          }
        }
      } else {
        for (int g = 0; g < tile_depth / 8; ++g) {
          for (int n = 0; n < face_size; ++n) {
            std::uint32_t word = 0;
            for (int k = 0; k < 8; ++k) {
              const int code = codes[n][g * 8 + k];
              const std::uint32_t nibble = static_cast<std::uint32_t>(code < 0 ? 8 - code : code);
              word |= nibble << (k / 2 * 4 + k % 2 * 16);
            }
            std::memcpy(body + g * 128 + n * 4, &word, 4);
          }
        }
      }
    }
  }
}

}  // namespace

void pack_panel(const Packed& p, const float* values, std::int64_t ld, std::int64_t outputs,
                std::byte* panel) {
  const std::int64_t padded = p.tiles() * tile_depth;
  switch (p.format) {
    case Format::f32: {
      std::memset(panel, 0, p.panel_bytes());
      auto* to = reinterpret_cast<float*>(panel);
      constexpr std::int64_t strip = 16;  // keeps the written lines in the cache
      for (std::int64_t k0 = 0; k0 < p.in; k0 += strip) {
        for (std::int64_t n = 0; n < outputs; ++n) {
          for (std::int64_t k = k0; k < std::min(k0 + strip, p.in); ++k)
            to[k * panel_width + n] = values[n * ld + k];
        }
      }
      return;
    }
    case Format::bf16: {
      auto* to = reinterpret_cast<std::uint16_t*>(panel);
      for (std::int64_t k = 0; k < padded; k += 2) {
        for (std::int64_t n = 0; n < panel_width; ++n) {
          for (std::int64_t i = 0; i < 2; ++i) {
            const bool inside = n < outputs && k + i < p.in;
            to[k * panel_width + n * 2 + i] =
                inside ? BFloat16(values[n * ld + k + i]).bits : std::uint16_t{0};
          }
        }
      }
      return;
    }
    case Format::bfp8_b:
      return pack_block_tiles<7>(p, values, ld, outputs, panel);
    case Format::bfp4_b:
      return pack_block_tiles<3>(p, values, ld, outputs, panel);
  }
}

void unpack_panel(const Packed& p, const std::byte* panel, std::int64_t count, float* values,
                  std::int64_t ld) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(panel);
  const std::size_t tile_bytes = packed_tile_bytes(p.format);
  for (std::int64_t n = 0; n < count; ++n) {
    for (std::int64_t k = 0; k < p.in; ++k) {
      const std::uint8_t* tile = bytes + static_cast<std::size_t>(k / tile_depth) * tile_bytes;
      const int i = static_cast<int>(k % tile_depth), m = static_cast<int>(n % face_size),
                h = static_cast<int>(n / face_size);
      float value = 0;
      if (p.format == Format::f32) {
        std::memcpy(&value, tile + (i * panel_width + n) * 4, 4);
      } else if (p.format == Format::bf16) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, tile + (i / 2 * panel_width * 2 + n * 2 + i % 2) * 2, 2);
        value = std::bit_cast<float>(std::uint32_t{bits} << 16);
      } else {
        BlockFloat16 one;
        one.exponent = tile[h * tile_depth + i];
        const std::uint8_t* body = tile + 64 + h * 64;
        if (p.format == Format::bfp8_b) {
          const int code = static_cast<std::int8_t>(body[i / 4 * 128 + bfp8_byte(m, i % 4)]);
          one.values[0] = static_cast<std::uint8_t>(code < 0 ? 0x80 | -code : code);
        } else {
          std::uint32_t word = 0;
          std::memcpy(&word, body + i / 8 * 128 + m * 4, 4);
          one.values[0] = static_cast<std::uint8_t>(word >> (i % 8 / 2 * 4 + i % 2 * 16) & 15u);
        }
        float decoded[face_size];
        decode_block(one, p.format == Format::bfp8_b ? DataType::bfp8_b : DataType::bfp4_b, decoded);
        value = decoded[0];
      }
      values[n * ld + k] = value;
    }
  }
}

}  // namespace ttt::inline v2::cpu

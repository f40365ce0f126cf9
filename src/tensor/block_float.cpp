#include "ttt/tensor/block_float.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

constexpr std::uint32_t exponent_mask = 0xFF, mantissa_mask = 0x7FFFFF, hidden_bit = 0x800000;

// 2^n for -149 <= n <= 127.
float power_of_two(int n) {
  if (n < -126) return std::bit_cast<float>(std::uint32_t{1} << (n + 149));
  return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23);
}

// From the 24-bit mantissa already aligned to the shared exponent to sign and magnitude.
template <int Bits>
std::uint32_t round_code(std::uint32_t mantissa, std::uint32_t sign) {
  constexpr int shift = 24 - Bits;
  constexpr std::uint32_t limit = (1u << Bits) - 1;
  // Nearest even: half minus one, plus the bit that will be the last one.
  const std::uint32_t rounded = (mantissa + ((1u << (shift - 1)) - 1) + (mantissa >> shift & 1u)) >> shift;
  const std::uint32_t magnitude = std::min(rounded, limit);
  return magnitude == 0 ? 0u : magnitude | sign << Bits;
}

// `codes` receives one value per byte.
template <int Bits>
std::uint8_t encode(const float* values, std::uint8_t* codes) {
  std::uint32_t words[face_size];
  std::uint32_t largest = 0;
  for (int i = 0; i < face_size; ++i) {
    words[i] = std::bit_cast<std::uint32_t>(values[i]);
    largest = std::max(largest, words[i] & 0x7FFFFFFFu);
  }
  const std::uint32_t shared = largest >> 23;
  if (shared == exponent_mask) {
    for (int i = 0; i < face_size; ++i) {
      const std::uint32_t exponent = words[i] >> 23 & exponent_mask, drop = shared - exponent;
      const std::uint32_t mantissa =
          exponent == 0 || drop > 23 ? 0 : ((words[i] & mantissa_mask) | hidden_bit) >> drop;
      codes[i] = static_cast<std::uint8_t>(round_code<Bits>(mantissa, words[i] >> 31));
    }
    return static_cast<std::uint8_t>(shared);
  }
  // Truncating |x| * 2^(150 - shared) is the alignment shift; in floating point it needs no shift by a
  // variable, so it vectorises everywhere. Two factors, because one could overflow; each product is exact or
  // truncates to zero.
  const int scale = 150 - static_cast<int>(shared);
  const float first = power_of_two(scale / 2), second = power_of_two(scale - scale / 2);
  for (int i = 0; i < face_size; ++i) {
    const std::uint32_t magnitude = words[i] & 0x7FFFFFFFu;
    const float aligned = std::bit_cast<float>(magnitude) * first * second;
    const auto mantissa = static_cast<std::uint32_t>(static_cast<std::int32_t>(aligned));
    const std::uint32_t denormal = magnitude <= mantissa_mask ? 0u : ~0u;
    codes[i] = static_cast<std::uint8_t>(round_code<Bits>(mantissa & denormal, words[i] >> 31));
  }
  return static_cast<std::uint8_t>(shared);
}

template <int Bits>
void decode(std::uint8_t exponent, const std::uint8_t* codes, float* values) {
  const float scale = power_of_two(static_cast<int>(exponent) - 127 - (Bits - 1));
  for (int i = 0; i < face_size; ++i) {
    const int code = codes[i], negative = -(code >> Bits & 1);  // 0 or -1: no branch, so that it vectorises
    values[i] = static_cast<float>(((code & ((1 << Bits) - 1)) ^ negative) - negative) * scale;
  }
  if (exponent != exponent_mask) return;
  // The leading magnitude bit is the float's hidden one: with this exponent it makes an Inf or NaN again.
  for (int i = 0; i < face_size; ++i) {
    const std::uint32_t code = codes[i], leading = 1u << (Bits - 1);
    if ((code & leading) == 0) continue;
    values[i] =
        std::bit_cast<float>((code >> Bits & 1) << 31 | 0x7F800000u | (code & (leading - 1)) << (24 - Bits));
  }
}

int magnitude_bits(DataType type) {
  if (type == DataType::bfp8_b) return 7;
  if (type == DataType::bfp4_b) return 3;
  throw Error("no block format: " + std::string(name(type)), {}, "use bfp8_b or bfp4_b");
}

// Where the 16 values of row `r` (0..31), half `h` (0 left, 1 right) of a tile stand: its shared exponent's
// index.
constexpr int group_index(int r, int h) { return (r / face_size * 2 + h) * face_size + r % face_size; }

struct Extent {
  std::size_t tile_rows, tile_cols, bytes;
};

Extent extent(std::int64_t rows, std::int64_t cols, DataType type) {
  magnitude_bits(type);
  constexpr std::int64_t limit = std::int64_t{1} << 40;
  if (rows < 0 || cols < 0 || rows > limit || cols > limit) {
    throw Error("a matrix of " + std::to_string(rows) + " x " + std::to_string(cols) +
                " values cannot be packed");
  }
  const auto tiles = [](std::int64_t n) { return static_cast<std::size_t>((n + tile_size - 1) / tile_size); };
  Extent e{tiles(rows), tiles(cols), 0};
  if (__builtin_mul_overflow(e.tile_rows, e.tile_cols, &e.bytes) ||
      __builtin_mul_overflow(e.bytes, tile_bytes(type), &e.bytes)) {
    throw Error("a matrix of " + std::to_string(rows) + " x " + std::to_string(cols) +
                " values is too large to pack");
  }
  return e;
}

void check_values(std::size_t size, std::int64_t rows, std::int64_t cols) {
  std::int64_t count = 0;
  if (__builtin_mul_overflow(rows, cols, &count) || size != static_cast<std::size_t>(count)) {
    throw Error(std::to_string(size) + " values for a matrix of " + std::to_string(rows) + " x " +
                std::to_string(cols));
  }
}

template <int Bits>
void pack(const float* values, std::int64_t rows, std::int64_t cols, const Extent& e, std::uint8_t* out) {
  for (std::size_t tile_row = 0; tile_row < e.tile_rows; ++tile_row) {
    for (std::size_t tile_col = 0; tile_col < e.tile_cols; ++tile_col) {
      std::uint8_t* body = out + 64;
      for (int r = 0; r < tile_size; ++r) {
        const std::int64_t row = static_cast<std::int64_t>(tile_row) * tile_size + r;
        if (row >= rows) break;
        for (int h = 0; h < 2; ++h) {
          const std::int64_t col = static_cast<std::int64_t>(tile_col) * tile_size + h * face_size;
          if (col >= cols) break;
          const float* from = values + row * cols + col;
          float padded[face_size] = {};
          if (cols - col < face_size) {
            std::copy_n(from, cols - col, padded);
            from = padded;
          }
          std::uint8_t codes[face_size];
          const int group = group_index(r, h);
          out[group] = encode<Bits>(from, codes);
          if constexpr (Bits == 7) {
            std::copy_n(codes, face_size, body + group * face_size);
          } else {
            for (int i = 0; i < face_size / 2; ++i) {
              body[group * face_size / 2 + i] =
                  static_cast<std::uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
            }
          }
        }
      }
      out += 64 + (Bits == 7 ? 1024 : 512);
    }
  }
}

template <int Bits>
void unpack(const std::uint8_t* in, std::int64_t rows, std::int64_t cols, const Extent& e, float* values) {
  for (std::size_t tile_row = 0; tile_row < e.tile_rows; ++tile_row) {
    for (std::size_t tile_col = 0; tile_col < e.tile_cols; ++tile_col) {
      const std::uint8_t* body = in + 64;
      for (int r = 0; r < tile_size; ++r) {
        const std::int64_t row = static_cast<std::int64_t>(tile_row) * tile_size + r;
        if (row >= rows) break;
        for (int h = 0; h < 2; ++h) {
          const std::int64_t col = static_cast<std::int64_t>(tile_col) * tile_size + h * face_size;
          if (col >= cols) break;
          const int group = group_index(r, h);
          std::uint8_t codes[face_size];
          if constexpr (Bits == 7) {
            std::copy_n(body + group * face_size, face_size, codes);
          } else {
            for (int i = 0; i < face_size / 2; ++i) {
              const std::uint8_t pair = body[group * face_size / 2 + i];
              codes[2 * i] = pair & 15, codes[2 * i + 1] = pair >> 4;
            }
          }
          float decoded[face_size];
          decode<Bits>(in[group], codes, decoded);
          std::copy_n(decoded, std::min<std::int64_t>(face_size, cols - col), values + row * cols + col);
        }
      }
      in += 64 + (Bits == 7 ? 1024 : 512);
    }
  }
}

}  // namespace

BlockFloat16 encode_block(const float* values, DataType type) {
  BlockFloat16 block;
  block.exponent =
      magnitude_bits(type) == 7 ? encode<7>(values, block.values) : encode<3>(values, block.values);
  return block;
}

void decode_block(const BlockFloat16& block, DataType type, float* values) {
  if (magnitude_bits(type) == 7) {
    decode<7>(block.exponent, block.values, values);
  } else {
    decode<3>(block.exponent, block.values, values);
  }
}

std::size_t packed_bytes(std::int64_t rows, std::int64_t cols, DataType type) {
  return extent(rows, cols, type).bytes;
}

std::vector<std::uint8_t> pack_tiles(std::span<const float> values, std::int64_t rows, std::int64_t cols,
                                     DataType type) {
  const Extent e = extent(rows, cols, type);
  check_values(values.size(), rows, cols);
  std::vector<std::uint8_t> out(e.bytes);
  if (type == DataType::bfp8_b) {
    pack<7>(values.data(), rows, cols, e, out.data());
  } else {
    pack<3>(values.data(), rows, cols, e, out.data());
  }
  return out;
}

std::vector<float> unpack_tiles(std::span<const std::uint8_t> bytes, std::int64_t rows, std::int64_t cols,
                                DataType type) {
  const Extent e = extent(rows, cols, type);
  if (bytes.size() != e.bytes) {
    throw Error(std::to_string(bytes.size()) + " packed bytes for a " + std::string(name(type)) +
                " matrix of " + std::to_string(rows) + " x " + std::to_string(cols) + ", which has " +
                std::to_string(e.bytes));
  }
  std::vector<float> values(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
  if (type == DataType::bfp8_b) {
    unpack<7>(bytes.data(), rows, cols, e, values.data());
  } else {
    unpack<3>(bytes.data(), rows, cols, e, values.data());
  }
  return values;
}

void round_to_block_float(std::span<float> values, std::int64_t rows, std::int64_t cols, DataType type) {
  const int bits = magnitude_bits(type);
  if (rows < 0 || cols < 0) throw Error("a matrix with a negative extent");
  check_values(values.size(), rows, cols);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; col += face_size) {
      const std::int64_t count = std::min<std::int64_t>(face_size, cols - col);
      float* at = values.data() + row * cols + col;
      float block[face_size] = {};
      std::copy_n(at, count, block);
      std::uint8_t codes[face_size];
      if (bits == 7) {
        decode<7>(encode<7>(block, codes), codes, block);
      } else {
        decode<3>(encode<3>(block, codes), codes, block);
      }
      std::copy_n(block, count, at);
    }
  }
}

}  // namespace ttt::inline v2

#include "ttt/convert/storage_type.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

// Every product and sum below is one float32 operation in the order of the reference; the build turns
// contraction into fused multiply-adds off for this file.

namespace ttt::inline v2 {

namespace {

struct Row {
  StorageType type;
  std::string_view name;
  BlockSize block;
  int ggml;                      // id in a GGUF file, -1: none
  std::string_view safetensors;  // dtype in a header, "": none
};

constexpr Row table[] = {
    {StorageType::f64, "F64", {1, 8}, 28, "F64"},
    {StorageType::f32, "F32", {1, 4}, 0, "F32"},
    {StorageType::f16, "F16", {1, 2}, 1, "F16"},
    {StorageType::bf16, "BF16", {1, 2}, 30, "BF16"},
    {StorageType::f8_e4m3, "F8_E4M3", {1, 1}, -1, "F8_E4M3"},
    {StorageType::f8_e5m2, "F8_E5M2", {1, 1}, -1, "F8_E5M2"},
    {StorageType::f8_e8m0, "F8_E8M0", {1, 1}, -1, "F8_E8M0"},
    {StorageType::i64, "I64", {1, 8}, 27, "I64"},
    {StorageType::i32, "I32", {1, 4}, 26, "I32"},
    {StorageType::i16, "I16", {1, 2}, 25, "I16"},
    {StorageType::i8, "I8", {1, 1}, 24, "I8"},
    {StorageType::u64, "U64", {1, 8}, -1, "U64"},
    {StorageType::u32, "U32", {1, 4}, -1, "U32"},
    {StorageType::u16, "U16", {1, 2}, -1, "U16"},
    {StorageType::u8, "U8", {1, 1}, -1, "U8"},
    {StorageType::boolean, "BOOL", {1, 1}, -1, "BOOL"},
    {StorageType::q4_0, "Q4_0", {32, 18}, 2, ""},
    {StorageType::q4_1, "Q4_1", {32, 20}, 3, ""},
    {StorageType::q5_0, "Q5_0", {32, 22}, 6, ""},
    {StorageType::q5_1, "Q5_1", {32, 24}, 7, ""},
    {StorageType::q8_0, "Q8_0", {32, 34}, 8, ""},
    {StorageType::q2_k, "Q2_K", {256, 84}, 10, ""},
    {StorageType::q3_k, "Q3_K", {256, 110}, 11, ""},
    {StorageType::q4_k, "Q4_K", {256, 144}, 12, ""},
    {StorageType::q5_k, "Q5_K", {256, 176}, 13, ""},
    {StorageType::q6_k, "Q6_K", {256, 210}, 14, ""},
    {StorageType::iq2_xxs, "IQ2_XXS", {256, 66}, 16, ""},
    {StorageType::iq2_xs, "IQ2_XS", {256, 74}, 17, ""},
    {StorageType::iq2_s, "IQ2_S", {256, 82}, 22, ""},
    {StorageType::iq3_xxs, "IQ3_XXS", {256, 98}, 18, ""},
    {StorageType::iq3_s, "IQ3_S", {256, 110}, 21, ""},
    {StorageType::iq1_s, "IQ1_S", {256, 50}, 19, ""},
    {StorageType::iq1_m, "IQ1_M", {256, 56}, 29, ""},
    {StorageType::iq4_nl, "IQ4_NL", {32, 18}, 20, ""},
    {StorageType::iq4_xs, "IQ4_XS", {256, 136}, 23, ""},
    {StorageType::tq1_0, "TQ1_0", {256, 54}, 34, ""},
    {StorageType::tq2_0, "TQ2_0", {256, 66}, 35, ""},
    {StorageType::mxfp4, "MXFP4", {32, 17}, 39, ""},
    {StorageType::nvfp4, "NVFP4", {64, 36}, 40, ""},
};

constexpr const Row& row(StorageType t) { return table[static_cast<std::size_t>(t)]; }

constexpr bool table_in_order() {
  for (std::size_t i = 0; i < std::size(table); ++i) {
    if (static_cast<std::size_t>(table[i].type) != i) return false;
  }
  return std::size(table) == static_cast<std::size_t>(StorageType::nvfp4) + 1;
}
static_assert(table_in_order());

using Byte = std::uint8_t;

template <class T>
T load(const Byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Without denormal arithmetic, so that no rounding mode of the thread matters.
inline float half(std::uint16_t h) {
  const std::uint32_t magnitude = h & 0x7FFFu, sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t normal =
      (magnitude << 13) +
      (magnitude >= 0x7C00u ? 0x70000000u : 0x38000000u);  // rebias 15 to 127; Inf and NaN
  const float small = std::bit_cast<float>((magnitude << 13) + 0x38800000u) - 0x1p-14f;
  const std::uint32_t bits = magnitude < 0x0400u ? std::bit_cast<std::uint32_t>(small) : normal;
  return std::bit_cast<float>(bits | sign);
}
inline float half(const Byte* p) { return half(load<std::uint16_t>(p)); }

// e4m3 ("fn": no infinities, one NaN) and e5m2 of the OCP 8-bit specification.
constexpr float small_float(unsigned bits, int mantissa_bits, int bias, bool infinities) {
  const unsigned exponent_mask = (0x7Fu >> mantissa_bits), mantissa_mask = (1u << mantissa_bits) - 1;
  const unsigned exponent = bits >> mantissa_bits & exponent_mask, mantissa = bits & mantissa_mask;
  const bool special = exponent == exponent_mask && (infinities || mantissa == mantissa_mask);
  if (special) {
    const bool nan = !infinities || mantissa != 0;
    return std::bit_cast<float>((bits & 0x80u) << 24 | (nan ? 0x7FC00000u : 0x7F800000u));
  }
  float value = static_cast<float>(exponent == 0 ? mantissa : mantissa | (1u << mantissa_bits));
  for (int e = static_cast<int>(std::max(exponent, 1u)) - bias - mantissa_bits; e != 0; e += e < 0 ? 1 : -1)
    value *= e < 0 ? 0.5f : 2.0f;
  return bits & 0x80u ? -value : value;
}

constexpr auto small_floats(int mantissa_bits, int bias, bool infinities) {
  std::array<float, 256> values{};
  for (unsigned i = 0; i < 256; ++i) values[i] = small_float(i, mantissa_bits, bias, infinities);
  return values;
}
constexpr std::array<float, 256> e4m3 = small_floats(3, 7, false), e5m2 = small_floats(2, 15, true);

inline float e8m0(Byte e) {
  if (e == 0xFF) return std::bit_cast<float>(0x7FC00000u);
  return std::bit_cast<float>(e == 0 ? 0x00400000u : static_cast<std::uint32_t>(e) << 23);
}
// Half of e8m0: ggml keeps the E2M1 values doubled.
inline float e8m0_half(Byte e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<std::uint32_t>(e - 1) << 23);
}

constexpr std::int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr std::int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                        1,    13,   25,  38,  53,  69,  89,  113};

#include "convert/iq_grids.inc"

// The points of a lattice, in order; `Coordinates` values of `values` each.
template <int Points, int Coordinates, int Base, std::size_t Words>
constexpr auto lattice(const std::uint64_t (&bits)[Words], const std::int8_t (&values)[Base]) {
  std::array<std::array<std::int8_t, Coordinates>, Points> points{};
  std::size_t n = 0;
  for (std::size_t code = 0; code < Words * 64; ++code) {
    if ((bits[code / 64] >> code % 64 & 1) == 0) continue;
    std::size_t rest = code;
    for (int i = 0; i < Coordinates; ++i) {
      points[n][static_cast<std::size_t>(i)] = values[rest % Base];
      rest /= Base;
    }
    ++n;
  }
  return points;
}

constexpr std::int8_t iq1_values[3] = {-1, 0, 1}, iq2_values[3] = {0x08, 0x19, 0x2b};
constexpr std::int8_t iq3_xxs_values[8] = {0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e};
constexpr std::int8_t iq3_s_values[8] = {1, 3, 5, 7, 9, 11, 13, 15};

constexpr auto iq2_xxs_grid = lattice<256, 8, 3>(iq2_xxs_points, iq2_values);
constexpr auto iq2_xs_grid = lattice<512, 8, 3>(iq2_xs_points, iq2_values);
constexpr auto iq2_s_grid = lattice<1024, 8, 3>(iq2_s_points, iq2_values);
constexpr auto iq3_xxs_grid = lattice<256, 4, 8>(iq3_xxs_points, iq3_xxs_values);
constexpr auto iq3_s_grid = lattice<512, 4, 8>(iq3_s_points, iq3_s_values);
constexpr auto iq1_s_grid = lattice<2048, 8, 3>(iq1_s_points, iq1_values);

// Seven stored signs; the eighth makes their number even.
inline Byte even_signs(std::uint32_t seven) {
  return static_cast<Byte>(seven | static_cast<std::uint32_t>(std::popcount(seven) & 1) << 7);
}

template <int N>
void signed_point(float scale, const std::array<std::int8_t, N>& point, unsigned signs, float* y) {
  for (int i = 0; i < N; ++i) {
    const float value = scale * static_cast<float>(point[static_cast<std::size_t>(i)]);
    y[i] = signs >> i & 1 ? -value : value;
  }
}

// The 6-bit scales and minima of Q4_K and Q5_K: twelve bytes, eight of each.
struct ScaleMin {
  Byte scale[8], min[8];
  explicit ScaleMin(const Byte* p) {
    for (int i = 0; i < 4; ++i) {
      scale[i] = p[i] & 63;
      min[i] = p[i + 4] & 63;
      scale[i + 4] = static_cast<Byte>((p[i + 8] & 15) | (p[i] >> 2 & 0x30));
      min[i + 4] = static_cast<Byte>(p[i + 8] >> 4 | (p[i + 4] >> 2 & 0x30));
    }
  }
};

template <StorageType T>
void block(const Byte* b, float* y) {
  if constexpr (T == StorageType::q4_0) {
    const float d = half(b);
    for (int i = 0; i < 16; ++i) {
      y[i] = d * static_cast<float>((b[2 + i] & 15) - 8);
      y[i + 16] = d * static_cast<float>((b[2 + i] >> 4) - 8);
    }
  } else if constexpr (T == StorageType::q4_1) {
    const float d = half(b), m = half(b + 2);
    for (int i = 0; i < 16; ++i) {
      y[i] = d * static_cast<float>(b[4 + i] & 15) + m;
      y[i + 16] = d * static_cast<float>(b[4 + i] >> 4) + m;
    }
  } else if constexpr (T == StorageType::q5_0 || T == StorageType::q5_1) {
    constexpr bool with_min = T == StorageType::q5_1;
    const float d = half(b), m = with_min ? half(b + 2) : 0;
    const auto high = load<std::uint32_t>(b + (with_min ? 4 : 2));
    const Byte* q = b + (with_min ? 8 : 6);
    for (int i = 0; i < 32; ++i) {
      const int low = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
      const int value = low | static_cast<int>(high >> i & 1) << 4;
      y[i] = with_min ? d * static_cast<float>(value) + m : d * static_cast<float>(value - 16);
    }
  } else if constexpr (T == StorageType::q8_0) {
    const float d = half(b);
    for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<std::int8_t>(b[2 + i])) * d;
  } else if constexpr (T == StorageType::q2_k) {
    const float d = half(b + 80), dmin = half(b + 82);
    for (int g = 0; g < 16; ++g) {  // 16 values each
      const float dl = d * static_cast<float>(b[g] & 15), ml = dmin * static_cast<float>(b[g] >> 4);
      const Byte* q = b + 16 + g / 8 * 32 + g % 2 * 16;
      for (int i = 0; i < 16; ++i) y[g * 16 + i] = dl * static_cast<float>(q[i] >> g % 8 / 2 * 2 & 3) - ml;
    }
  } else if constexpr (T == StorageType::q3_k) {
    const Byte *high = b, *q = b + 32, *packed = b + 96;
    const float d = half(b + 108);
    for (int g = 0; g < 16; ++g) {
      const int low4 = packed[g % 8] >> g / 8 * 4 & 15, high2 = packed[8 + g % 4] >> g / 4 * 2 & 3;
      const float dl = d * static_cast<float>((low4 | high2 << 4) - 32);
      for (int i = 0; i < 16; ++i) {
        const int at = g % 2 * 16 + i;
        const int value = (q[g / 8 * 32 + at] >> g % 8 / 2 * 2 & 3) - (high[at] >> g / 2 & 1 ? 0 : 4);
        y[g * 16 + i] = dl * static_cast<float>(value);
      }
    }
  } else if constexpr (T == StorageType::q4_k || T == StorageType::q5_k) {
    const float d = half(b), dmin = half(b + 2);
    const ScaleMin sm(b + 4);
    const Byte* high = b + 16;
    const Byte* q = b + (T == StorageType::q5_k ? 48 : 16);
    for (int g = 0; g < 8; ++g) {  // 32 values each
      const float dl = d * static_cast<float>(sm.scale[g]), ml = dmin * static_cast<float>(sm.min[g]);
      for (int i = 0; i < 32; ++i) {
        int value = q[g / 2 * 32 + i] >> g % 2 * 4 & 15;
        if constexpr (T == StorageType::q5_k) value |= (high[i] >> g & 1) << 4;
        y[g * 32 + i] = dl * static_cast<float>(value) - ml;
      }
    }
  } else if constexpr (T == StorageType::q6_k) {
    const Byte *low = b, *high = b + 128, *scales = b + 192;
    const float d = half(b + 208);
    for (int g = 0; g < 8; ++g) {  // 32 values each, two scales
      const Byte *l = low + g / 4 * 64 + g % 2 * 32, *h = high + g / 4 * 32;
      for (int s = 0; s < 2; ++s) {
        const float dl = d * static_cast<float>(static_cast<std::int8_t>(scales[g * 2 + s]));
        for (int i = s * 16; i < s * 16 + 16; ++i) {
          const int value = (l[i] >> g % 4 / 2 * 4 & 15) | (h[i] >> g % 4 * 2 & 3) << 4;
          y[g * 32 + i] = dl * static_cast<float>(value - 32);
        }
      }
    }
  } else if constexpr (T == StorageType::iq2_xxs) {
    const float d = half(b);
    for (int g = 0; g < 8; ++g) {
      const Byte* q = b + 2 + g * 8;
      const auto rest = load<std::uint32_t>(q + 4);
      const float db = d * (0.5f + static_cast<float>(rest >> 28)) * 0.25f;
      for (int k = 0; k < 4; ++k)
        signed_point<8>(db, iq2_xxs_grid[q[k]], even_signs(rest >> 7 * k & 127), y + g * 32 + k * 8);
    }
  } else if constexpr (T == StorageType::iq2_xs) {
    const float d = half(b);
    for (int g = 0; g < 16; ++g) {
      const float db = d * (0.5f + static_cast<float>(b[66 + g / 2] >> g % 2 * 4 & 15)) * 0.25f;
      for (int k = 0; k < 2; ++k) {
        const auto q = load<std::uint16_t>(b + 2 + g * 4 + k * 2);
        signed_point<8>(db, iq2_xs_grid[q & 511], even_signs(q >> 9), y + g * 16 + k * 8);
      }
    }
  } else if constexpr (T == StorageType::iq2_s) {
    const float d = half(b);
    const Byte *q = b + 2, *signs = b + 34, *high = b + 66, *scales = b + 74;
    for (int g = 0; g < 32; ++g) {
      const float db = d * (0.5f + static_cast<float>(scales[g / 4] >> g / 2 % 2 * 4 & 15)) * 0.25f;
      const int index = q[g] | (high[g / 4] >> g % 4 * 2 & 3) << 8;
      signed_point<8>(db, iq2_s_grid[static_cast<std::size_t>(index)], signs[g], y + g * 8);
    }
  } else if constexpr (T == StorageType::iq3_xxs) {
    const float d = half(b);
    for (int g = 0; g < 8; ++g) {
      const auto rest = load<std::uint32_t>(b + 66 + g * 4);
      const float db = d * (0.5f + static_cast<float>(rest >> 28)) * 0.5f;
      for (int k = 0; k < 8; ++k) {
        const unsigned signs = even_signs(rest >> k / 2 * 7 & 127);
        signed_point<4>(db, iq3_xxs_grid[b[2 + g * 8 + k]], signs >> k % 2 * 4, y + g * 32 + k * 4);
      }
    }
  } else if constexpr (T == StorageType::iq3_s) {
    const float d = half(b);
    const Byte *q = b + 2, *high = b + 66, *signs = b + 74, *scales = b + 106;
    for (int g = 0; g < 64; ++g) {
      const float db = d * static_cast<float>(1 + 2 * (scales[g / 16] >> g / 8 % 2 * 4 & 15));
      const int index = q[g] | (high[g / 8] >> g % 8 & 1) << 8;
      signed_point<4>(db, iq3_s_grid[static_cast<std::size_t>(index)], signs[g / 2] >> g % 2 * 4, y + g * 4);
    }
  } else if constexpr (T == StorageType::iq1_s) {
    const float d = half(b);
    for (int g = 0; g < 8; ++g) {
      const auto high = load<std::uint16_t>(b + 34 + g * 2);
      const float dl = d * static_cast<float>(2 * (high >> 12 & 7) + 1),
                  delta = high & 0x8000 ? -0.125f : 0.125f;
      for (int k = 0; k < 4; ++k) {
        const int index = b[2 + g * 4 + k] | (high >> 3 * k & 7) << 8;
        const auto& point = iq1_s_grid[static_cast<std::size_t>(index)];
        for (std::size_t i = 0; i < 8; ++i)
          y[g * 32 + k * 8 + static_cast<int>(i)] = dl * (static_cast<float>(point[i]) + delta);
      }
    }
  } else if constexpr (T == StorageType::iq1_m) {
    const Byte *q = b, *high = b + 32, *scales = b + 48;
    std::uint16_t words[4];
    unsigned scale_bits = 0;
    for (int i = 0; i < 4; ++i) {
      words[i] = load<std::uint16_t>(scales + 2 * i);
      scale_bits |= (words[i] & 0xF000u) >> (12 - 4 * i);
    }
    const float d = half(static_cast<std::uint16_t>(scale_bits));
    for (int g = 0; g < 32; ++g) {
      const float dl = d * static_cast<float>(2 * (words[g / 8] >> g / 2 % 4 * 3 & 7) + 1);
      const int h = high[g / 2] >> g % 2 * 4;
      const float delta = h & 8 ? -0.125f : 0.125f;
      const auto& point = iq1_s_grid[static_cast<std::size_t>(q[g] | (h & 7) << 8)];
      for (std::size_t i = 0; i < 8; ++i)
        y[g * 8 + static_cast<int>(i)] = dl * (static_cast<float>(point[i]) + delta);
    }
  } else if constexpr (T == StorageType::iq4_nl) {
    const float d = half(b);
    for (int i = 0; i < 16; ++i) {
      y[i] = d * static_cast<float>(iq4_values[b[2 + i] & 15]);
      y[i + 16] = d * static_cast<float>(iq4_values[b[2 + i] >> 4]);
    }
  } else if constexpr (T == StorageType::iq4_xs) {
    const float d = half(b);
    const auto high = load<std::uint16_t>(b + 2);
    for (int g = 0; g < 8; ++g) {
      const int scale = (b[4 + g / 2] >> g % 2 * 4 & 15) | (high >> 2 * g & 3) << 4;
      const float dl = d * static_cast<float>(scale - 32);
      const Byte* q = b + 8 + g * 16;
      for (int i = 0; i < 16; ++i) {
        y[g * 32 + i] = dl * static_cast<float>(iq4_values[q[i] & 15]);
        y[g * 32 + i + 16] = dl * static_cast<float>(iq4_values[q[i] >> 4]);
      }
    }
  } else if constexpr (T == StorageType::tq1_0) {
    const float d = half(b + 52);
    // Base-3 digits of a byte, most significant first, as a fraction of 256.
    const auto digits = [&](const Byte* q, int width, int count, float* out) {
      static constexpr unsigned power[5] = {1, 3, 9, 27, 81};
      for (int k = 0; k < count; ++k) {
        for (int i = 0; i < width; ++i) {
          const unsigned shifted = (q[i] * power[k]) & 255u;
          out[k * width + i] = d * static_cast<float>(static_cast<int>(shifted * 3 >> 8) - 1);
        }
      }
    };
    digits(b, 32, 5, y);
    digits(b + 32, 16, 5, y + 160);
    digits(b + 48, 4, 4, y + 240);
  } else if constexpr (T == StorageType::tq2_0) {
    const float d = half(b + 64);
    for (int g = 0; g < 8; ++g) {
      for (int i = 0; i < 32; ++i)
        y[g * 32 + i] = d * static_cast<float>((b[g / 4 * 32 + i] >> g % 4 * 2 & 3) - 1);
    }
  } else if constexpr (T == StorageType::mxfp4) {
    const float d = e8m0_half(b[0]);
    for (int i = 0; i < 16; ++i) {
      y[i] = d * static_cast<float>(e2m1_doubled[b[1 + i] & 15]);
      y[i + 16] = d * static_cast<float>(e2m1_doubled[b[1 + i] >> 4]);
    }
  } else if constexpr (T == StorageType::nvfp4) {
    for (int g = 0; g < 4; ++g) {
      const Byte s = b[g];
      // An unsigned e4m3 whose top bit does not count; the values below are doubled, hence the half.
      const int exponent = s >> 3 & 15;
      const float raw = exponent == 0 ? static_cast<float>(s & 7) * 0x1p-9f
                                      : std::ldexp(1.0f + static_cast<float>(s & 7) / 8.0f, exponent - 7);
      const float d = s == 0 || s == 0x7F ? 0.0f : raw * 0.5f;
      for (int i = 0; i < 8; ++i) {
        y[g * 16 + i] = d * static_cast<float>(e2m1_doubled[b[4 + g * 8 + i] & 15]);
        y[g * 16 + i + 8] = d * static_cast<float>(e2m1_doubled[b[4 + g * 8 + i] >> 4]);
      }
    }
  }
}

template <StorageType T>
void blocks(const Byte* bytes, std::size_t count, float* out) {
  constexpr BlockSize size = row(T).block;
  for (std::size_t i = 0; i < count / size.values; ++i, bytes += size.bytes, out += size.values)
    block<T>(bytes, out);
}

template <class T>
void numbers(const Byte* bytes, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(load<T>(bytes + i * sizeof(T)));
}

}  // namespace

std::string_view name(StorageType t) { return row(t).name; }
BlockSize block_size(StorageType t) { return row(t).block; }

bool exact_in(StorageType stored, DataType t) {
  if (t == DataType::f32) {
    switch (stored) {
      case StorageType::f64:
      case StorageType::i64:
      case StorageType::i32:
      case StorageType::u64:
      case StorageType::u32:
        return false;
      default:
        return true;
    }
  }
  if (t == DataType::bf16) {
    switch (stored) {
      case StorageType::bf16:
      case StorageType::f8_e4m3:
      case StorageType::f8_e5m2:
      case StorageType::f8_e8m0:
      case StorageType::i8:
      case StorageType::u8:
      case StorageType::boolean:
      case StorageType::mxfp4:
      case StorageType::nvfp4:
        return true;
      default:
        return false;
    }
  }
  return false;
}

void to_float(StorageType type, const std::byte* data, std::size_t count, float* out) {
  if (count == 0) return;  // either pointer may be null
  const Byte* bytes = reinterpret_cast<const Byte*>(data);
  switch (type) {
    case StorageType::f64:
      return numbers<double>(bytes, count, out);
    case StorageType::f32:
      std::memcpy(out, bytes, count * sizeof(float));
      return;
    case StorageType::f16:
      for (std::size_t i = 0; i < count; ++i) out[i] = half(bytes + 2 * i);
      return;
    case StorageType::bf16:
      for (std::size_t i = 0; i < count; ++i)
        out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(bytes + 2 * i)) << 16);
      return;
    case StorageType::f8_e4m3:
      for (std::size_t i = 0; i < count; ++i) out[i] = e4m3[bytes[i]];
      return;
    case StorageType::f8_e5m2:
      for (std::size_t i = 0; i < count; ++i) out[i] = e5m2[bytes[i]];
      return;
    case StorageType::f8_e8m0:
      for (std::size_t i = 0; i < count; ++i) out[i] = e8m0(bytes[i]);
      return;
    case StorageType::i64:
      return numbers<std::int64_t>(bytes, count, out);
    case StorageType::i32:
      return numbers<std::int32_t>(bytes, count, out);
    case StorageType::i16:
      return numbers<std::int16_t>(bytes, count, out);
    case StorageType::i8:
      return numbers<std::int8_t>(bytes, count, out);
    case StorageType::u64:
      return numbers<std::uint64_t>(bytes, count, out);
    case StorageType::u32:
      return numbers<std::uint32_t>(bytes, count, out);
    case StorageType::u16:
      return numbers<std::uint16_t>(bytes, count, out);
    case StorageType::u8:
      return numbers<std::uint8_t>(bytes, count, out);
    case StorageType::boolean:
      for (std::size_t i = 0; i < count; ++i) out[i] = bytes[i] != 0 ? 1.0f : 0.0f;
      return;
    case StorageType::q4_0:
      return blocks<StorageType::q4_0>(bytes, count, out);
    case StorageType::q4_1:
      return blocks<StorageType::q4_1>(bytes, count, out);
    case StorageType::q5_0:
      return blocks<StorageType::q5_0>(bytes, count, out);
    case StorageType::q5_1:
      return blocks<StorageType::q5_1>(bytes, count, out);
    case StorageType::q8_0:
      return blocks<StorageType::q8_0>(bytes, count, out);
    case StorageType::q2_k:
      return blocks<StorageType::q2_k>(bytes, count, out);
    case StorageType::q3_k:
      return blocks<StorageType::q3_k>(bytes, count, out);
    case StorageType::q4_k:
      return blocks<StorageType::q4_k>(bytes, count, out);
    case StorageType::q5_k:
      return blocks<StorageType::q5_k>(bytes, count, out);
    case StorageType::q6_k:
      return blocks<StorageType::q6_k>(bytes, count, out);
    case StorageType::iq2_xxs:
      return blocks<StorageType::iq2_xxs>(bytes, count, out);
    case StorageType::iq2_xs:
      return blocks<StorageType::iq2_xs>(bytes, count, out);
    case StorageType::iq2_s:
      return blocks<StorageType::iq2_s>(bytes, count, out);
    case StorageType::iq3_xxs:
      return blocks<StorageType::iq3_xxs>(bytes, count, out);
    case StorageType::iq3_s:
      return blocks<StorageType::iq3_s>(bytes, count, out);
    case StorageType::iq1_s:
      return blocks<StorageType::iq1_s>(bytes, count, out);
    case StorageType::iq1_m:
      return blocks<StorageType::iq1_m>(bytes, count, out);
    case StorageType::iq4_nl:
      return blocks<StorageType::iq4_nl>(bytes, count, out);
    case StorageType::iq4_xs:
      return blocks<StorageType::iq4_xs>(bytes, count, out);
    case StorageType::tq1_0:
      return blocks<StorageType::tq1_0>(bytes, count, out);
    case StorageType::tq2_0:
      return blocks<StorageType::tq2_0>(bytes, count, out);
    case StorageType::mxfp4:
      return blocks<StorageType::mxfp4>(bytes, count, out);
    case StorageType::nvfp4:
      return blocks<StorageType::nvfp4>(bytes, count, out);
  }
}

std::optional<StorageType> storage_from_ggml(std::uint32_t id) {
  for (const Row& r : table) {
    if (r.ggml >= 0 && static_cast<std::uint32_t>(r.ggml) == id) return r.type;
  }
  return std::nullopt;
}

std::optional<StorageType> storage_from_safetensors(std::string_view dtype) {
  for (const Row& r : table) {
    if (!r.safetensors.empty() && r.safetensors == dtype) return r.type;
  }
  return std::nullopt;
}

}  // namespace ttt::inline v2

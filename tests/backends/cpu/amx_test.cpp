// The tile product's walk over rows, inputs and outputs, with tiles that a plain loop computes: runs on every
// machine.
#include "../../../backends/cpu/amx_gemm.h"

#include "backends/cpu/support.h"

namespace ttt::cpu_tests {
namespace {

struct PlainTiles {
  struct Tile {
    int rows;
    std::uint8_t bytes[16][64];
  };
  static inline Tile tiles[8] = {};
  static inline bool configured = false;

  static void configure(int upper, int lower) {
    const int rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int i = 0; i < 8; ++i) tiles[i] = Tile{rows[i], {}};
    configured = true;
  }
  static void release() { configured = false; }
  template <int T>
  static void zero() {
    std::memset(tiles[T].bytes, 0, sizeof tiles[T].bytes);
  }
  template <int T>
  static void load(const void* from, std::size_t stride) {
    ASSERT_TRUE(configured);
    for (int r = 0; r < tiles[T].rows; ++r)
      std::memcpy(tiles[T].bytes[r], static_cast<const char*>(from) + static_cast<std::size_t>(r) * stride,
                  64);
  }
  template <int T>
  static void store(void* to, std::size_t stride) {
    for (int r = 0; r < tiles[T].rows; ++r)
      std::memcpy(static_cast<char*>(to) + static_cast<std::size_t>(r) * stride, tiles[T].bytes[r], 64);
  }
  static float bf16(const std::uint8_t* p) {
    BFloat16 v;
    std::memcpy(&v.bits, p, 2);
    return v;
  }
  template <int C, int A, int B>
  static void multiply_add() {
    for (int m = 0; m < tiles[C].rows; ++m) {
      for (int n = 0; n < 16; ++n) {
        float sum = 0;
        std::memcpy(&sum, tiles[C].bytes[m] + n * 4, 4);
        for (int k = 0; k < 16; ++k) {
          for (int i = 0; i < 2; ++i)
            sum += bf16(tiles[A].bytes[m] + k * 4 + i * 2) * bf16(tiles[B].bytes[k] + n * 4 + i * 2);
        }
        std::memcpy(tiles[C].bytes[m] + n * 4, &sum, 4);
      }
    }
  }
};

TEST(CpuAmx, TileProductAgreesWithTheDefinition) {
  constexpr std::int64_t pairs = 48, ldx = 2 * pairs + 6, ldc = 40;
  std::vector<std::uint16_t> x, w;
  for (const float v : random_values(32 * ldx, 1)) x.push_back(BFloat16(v).bits);
  for (const float v : random_values(pairs * 64, 2)) w.push_back(BFloat16(v).bits);
  const auto value = [](std::uint16_t bits) {
    BFloat16 v;
    v.bits = bits;
    return static_cast<double>(static_cast<float>(v));
  };
  for (const int rows : {1, 5, 15, 16, 17, 31, 32}) {
    for (const bool accumulate : {false, true}) {
      const std::vector<float> before = random_values(32 * ldc, 3);
      std::vector<float> c = before, expected = before;
      for (int r = 0; r < rows; ++r) {
        for (int n = 0; n < 32; ++n) {
          double sum = accumulate ? static_cast<double>(before[static_cast<std::size_t>(r * ldc + n)]) : 0.0;
          for (std::int64_t k = 0; k < 2 * pairs; ++k) {
            sum += value(x[static_cast<std::size_t>(r * ldx + k)]) *
                   value(w[static_cast<std::size_t>(k / 2 * 64 + n * 2 + k % 2)]);
          }
          expected[static_cast<std::size_t>(r * ldc + n)] = static_cast<float>(sum);
        }
      }
      cpu::gemm_tiles<PlainTiles>(rows, x.data(), ldx, w.data(), pairs, c.data(), ldc, accumulate);
      EXPECT_LE(difference(c, expected), 1e-6) << rows << " rows";
      EXPECT_FALSE(PlainTiles::configured);
    }
  }
}

}  // namespace
}  // namespace ttt::cpu_tests

#include "amx_probe.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace ttt::inline v2::cpu {

#if defined(__x86_64__) && defined(__linux__)

namespace {

constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr unsigned long tile_data = 18;      // XFEATURE_XTILEDATA

sigjmp_buf escape;
void leave(int) { siglongjmp(escape, 1); }

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes_per_row[16] = {};
  std::uint8_t rows[16] = {};
};

__attribute__((target("amx-tile,amx-bf16"))) bool one_product() {
  TileConfig config;
  for (int i = 0; i < 3; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = 16;
  }
  alignas(64) std::uint16_t ones[16 * 32];
  alignas(64) float sums[16 * 16] = {};
  for (std::uint16_t& v : ones) v = 0x3F80;
  __asm__ volatile("" : : "r"(&config), "r"(ones) : "memory");  // the intrinsics do not say what they read
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_loadd(1, ones, 64);
  _tile_loadd(2, ones, 64);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, sums, 64);
  __asm__ volatile("" : : "r"(sums) : "memory");
  _tile_release();
  for (const float sum : sums) {
    if (sum != 32.0f) return false;
  }
  return true;
}

}  // namespace

bool amx_works() {
  if (syscall(SYS_arch_prctl, request_permission, tile_data) != 0) return false;
  struct sigaction guard = {}, before = {};
  guard.sa_handler = leave;
  sigemptyset(&guard.sa_mask);
  if (sigaction(SIGILL, &guard, &before) != 0) return false;
  volatile bool works = false;
  if (sigsetjmp(escape, 1) == 0) works = one_product();
  sigaction(SIGILL, &before, nullptr);
  return works;
}

#else

bool amx_works() { return false; }

#endif

}  // namespace ttt::inline v2::cpu

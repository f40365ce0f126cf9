#include "isa.h"

#include <cstdint>
#include <cstdlib>

#include "amx_probe.h"
#include "ttt/base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ttt::inline v2::cpu {

namespace {

std::vector<Isa> probe() {
  std::vector<Isa> found{Isa::portable};
#if defined(__x86_64__)
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool osxsave = c >> 27 & 1, fma = c >> 12 & 1, f16c = c >> 29 & 1, avx = c >> 28 & 1;
  if (!osxsave || !avx) return found;
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const auto saves = [low](std::uint32_t bits) { return (low & bits) == bits; };
  if (!saves(0x6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  const bool avx2 = b >> 5 & 1;
  if (!(avx2 && fma && f16c)) return found;
  found.push_back(Isa::avx2);
  const bool f = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1;
  const bool vbmi = c >> 1 & 1, amx_bf16 = d >> 22 & 1, amx_tile = d >> 24 & 1;
  if (!(f && dq && bw && vl) || !saves(0xE6)) return found;
  found.push_back(Isa::avx512);
  std::uint32_t a1 = 0, b1 = 0, c1 = 0, d1 = 0;
  const bool bf16 = __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && (a1 >> 5 & 1);
  if (!(bf16 && vbmi)) return found;
  found.push_back(Isa::avx512_bf16);
  if (amx_bf16 && amx_tile && saves(0x60000) && amx_works()) found.push_back(Isa::amx);
#endif
  return found;
}

}  // namespace

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx:
      return "amx";
  }
  return "portable";
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> isas = probe();
  return isas;
}

Isa choose_isa(std::string_view requested) {
  std::string_view where = "DeviceOptions.isa";
  if (requested.empty()) {
    const char* variable = std::getenv("TTT_CPU_ISA");
    if (variable == nullptr || *variable == '\0') return available_isas().back();
    requested = variable;
    where = "TTT_CPU_ISA";
  }
  std::string choices;
  for (const Isa isa : available_isas()) {
    if (name(isa) == requested) return isa;
    choices += (choices.empty() ? "" : ", ") + std::string(name(isa));
  }
  throw Error("the instruction set '" + printable(requested) + "' does not exist or does not work here",
              where, "use one of " + choices);
}

}  // namespace ttt::inline v2::cpu

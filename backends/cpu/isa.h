// Instruction sets that the kernels exist for, and which of them work here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::cpu {

enum class Isa { portable, avx2, avx512, avx512_bf16, amx };

std::string_view name(Isa);
// Those that were compiled in, that the processor has and whose registers the operating system saves;
// ascending.
const std::vector<Isa>& available_isas();
// `requested`, else $TTT_CPU_ISA, else the best that works. Error names those that work.
Isa choose_isa(std::string_view requested);

}  // namespace ttt::inline v2::cpu

// Whether AMX tiles can be used: the flag alone says nothing, the kernel grants the state on request.
#pragma once

namespace ttt::inline v2::cpu {

// Asks the kernel for the tile state and executes one bf16 tile product, ready for the signal that a refusal
// ends in. Only called where CPUID and XCR0 show AMX. Permission is the process's: once granted, all its
// threads have it.
bool amx_works();

}  // namespace ttt::inline v2::cpu

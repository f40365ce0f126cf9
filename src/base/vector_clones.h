// One function for every width of vector registers.
#pragma once

#include <cstddef>  // brings __GLIBC__

// Before a function of plain loops: it is compiled for each width, and what the processor has is bound when
// the library is loaded. Loops over fixed lanes give the same bits in all of them, since no product and sum
// are fused (-ffp-contract=off). Sanitizers are not ready when it is bound, and Clang leaves out templates
// that only such functions use.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(TTT_SANITIZED)
#define TTT_VECTOR_CLONES [[gnu::target_clones("avx512f", "avx2", "default")]]
#else
#define TTT_VECTOR_CLONES
#endif

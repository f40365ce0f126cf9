// A step whose sequences are all alike, for looking at what a step does rather than at its numbers.
#pragma once

#include <cstdint>

#include "ttt/model/causal_lm.h"

namespace ttt::inline v2::runtime {

// `rows` sequences that bring `tokens` each (of id 0) behind `context`, every one with `width` blocks of its
// own.
void uniform_step(const CausalLM&, State&, std::int64_t rows, std::int64_t tokens, std::int64_t context,
                  std::int64_t width);

}  // namespace ttt::inline v2::runtime

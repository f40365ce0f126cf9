// The input one token earlier: y[t] = x[t - 1], zeros where a sequence begins. A sequence keeps its last
// input.
#pragma once

#include "ttt/modules/module.h"

namespace ttt::inline v2 {

class TokenShift {
 public:
  explicit TokenShift(std::int64_t channels, const Home& home = {});
  // x [1, 1, tokens, channels]; state [slots, channels]: a StateSlot of the module that this one is a part
  // of.
  Tensor forward(const Tensor& x, const Tensor& state, const Step&) const;

 private:
  Tensor taps_;
};

}  // namespace ttt::inline v2

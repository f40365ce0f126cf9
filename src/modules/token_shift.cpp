#include "ttt/modules/token_shift.h"

namespace ttt::inline v2 {

// A convolution of two taps, of which the older one counts.
TokenShift::TokenShift(std::int64_t channels, const Home& home) {
  std::vector<float> taps;
  for (std::int64_t i = 0; i < channels; ++i) taps.insert(taps.end(), {1, 0});
  taps_ = from_host(home.backend(), taps, {1, 1, channels, 2}, DataType::f32);
}

Tensor TokenShift::forward(const Tensor& x, const Tensor& state, const Step& step) const {
  return ops::causal_conv1d(x, taps_, nullptr, state, step.segments);
}

}  // namespace ttt::inline v2

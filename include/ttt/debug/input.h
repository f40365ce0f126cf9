// Other inputs for modules, so that one of them can be looked at apart from what runs before it. Nobody is
// asked but while somebody listens to taps.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "ttt/tensor/tensor.h"

namespace ttt::inline v2::debug {

// What runs in place of x, of the same shape; unset: x. The name is that under which the input is shown
// ("attn.in" in layer 3).
using InputListener = std::function<std::optional<Tensor>(const Tensor& x, std::string_view name, int layer)>;

// Gives modules other inputs for its own lifetime. One at a time; the earlier one is restored afterwards.
class InputScope {
 public:
  explicit InputScope(InputListener);
  ~InputScope();
  InputScope(const InputScope&) = delete;
  InputScope& operator=(const InputScope&) = delete;

 private:
  InputListener previous_;
};

// What a module shall run on that got x: x, or what an InputScope gives.
Tensor input(const Tensor& x, std::string_view name, int layer);

}  // namespace ttt::inline v2::debug

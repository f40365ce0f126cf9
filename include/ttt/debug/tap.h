// The one seam through which anybody sees intermediates: dumps, statistics, comparison with a reference. Free
// when nobody listens.
#pragma once

#include <atomic>
#include <functional>
#include <string_view>

#include "ttt/tensor/tensor.h"

namespace ttt::inline v2::debug {

namespace detail {
extern std::atomic<bool> tap_listening;
void deliver(const Tensor&, std::string_view name, int layer);
}  // namespace detail

inline bool tapping() { return detail::tap_listening.load(std::memory_order_relaxed); }

// Shows a named intermediate to the listener, if there is one. layer -1: not inside a layer.
inline void tap(const Tensor& x, std::string_view name, int layer = -1) {
  if (tapping()) [[unlikely]]
    detail::deliver(x, name, layer);
}

using TapListener = std::function<void(const Tensor&, std::string_view name, int layer)>;

// Listens for its own lifetime. One at a time; the earlier one is restored afterwards.
class TapScope {
 public:
  explicit TapScope(TapListener);
  ~TapScope();
  TapScope(const TapScope&) = delete;
  TapScope& operator=(const TapScope&) = delete;

 private:
  TapListener previous_;
};

}  // namespace ttt::inline v2::debug

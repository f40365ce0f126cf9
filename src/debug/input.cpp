#include "ttt/debug/input.h"

#include <mutex>
#include <utility>

namespace ttt::inline v2::debug {

namespace {

std::mutex mutex;

InputListener& listener() {
  static InputListener current;
  return current;
}

InputListener replace(InputListener next) {
  const std::lock_guard lock(mutex);
  return std::exchange(listener(), std::move(next));
}

}  // namespace

InputScope::InputScope(InputListener next) : previous_(replace(std::move(next))) {}
InputScope::~InputScope() { replace(std::move(previous_)); }

Tensor input(const Tensor& x, std::string_view name, int layer) {
  const std::lock_guard lock(mutex);
  if (listener()) {
    if (std::optional<Tensor> other = listener()(x, name, layer)) return *std::move(other);
  }
  return x;
}

}  // namespace ttt::inline v2::debug

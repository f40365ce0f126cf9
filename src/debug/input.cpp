#include "ttt/debug/input.h"

#include "base/listener.h"

namespace ttt::inline v2::debug {

namespace {

ListenerSlot<std::optional<Tensor>(const Tensor&, std::string_view, int)>& slot() {
  static ListenerSlot<std::optional<Tensor>(const Tensor&, std::string_view, int)> instance;
  return instance;
}

}  // namespace

InputScope::InputScope(InputListener next) : previous_(slot().exchange(std::move(next))) {}
InputScope::~InputScope() { slot().exchange(std::move(previous_)); }

Tensor input(const Tensor& x, std::string_view name, int layer) {
  return slot().deliver(x, name, layer).value_or(x);
}

}  // namespace ttt::inline v2::debug

// The hunt for the operation that made a NaN: every op's result is searched. Free when nobody asks for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ttt/tensor/tensor.h"

namespace ttt::inline v2::debug {

// What a search has found in one result.
struct NonFinite {
  std::string op;                      // "linear"
  std::string module;                  // that ran it: "layers.3.attn.qkv"; empty: none said so
  TensorSpec spec{};                   // of the result
  std::int64_t nan = 0, infinite = 0;  // how many
  std::int64_t first = 0;              // row-major index of the first one
  bool operands_finite = true;         // false: it came in with an operand
};
// "[linear] 3 NaN in the result [1, 1, 2, 8] of layers.3.attn.qkv, the first at 5; its operands are finite"
std::string to_string(const NonFinite&);

using CheckListener = std::function<void(const NonFinite&)>;

// Searches for its own lifetime; slow, since results are read back. Infinities count only when asked for,
// because masks hold them. Without a listener the first find throws ttt::Error.
class CheckScope {
 public:
  explicit CheckScope(CheckListener listener = {}, bool infinities = false);
  ~CheckScope();
  CheckScope(const CheckScope&) = delete;
  CheckScope& operator=(const CheckScope&) = delete;

 private:
  CheckListener previous_;
  bool previous_infinities_, previous_checking_;
};

namespace detail {
extern std::atomic<bool> checking;
extern thread_local std::string_view place;
void check(std::string_view op, std::span<const Tensor* const> operands, std::span<const Tensor> results);
}  // namespace detail

inline bool checking() { return detail::checking.load(std::memory_order_relaxed); }

// What runs during its lifetime is that module's, for NonFinite::module. `module` must outlive it.
class Place {
 public:
  explicit Place(std::string_view module) {
    if (checking()) [[unlikely]]
      before_ = std::exchange(detail::place, module), active_ = true;
  }
  ~Place() {
    if (active_) [[unlikely]]
      detail::place = before_;
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  std::string_view before_;
  bool active_ = false;
};

}  // namespace ttt::inline v2::debug

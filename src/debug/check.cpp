#include "ttt/debug/check.h"

#include <cmath>
#include <mutex>
#include <utility>

#include "ttt/base/error.h"
#include "ttt/tensor/device.h"

namespace ttt::inline v2::debug {

namespace {

std::mutex mutex;
CheckListener listener;
bool infinities = false;

NonFinite search(const Tensor& t) {
  NonFinite found;
  found.spec = t.spec();
  const std::vector<float> values = to_host(t);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    if (found.nan + found.infinite == 0) found.first = static_cast<std::int64_t>(i);
    ++(std::isnan(values[i]) ? found.nan : found.infinite);
  }
  return found;
}

bool matters(const NonFinite& found) { return found.nan > 0 || (infinities && found.infinite > 0); }

bool searchable(const Tensor* t) {
  return t != nullptr && t->defined() && is_float(t->dtype()) && t->device().computes();
}

}  // namespace

namespace detail {

std::atomic<bool> checking{false};
thread_local std::string_view place;

void check(std::string_view op, std::span<const Tensor* const> operands, std::span<const Tensor> results) {
  const std::lock_guard lock(mutex);
  for (const Tensor& result : results) {
    if (!searchable(&result)) continue;
    NonFinite found = search(result);
    if (!matters(found)) continue;
    found.op = op;
    found.module = place;
    for (const Tensor* operand : operands) {
      if (searchable(operand) && matters(search(*operand))) found.operands_finite = false;
    }
    if (!listener) throw Error(to_string(found));
    listener(found);
  }
}

}  // namespace detail

std::string to_string(const NonFinite& found) {
  std::string text = "[" + found.op + "] ";
  if (found.nan > 0) text += std::to_string(found.nan) + " NaN ";
  if (found.infinite > 0) text += std::to_string(found.infinite) + " infinite values ";
  return text + "in the result " + ttt::to_string(found.spec.shape) +
         (found.module.empty() ? "" : " of " + found.module) + ", the first at " +
         std::to_string(found.first) +
         (found.operands_finite ? "; its operands are finite" : "; an operand had them already");
}

CheckScope::CheckScope(CheckListener next, bool with_infinities) {
  const std::lock_guard lock(mutex);
  previous_ = std::exchange(listener, std::move(next));
  previous_infinities_ = std::exchange(infinities, with_infinities);
  previous_checking_ = detail::checking.exchange(true);
}

CheckScope::~CheckScope() {
  const std::lock_guard lock(mutex);
  listener = std::move(previous_);
  infinities = previous_infinities_;
  detail::checking = previous_checking_;
}

}  // namespace ttt::inline v2::debug

#include "ttt/perf/zone.h"

#include <mutex>
#include <utility>

namespace ttt::inline v2::perf {

namespace {

std::mutex mutex;

ZoneListener& listener() {
  static ZoneListener current;
  return current;
}

ZoneListener exchange(ZoneListener next) {
  const std::lock_guard lock(mutex);
  std::swap(listener(), next);
  detail::zone_listening = static_cast<bool>(listener());
  return next;
}

}  // namespace

namespace detail {

std::atomic<bool> zone_listening{false};

void deliver(const ZoneRecord& record) {
  const std::lock_guard lock(mutex);
  if (listener()) listener()(record);
}

}  // namespace detail

ZoneScope::ZoneScope(ZoneListener next) : previous_(exchange(std::move(next))) {}
ZoneScope::~ZoneScope() { exchange(std::move(previous_)); }

}  // namespace ttt::inline v2::perf

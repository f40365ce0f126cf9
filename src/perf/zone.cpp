#include "ttt/perf/zone.h"

#include "base/listener.h"

namespace ttt::inline v2::perf {

namespace {

ListenerSlot<void(const ZoneRecord&)>& slot() {
  static ListenerSlot<void(const ZoneRecord&)> instance;
  return instance;
}

}  // namespace

namespace detail {

std::atomic<bool> zone_listening{false};

void deliver(const ZoneRecord& record) { slot().deliver(record); }

}  // namespace detail

ZoneScope::ZoneScope(ZoneListener next)
    : previous_(slot().exchange(std::move(next), &detail::zone_listening)) {}
ZoneScope::~ZoneScope() { slot().exchange(std::move(previous_), &detail::zone_listening); }

}  // namespace ttt::inline v2::perf

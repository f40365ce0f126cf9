#include "ttt/perf/zone.h"

#include "perf/listener.h"

namespace ttt::inline v2::perf {

namespace {

ListenerSlot<ZoneRecord>& slot() {
  static ListenerSlot<ZoneRecord> instance;
  return instance;
}

}  // namespace

namespace detail {

std::atomic<bool> zone_listening{false};

void deliver(const ZoneRecord& record) { slot().deliver(record); }

}  // namespace detail

ZoneScope::ZoneScope(ZoneListener next)
    : previous_(slot().exchange(std::move(next), detail::zone_listening)) {}
ZoneScope::~ZoneScope() { slot().exchange(std::move(previous_), detail::zone_listening); }

}  // namespace ttt::inline v2::perf

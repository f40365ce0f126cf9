#include "ttt/perf/counter.h"

#include "base/listener.h"

namespace ttt::inline v2::perf {

namespace {

ListenerSlot<void(const CounterRecord&)>& slot() {
  static ListenerSlot<void(const CounterRecord&)> instance;
  return instance;
}

}  // namespace

namespace detail {

std::atomic<bool> counter_listening{false};

void deliver(const CounterRecord& record) { slot().deliver(record); }

}  // namespace detail

CounterScope::CounterScope(CounterListener next)
    : previous_(slot().exchange(std::move(next), &detail::counter_listening)) {}
CounterScope::~CounterScope() { slot().exchange(std::move(previous_), &detail::counter_listening); }

}  // namespace ttt::inline v2::perf

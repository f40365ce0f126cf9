// Counters: named values over time (occupancy of the KV cache, sequences in a step, requests that wait). Free
// when nobody listens.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string_view>

namespace ttt::inline v2::perf {

struct CounterRecord {
  std::string_view name;  // valid during the call only
  std::chrono::steady_clock::time_point time;
  double value = 0;
};

using CounterListener = std::function<void(const CounterRecord&)>;

namespace detail {
extern std::atomic<bool> counter_listening;
void deliver(const CounterRecord&);
}  // namespace detail

// Whether somebody listens: for values that cost something to find.
inline bool counting() { return detail::counter_listening.load(std::memory_order_relaxed); }

inline void count(std::string_view name, double value) {
  if (counting()) [[unlikely]]
    detail::deliver({.name = name, .time = std::chrono::steady_clock::now(), .value = value});
}

// Listens for its own lifetime; the earlier listener is restored afterwards.
class CounterScope {
 public:
  explicit CounterScope(CounterListener);
  ~CounterScope();
  CounterScope(const CounterScope&) = delete;
  CounterScope& operator=(const CounterScope&) = delete;

 private:
  CounterListener previous_;
};

}  // namespace ttt::inline v2::perf

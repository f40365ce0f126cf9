// Zones: named spans of time with the bytes and FLOPs they stand for. Free when nobody listens.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>

namespace ttt::inline v2::perf {

// What a zone stands for. They nest: a step runs layers, these run modules, these run operations.
enum class ZoneKind : std::uint8_t { step, layer, module, op };

struct ZoneRecord {
  std::string_view name;  // valid during the call only
  ZoneKind kind = ZoneKind::op;
  int layer = -1;
  std::chrono::steady_clock::time_point begin, end;
  std::uint64_t bytes = 0;  // read and written by the operation, as its operands' sizes say
  std::uint64_t flops = 0;
};

using ZoneListener = std::function<void(const ZoneRecord&)>;

namespace detail {
extern std::atomic<bool> zone_listening;
void deliver(const ZoneRecord&);
}  // namespace detail

inline bool recording() { return detail::zone_listening.load(std::memory_order_relaxed); }

class Zone {
 public:
  explicit Zone(std::string_view name, ZoneKind kind = ZoneKind::op, int layer = -1) {
    if (recording()) [[unlikely]] {
      record_ = {
          .name = name, .kind = kind, .layer = layer, .begin = std::chrono::steady_clock::now(), .end = {}};
      active_ = true;
    }
  }
  ~Zone() {
    if (active_) [[unlikely]] {
      record_.end = std::chrono::steady_clock::now();
      detail::deliver(record_);
    }
  }
  Zone(const Zone&) = delete;
  Zone& operator=(const Zone&) = delete;
  void add(std::uint64_t bytes, std::uint64_t flops) { record_.bytes += bytes, record_.flops += flops; }
  bool active() const { return active_; }

 private:
  ZoneRecord record_{};
  bool active_ = false;
};

// Listens for its own lifetime; the earlier listener is restored afterwards.
class ZoneScope {
 public:
  explicit ZoneScope(ZoneListener);
  ~ZoneScope();
  ZoneScope(const ZoneScope&) = delete;
  ZoneScope& operator=(const ZoneScope&) = delete;

 private:
  ZoneListener previous_;
};

}  // namespace ttt::inline v2::perf

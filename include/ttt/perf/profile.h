// A profile: every zone and counter of a stretch of time, how they nest, and what they add up to.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/perf/counter.h"
#include "ttt/perf/zone.h"

namespace ttt::inline v2::perf {

struct Span {
  std::uint32_t name = 0;  // Profile::name()
  ZoneKind kind = ZoneKind::op;
  std::int32_t layer = -1;
  std::int64_t begin = 0, end = 0;  // nanoseconds since the profile began
  std::uint64_t bytes = 0, flops = 0;
  std::int32_t parent = -1;  // index of the span around it; -1: none
};

struct Sample {
  std::uint32_t name = 0;
  std::int64_t time = 0;  // nanoseconds since the profile began
  double value = 0;
};

// Time and work of an operation inside a module, over all its calls.
struct Share {
  std::string module;  // without its layer: "attn.qkv"; empty: in none
  std::string op;      // "linear"; empty: not in an operation, which is what runs between them
  int layer = -1;
  std::uint64_t calls = 0;
  double seconds = 0;
  std::uint64_t bytes = 0, flops = 0;
};

// Listens for its own lifetime.
class Profile {
 public:
  Profile();
  void clear();  // forgets what it has, and begins anew

  // In the order of begin, a span before what it encloses.
  std::vector<Span> spans() const;
  std::vector<Sample> samples() const;
  std::string name(std::uint32_t) const;

  // Operations by layer, module and name, the longest first. An operation that is composed of others counts
  // once, as a whole; time in steps that no operation has is a share of its own. The seconds of all shares
  // add up to those of the steps (of all spans, where nothing marks a step).
  std::vector<Share> shares() const;

 private:
  std::uint32_t intern(std::string_view);

  mutable std::mutex mutex_;
  std::chrono::steady_clock::time_point origin_;
  std::vector<std::string> names_;
  std::map<std::string, std::uint32_t, std::less<>> ids_;
  std::vector<Span> spans_;  // in the order of end
  std::vector<Sample> samples_;
  ZoneScope zones_;
  CounterScope counters_;
};

// Shares that are equal in what they are grouped by, added up; the longest first. The other fields are empty.
enum class GroupBy : std::uint8_t { op, module, layer, module_and_op, all };
std::vector<Share> group(const std::vector<Share>&, GroupBy);

}  // namespace ttt::inline v2::perf

// Counters and histograms of the server, written as Prometheus reads them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "ttt/runtime/generator.h"

namespace ttt_serve {

// Upper bounds in seconds.
inline constexpr std::array<double, 14> time_buckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                     0.25,  0.5,    1,     2.5,  5,     10,   60};

class Histogram {
 public:
  void observe(double seconds);
  void print(std::string& out, const std::string& name, const std::string& help) const;

 private:
  std::array<std::uint64_t, time_buckets.size()> counts_{};
  std::uint64_t count_ = 0;
  double sum_ = 0;
};

// Thread-safe.
class Metrics {
 public:
  void answered(int status);                    // an HTTP request
  void finished(const ttt::GenerationResult&);  // a sequence
  std::string text(const ttt::GeneratorStats&) const;

 private:
  mutable std::mutex mutex_;
  std::map<int, std::uint64_t> statuses_;
  Histogram first_token_, between_tokens_, duration_, queue_;
};

}  // namespace ttt_serve

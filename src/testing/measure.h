// Time and work of something that can be run again and again.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace ttt::inline v2::testing {

struct Work {
  std::uint64_t bytes = 0, flops = 0;
};
// What one run moves and computes: that of its operations, an operation that is composed of others counted
// once.
Work work_of(const std::function<void()>& run);

double seconds_since(std::chrono::steady_clock::time_point begin);

// Seconds of one run, `count` times; each is the mean of as many runs as take `least` seconds.
std::vector<double> sample(const std::function<void()>& run, int count, double least);

double median(std::vector<double> values);

}  // namespace ttt::inline v2::testing

#include "testing/measure.h"

#include <algorithm>

#include "ttt/perf/profile.h"

namespace ttt::inline v2::testing {

using Clock = std::chrono::steady_clock;

Work work_of(const std::function<void()>& run) {
  const perf::Profile profile;
  run();
  Work total;
  for (const perf::Share& share : profile.shares()) total.bytes += share.bytes, total.flops += share.flops;
  return total;
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::vector<double> sample(const std::function<void()>& run, int count, double least) {
  const auto seconds = [&](int runs) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < runs; ++i) run();
    return seconds_since(begin);
  };
  run();  // buffers and caches
  const double one = std::max(seconds(1), 1e-9);
  const int runs = std::clamp(static_cast<int>(least / one) + 1, 1, 100'000);
  std::vector<double> samples;
  for (int i = 0; i < count; ++i) samples.push_back(seconds(runs) / runs);
  return samples;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace ttt::inline v2::testing

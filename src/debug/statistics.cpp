#include "ttt/debug/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ttt::inline v2::debug {

Statistics statistics(std::span<const float> values) {
  Statistics s;
  s.count = static_cast<std::int64_t>(values.size());
  double low = std::numeric_limits<double>::infinity(), high = -low, sum = 0, squares = 0;
  std::int64_t finite = 0;
  for (const float v : values) {
    if (!std::isfinite(v)) {
      ++(std::isnan(v) ? s.nan : s.infinite);
      continue;
    }
    ++finite;
    s.zeros += v == 0;
    low = std::min<double>(low, v), high = std::max<double>(high, v);
    sum += v, squares += static_cast<double>(v) * v;
  }
  if (finite == 0) return s;
  s.min = low, s.max = high;
  s.mean = sum / static_cast<double>(finite);
  s.rms = std::sqrt(squares / static_cast<double>(finite));
  const double width = (high - low) / Statistics::bins;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    const auto bin = width > 0 ? static_cast<std::size_t>((v - low) / width) : 0;
    ++s.histogram[std::min(bin, Statistics::bins - 1)];
  }
  return s;
}

double pcc(std::span<const float> a, std::span<const float> b) {
  const auto n = static_cast<double>(a.size());
  double mean_a = 0, mean_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) mean_a += a[i], mean_b += b[i];
  mean_a /= n, mean_b /= n;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = a[i] - mean_a, y = b[i] - mean_b;
    ab += x * y, aa += x * x, bb += y * y;
  }
  if (aa == 0 && bb == 0) return mean_a == mean_b ? 1 : 0;
  if (aa == 0 || bb == 0) return 0;
  return ab / std::sqrt(aa * bb);
}

double max_abs_error(std::span<const float> a, std::span<const float> b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double error = a[i] == b[i] ? 0 : std::abs(static_cast<double>(a[i]) - b[i]);
    if (std::isnan(error)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, error);
  }
  return largest;
}

double rms(std::span<const float> values) {
  double squares = 0;
  for (const float v : values) squares += static_cast<double>(v) * v;
  return values.empty() ? 0 : std::sqrt(squares / static_cast<double>(values.size()));
}

}  // namespace ttt::inline v2::debug

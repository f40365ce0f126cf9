// Numbers about values, and about the difference of two sets of them: what dumps, comparisons and reports
// show.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace ttt::inline v2::debug {

// Of the finite values, unless it says otherwise.
struct Statistics {
  std::int64_t count = 0;              // all values
  std::int64_t nan = 0, infinite = 0;  // of them
  std::int64_t zeros = 0;
  double min = 0, max = 0, mean = 0, rms = 0;
  // How many lie in each of equal intervals from min to max; the last one includes max.
  static constexpr std::size_t bins = 32;
  std::array<std::uint32_t, bins> histogram{};
};
Statistics statistics(std::span<const float> values);

// Pearson's correlation of all elements, in double. 1 when both are constant and equal, 0 when only one is
// constant, NaN when a value is. Precondition: equal sizes.
double pcc(std::span<const float> a, std::span<const float> b);
// The largest |a - b|; infinity when one of them has a NaN.
double max_abs_error(std::span<const float> a, std::span<const float> b);
// Root mean square.
double rms(std::span<const float>);

}  // namespace ttt::inline v2::debug

// A measured time, and the word for one beside another.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ttt::inline v2::testing {

// Of samples of one time: their median, the 95 % interval of it by resampling (the percentile bootstrap,
// Efron 1979; 2,000 resamples from a fixed seed), and the spread, the distance of the quartiles over the
// median.
struct Timing {
  double median = 0, low = 0, high = 0;  // seconds
  double spread = 0;
  int repeats = 0;
};
// Error when there are no samples.
Timing summarize(std::span<const double> samples);

enum class Verdict : std::uint8_t {
  better,
  as_expected,
  worse,       // slower
  inaccurate,  // beyond the accuracy bound: a failure
  noisy,       // the spread is above the limit: no word on the time
  unknown      // no expectation of this instance, or no time of this machine
};
std::string_view name(Verdict);

struct Judgement {
  Verdict verdict = Verdict::unknown;
  std::string why{};         // one line, with the numbers behind the word
  double ratio = 0;          // measured median over the expected one; 0: times are not comparable
  double low = 0, high = 0;  // its interval
};
// Worse: even the lowest ratio that both intervals allow is above 1 + tolerance; better: even the highest is
// below 1 / (1 + tolerance).
Judgement judge(const Timing& measured, const Timing& expected, double tolerance = 0.1,
                double most_spread = 0.1);

}  // namespace ttt::inline v2::testing

// What is expected of a module instance on a platform: how near to its oracle it is, and how long it takes,
// with where these numbers come from. Rows of data/expectations/SKU.jsonl: one JSON object a line, sorted by
// instance and device, so that changes of several people merge.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/testing/instance_run.h"

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

struct Expectation {
  std::string key;           // ModuleInstance::key()
  std::string device;        // "AMD EPYC 9R14, 2 threads, avx512_bf16": a time is of this machine alone
  double pcc_at_least = 0;   // with the oracle
  double error_at_most = 0;  // largest, in units of the oracle's root mean square
  std::optional<Timing> time{};
  std::uint64_t bytes = 0, flops = 0;  // of one run
  double read_bandwidth = 0;           // bytes per second, measured in the same run
  std::string version, commit, date;
  // Of the read bandwidth, for what moves more than it computes; 0 without a time.
  double bandwidth_share() const;
  double gflops() const;
  std::string row() const;  // one line of the file, without its end
};

// Error names the line that is no row.
std::vector<Expectation> parse_expectations(std::string_view lines);
// Those of the release for a SKU; empty: none was recorded.
const std::vector<Expectation>& known_expectations(std::string_view sku);
// Puts rows into a file, in place of those of the same instance on the same device. Error: the file is there
// and is none, or can not be written.
void record_expectations(const std::filesystem::path&, std::span<const Expectation>);

// What a run shows, to be expected from then on: twice the distance of the PCC from 1 and one and a half
// times the error are allowed, since instruction sets round differently.
Expectation expectation_of(const SelectedInstance&, const InstanceResult&, std::string device,
                           double read_bandwidth);

enum class Verdict : std::uint8_t {
  better,
  as_expected,
  worse,       // slower
  inaccurate,  // beyond the accuracy bound: a failure
  noisy,       // the spread is above the limit: no word on the time
  unknown      // no expectation of this instance, or no time of this machine
};
std::string_view name(Verdict);

struct Comparison {
  Verdict verdict = Verdict::unknown;
  std::string why{};         // one line, with the numbers behind the word
  double ratio = 0;          // measured median over the expected one; 0: times are not comparable
  double low = 0, high = 0;  // its interval
};
// Times are compared only on the device of the expectation. Worse: even the lowest ratio that both intervals
// allow is above 1 + tolerance; better: even the highest is below 1 / (1 + tolerance).
Comparison compare(const std::vector<Expectation>&, const SelectedInstance&, const InstanceResult&,
                   std::string_view device, double tolerance = 0.1, double most_spread = 0.1);

// This machine as Expectation::device has it. `threads` as in InstanceOptions.
std::string machine(const std::string& backend, int threads);

}  // namespace ttt::inline v2::testing

// What is expected of a module instance on a platform: how near to its oracle it is, and how long it takes,
// with where these numbers come from. Rows of data/expectations/SKU.jsonl: one JSON object a line, sorted by
// instance and device, so that changes of several people merge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/testing/debug.h"
#include "ttt/testing/instance_run.h"
#include "ttt/testing/profile.h"
#include "ttt/testing/timing.h"

namespace ttt::inline v2::testing {

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

// Times are compared only on the device of the expectation. Worse: even the lowest ratio that both intervals
// allow is above 1 + tolerance; better: even the highest is below 1 / (1 + tolerance).
Judgement judge(const std::vector<Expectation>&, const SelectedInstance&, const InstanceResult&,
                std::string_view device, double tolerance = 0.1, double most_spread = 0.1);
// The row of an instance on a device; null: none. Of several devices' rows the accuracy is that of any.
const Expectation* find_expectation(const std::vector<Expectation>&, std::string_view key,
                                    std::string_view device);

// This machine as Expectation::device has it, with a device's description ("2 threads, avx512_bf16").
std::string machine(std::string_view description);
// `threads` as in InstanceOptions.
std::string machine(const std::string& backend, int threads);

// ---------------------------------------------------------------- in a network

// What the taps of a network's modules must reach beside a counterpart that runs at `other` where each module
// runs on the counterpart's input (CompareOptions::isolate). What is recorded of the instance, and what its
// number formats allow (default_pcc()), hold for made-up weights: ten times the recorded distance from 1 or
// error is allowed, and at most twice the distance of the formats. What is in no module: unset.
std::function<std::optional<TapBound>(std::string_view tap)> instance_bounds(const ModelSpec&, const Target&,
                                                                             const Target& other,
                                                                             std::vector<Expectation>);

// Sets what is expected of a model beside a counterpart at `other`: of modules by themselves where they are
// isolated, else of a network at the coarser of both precisions.
CompareOptions expecting(CompareOptions, const CausalLM&, const Target& other, std::vector<Expectation>);

// Fills in PhaseProfile::judged: modules that have a time of this machine, in the order of the time that they
// take together. Alone, an instance finds weights in caches that it does not find there in a network: read
// ratios of small modules with that in mind.
void judge(ProfileResult&, const CausalLM&, const std::vector<Expectation>&);

}  // namespace ttt::inline v2::testing

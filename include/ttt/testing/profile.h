// Where the time of prefill and of a decode step goes, beside what the machine could do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ttt/model/causal_lm.h"
#include "ttt/perf/profile.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/timing.h"

namespace ttt::inline v2::testing {

// The most floating-point operations per second that `threads` threads reach (0: as many as the process may
// use) in float32, or on pairs of bf16 with float32 sums where the processor has an instruction for them: the
// best of several passes over registers alone.
double matrix_peak(int threads = 0, bool bf16 = true);

// What bounds a piece of work on a machine: time can not be below bytes / read_bandwidth nor flops /
// matrix_peak.
struct Roof {
  double read_bandwidth = 0;  // bytes per second
  double matrix_peak = 0;     // FLOPs per second
  double seconds(std::uint64_t bytes, std::uint64_t flops) const;
  bool memory_bound(std::uint64_t bytes, std::uint64_t flops) const;
};

struct ProfileOptions {
  int prompt_tokens = 128;  // of each user
  int new_tokens = 16;      // decode steps that are profiled, and as many that are not
  int batch = 1;            // users
  int repeats = 3;          // of the prefill, with and without a profile
  int threads = 0;          // of the measurements of the machine
  bool serving = true;      // also a run of the generator, for its counters
  Progress progress{};
};

// The modules of a phase that are one instance, beside what is recorded of it.
struct ModuleJudgement {
  std::string key;          // ModuleInstance::key()
  std::size_t modules = 0;  // of the network
  Timing measured{};        // of one of them
  // Seconds that the recorded time comes to for as much work: an instance is recorded for 128 tokens, or with
  // 128 in the cache.
  double expected = 0;
  double measured_roof = 0, expected_roof = 0;  // the least time that the machine allows, over these
  Judgement judgement{};
};

// Prefill of all users' prompts, or one decode step: means over the faster half of the runs.
struct PhaseProfile {
  std::string name;          // "prefill", "decode"
  std::size_t tokens = 0;    // that the phase runs
  double seconds = 0;        // profiled
  double plain_seconds = 0;  // the same without anybody listening
  std::uint64_t bytes = 0, flops = 0;
  std::vector<perf::Share> shares{};  // by layer, module and operation; calls, seconds and work of one run
  // Time of each module with all that is in it ("layers.3.attn" has that of "layers.3.attn.qkv", too), in
  // each of the profiled runs that were kept, and the work of one run.
  struct Module {
    std::string path;
    std::vector<double> seconds;
    std::uint64_t bytes = 0, flops = 0;
  };
  std::vector<Module> modules{};
  std::vector<ModuleJudgement> judged{};  // by judge() of testing/expectations.h
};

struct ProfileResult {
  std::string precision, device;
  int prompt_tokens = 0, batch = 0;
  Roof roof{};
  std::vector<PhaseProfile> phases{};
  // Counters of the serving run: name, and value over time in seconds.
  struct Counter {
    std::string name;
    std::vector<std::pair<double, double>> values;
  };
  std::vector<Counter> counters{};
  std::string trace{};  // perfetto.protos.Trace: one prefill, the decode steps, the serving run
};

// Error: as benchmark().
ProfileResult profile(const CausalLM&, const ProfileOptions& = {});

}  // namespace ttt::inline v2::testing

// Speed and memory of a model, and of the machine that it is measured against.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "ttt/model/causal_lm.h"
#include "ttt/testing/evaluate.h"

namespace ttt::inline v2::testing {

// Bytes per second that `threads` threads read from memory (0: as many as the process may use), the best of
// several passes over `bytes`, which must exceed the caches to mean anything.
double read_bandwidth(int threads = 0, std::size_t bytes = std::size_t{512} << 20);

// Resident memory of this process now, without the page cache: RssAnon of /proc/self/status. 0 where the
// system does not say.
std::size_t resident_bytes();

// Watches resident_bytes() for its lifetime. The kernel keeps no peak of it, so a thread looks every few
// milliseconds.
class PeakMemory {
 public:
  PeakMemory();
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;
  std::size_t bytes();  // the largest so far

 private:
  void look();
  std::atomic<std::size_t> peak_{0};
  std::jthread thread_;
};

struct BenchOptions {
  int prompt_tokens = 128;  // of each user
  int new_tokens = 64;      // of each user, the first one (from the prefill) included
  int batch = 1;            // users
  int repeats = 3;          // the median counts
  int step_tokens = 512;    // longest piece of a prompt in one step
  int threads = 0;          // of the bandwidth measurement
  Progress progress{};
};
struct BenchResult {
  double time_to_first_token = 0;         // seconds: prefill of one user's prompt
  double prefill_tokens_per_second = 0;   // of one user after the other
  double prefill_flops_per_second = 0;    // as the operands' sizes say
  double tokens_per_second_per_user = 0;  // decode, all users in each step
  double tokens_per_second = 0;           // of all users
  double time_per_step = 0;               // seconds per decode step
  std::size_t bytes_per_step = 0;         // that one decode step moves, as the operands' sizes say
  double bytes_per_second = 0;            // moved while decoding
  double read_bandwidth = 0;              // bytes per second, measured in the same run
  double matrix_peak = 0;                 // FLOPs per second, measured in the same run
  std::size_t weight_bytes = 0, kv_bytes = 0;
};

// Greedy decoding of prompts of arbitrary ids. Error: sizes below 1, or more tokens than the model's context.
BenchResult benchmark(const CausalLM&, const BenchOptions& = {});

}  // namespace ttt::inline v2::testing

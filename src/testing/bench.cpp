#include "ttt/testing/bench.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <span>
#include <stop_token>
#include <string>

#include "testing/measure.h"
#include "testing/workload.h"
#include "ttt/base/error.h"
#include "ttt/base/memory.h"
#include "ttt/base/threads.h"
#include "ttt/testing/profile.h"

namespace ttt::inline v2::testing {

namespace {

using Clock = std::chrono::steady_clock;

// Sums with enough independent chains to wait for memory and nothing else.
[[gnu::always_inline]] inline std::uint64_t sum(const std::uint64_t* data, std::size_t count) {
  std::uint64_t sums[32] = {};
  for (std::size_t i = 0; i + 32 <= count; i += 32) {
    for (std::size_t k = 0; k < 32; ++k) sums[k] += data[i + k];
  }
  std::uint64_t total = 0;
  for (std::uint64_t part : sums) total += part;
  return total;
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] std::uint64_t sum_avx2(const std::uint64_t* data, std::size_t count) {
  return sum(data, count);
}
#endif
std::uint64_t sum_portable(const std::uint64_t* data, std::size_t count) { return sum(data, count); }

std::uint64_t read_all(const std::uint64_t* data, std::size_t count) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return sum_avx2(data, count);
#endif
  return sum_portable(data, count);
}

}  // namespace

double read_bandwidth(int threads, std::size_t bytes) {
  constexpr int passes = 4;
  const auto n = static_cast<std::size_t>(threads > 0 ? threads : usable_threads());
  const std::size_t count = std::max<std::size_t>(bytes / n / sizeof(std::uint64_t), 1024);  // per thread
  std::vector<double> seconds(passes);
  std::vector<std::uint64_t> results(n);
  // Pages of 2 MB where the system gives them: what the memory can do, not what its tables can.
  const std::size_t part_bytes = (count * sizeof(std::uint64_t) + huge_page - 1) / huge_page * huge_page;
  const std::unique_ptr<std::uint64_t, decltype(&std::free)> memory(
      static_cast<std::uint64_t*>(std::aligned_alloc(huge_page, n * part_bytes)), &std::free);
  if (memory == nullptr) throw std::bad_alloc();
  want_huge_pages(memory.get(), n * part_bytes);
  Clock::time_point begin;
  std::barrier gate(static_cast<std::ptrdiff_t>(n) + 1);
  std::vector<std::jthread> workers;
  for (std::size_t t = 0; t < n; ++t) {
    workers.emplace_back([&, t] {
      // Each thread writes its own part first, so that the pages exist and lie near it.
      const std::span part(memory.get() + t * (part_bytes / sizeof(std::uint64_t)), count);
      std::ranges::fill(part, t);
      for (int pass = 0; pass < passes; ++pass) {
        gate.arrive_and_wait();
        results[t] += read_all(part.data(), part.size());
        gate.arrive_and_wait();
      }
    });
  }
  for (double& pass : seconds) {
    begin = Clock::now();
    gate.arrive_and_wait();
    gate.arrive_and_wait();
    pass = seconds_since(begin);
  }
  workers.clear();
  asm volatile("" : : "r"(results.data()) : "memory");  // the sums count as used
  return static_cast<double>(n * count * sizeof(std::uint64_t)) / *std::ranges::min_element(seconds);
}

std::size_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10) * 1024;
  }
  return 0;
}

PeakMemory::PeakMemory() {
  look();
  thread_ = std::jthread([this](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      look();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
}

void PeakMemory::look() {
  const std::size_t now = resident_bytes();
  std::size_t before = peak_.load();
  while (now > before && !peak_.compare_exchange_weak(before, now)) {}
}

std::size_t PeakMemory::bytes() {
  look();
  return peak_.load();
}

BenchResult benchmark(const CausalLM& model, const BenchOptions& options) {
  if (options.repeats < 1)
    throw Error("repeats of " + std::to_string(options.repeats), "the benchmark", "choose at least 1");
  Workload work(model, options.batch, options.prompt_tokens, options.new_tokens, options.step_tokens);
  const auto users = static_cast<std::size_t>(options.batch);
  BenchResult result;
  result.read_bandwidth = read_bandwidth(options.threads);
  result.matrix_peak = matrix_peak(options.threads, model.target().precision != "f32");
  model.load_weights();
  result.weight_bytes = model.weight_bytes();
  result.kv_bytes = work.kv_bytes();

  // Once for the caches and buffers, and to count what a step moves.
  const std::uint64_t prefill_flops = work_of([&] { work.prefill_all(); }).flops;
  if (options.new_tokens > 1) result.bytes_per_step = work_of([&] { work.decode(); }).bytes;
  std::vector<double> first_token, prefill_time, step_time;
  std::size_t done = 0;
  const std::size_t total =
      static_cast<std::size_t>(options.repeats) * (users + static_cast<std::size_t>(options.new_tokens) - 1);
  const auto progress = [&] {
    ++done;
    if (options.progress) options.progress(done, total);
  };
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    work.reset();
    const Clock::time_point begin = Clock::now();
    for (std::size_t u = 0; u < users; ++u) {
      const Clock::time_point user_begin = Clock::now();
      work.prefill(u);
      first_token.push_back(seconds_since(user_begin));
      progress();
    }
    prefill_time.push_back(seconds_since(begin));
    const int steps = options.new_tokens - 1;
    const Clock::time_point decode_begin = Clock::now();
    for (int i = 0; i < steps; ++i) {
      work.decode();
      progress();
    }
    if (steps > 0) step_time.push_back(seconds_since(decode_begin) / steps);
  }
  result.time_to_first_token = median(first_token);
  result.prefill_tokens_per_second =
      static_cast<double>(users) * options.prompt_tokens / median(prefill_time);
  result.prefill_flops_per_second = static_cast<double>(prefill_flops) / median(prefill_time);
  if (!step_time.empty()) {
    result.time_per_step = median(step_time);
    result.tokens_per_second_per_user = 1 / result.time_per_step;
    result.tokens_per_second = static_cast<double>(users) / result.time_per_step;
    result.bytes_per_second = static_cast<double>(result.bytes_per_step) / result.time_per_step;
  }
  return result;
}

}  // namespace ttt::inline v2::testing

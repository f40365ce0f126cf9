#include "ttt/testing/profile.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>

#include "testing/measure.h"
#include "testing/workload.h"
#include "ttt/base/error.h"
#include "ttt/debug/capture.h"
#include "ttt/perf/perfetto.h"
#include "ttt/runtime/generator.h"
#include "ttt/testing/bench.h"

namespace ttt::inline v2::testing {

double Roof::seconds(std::uint64_t bytes, std::uint64_t flops) const {
  return std::max(read_bandwidth > 0 ? static_cast<double>(bytes) / read_bandwidth : 0,
                  matrix_peak > 0 ? static_cast<double>(flops) / matrix_peak : 0);
}

bool Roof::memory_bound(std::uint64_t bytes, std::uint64_t flops) const {
  return static_cast<double>(bytes) * matrix_peak >= static_cast<double>(flops) * read_bandwidth;
}

namespace {

using Clock = std::chrono::steady_clock;

struct Run {
  double seconds = 0;
  std::vector<perf::Share> shares{};
};

double timed(const std::function<void()>& work) {
  const Clock::time_point begin = Clock::now();
  work();
  return seconds_since(begin);
}

// The faster half: what else the machine did counts as little as possible.
void keep_fast(std::vector<Run>& runs) {
  std::ranges::sort(runs, {}, &Run::seconds);
  runs.resize((runs.size() + 1) / 2);
}

double mean_seconds(const std::vector<Run>& runs) {
  double sum = 0;
  for (const Run& run : runs) sum += run.seconds;
  return runs.empty() ? 0 : sum / static_cast<double>(runs.size());
}

std::vector<PhaseProfile::Module> modules_of(const std::vector<Run>& runs) {
  std::map<std::string, PhaseProfile::Module> found;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    for (const perf::Share& share : runs[i].shares) {
      std::string path = debug::full_name(share.module, share.layer);
      while (!path.empty()) {
        PhaseProfile::Module& module = found[path];
        module.seconds.resize(runs.size());
        module.seconds[i] += share.seconds;
        if (i == 0) module.bytes += share.bytes, module.flops += share.flops;
        const std::size_t dot = path.rfind('.');
        path.resize(dot == std::string::npos ? 0 : dot);
      }
    }
  }
  std::vector<PhaseProfile::Module> modules;
  for (auto& [path, module] : found) {
    module.path = path;
    modules.push_back(std::move(module));
  }
  return modules;
}

// Runs `work` alternately with nobody listening and with a profile.
PhaseProfile measure(const char* name, std::size_t tokens, int pairs, const std::function<void()>& work,
                     const std::function<void()>& progress) {
  std::vector<Run> plain, profiled;
  for (int i = 0; i < pairs; ++i) {
    plain.push_back({.seconds = timed(work)});
    const perf::Profile profile;
    Run run{.seconds = timed(work)};
    run.shares = profile.shares();
    profiled.push_back(std::move(run));
    progress();
  }
  keep_fast(plain), keep_fast(profiled);
  PhaseProfile phase{.name = name,
                     .tokens = tokens,
                     .seconds = mean_seconds(profiled),
                     .plain_seconds = mean_seconds(plain)};
  phase.modules = modules_of(profiled);
  std::vector<perf::Share> all;
  for (Run& run : profiled) all.insert(all.end(), run.shares.begin(), run.shares.end());
  phase.shares = perf::group(all, perf::GroupBy::all);
  for (perf::Share& share : phase.shares) {
    share.calls /= profiled.size(), share.bytes /= profiled.size(), share.flops /= profiled.size();
    share.seconds /= static_cast<double>(profiled.size());
    phase.bytes += share.bytes, phase.flops += share.flops;
  }
  return phase;
}

// More requests than fit at once, of which some share their prompt: what the generator's counters are for.
void serve(const CausalLM& model, const Workload& work, int batch, int new_tokens) {
  const auto prompt = static_cast<std::int64_t>(work.prompts().front().size());
  constexpr std::int64_t block = 32;
  const std::int64_t blocks = (prompt + new_tokens + block - 1) / block + 1;
  Generator generator(model, nullptr,
                      {.max_batch = batch,
                       .block_size = static_cast<int>(block),
                       .kv_blocks = blocks * (batch + 1),
                       .max_context = static_cast<int>(prompt) + new_tokens});
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 2 * batch + 1; ++i)
    requests.push_back({.prompt_ids = work.prompts()[static_cast<std::size_t>(i % batch)],
                        .sampling = {.max_new_tokens = new_tokens}});
  (void)generator.generate(requests);
}

std::vector<ProfileResult::Counter> counters_of(const perf::Profile& profile) {
  std::vector<ProfileResult::Counter> counters;
  for (const perf::Sample& sample : profile.samples()) {
    const std::string name = profile.name(sample.name);
    auto found = std::ranges::find(counters, name, &ProfileResult::Counter::name);
    if (found == counters.end()) found = counters.insert(found, {.name = name, .values = {}});
    found->values.emplace_back(static_cast<double>(sample.time) * 1e-9, sample.value);
  }
  return counters;
}

}  // namespace

ProfileResult profile(const CausalLM& model, const ProfileOptions& options) {
  constexpr int longest_step = 512;
  Workload work(model, options.batch, options.prompt_tokens, 2 * options.new_tokens + 1, longest_step);
  if (options.repeats < 1)
    throw Error("repeats of " + std::to_string(options.repeats), "the profile", "choose at least 1");
  ProfileResult result{.precision = model.target().precision,
                       .device = model.device().description(),
                       .prompt_tokens = options.prompt_tokens,
                       .batch = options.batch};
  result.roof = {.read_bandwidth = read_bandwidth(options.threads),
                 .matrix_peak = matrix_peak(options.threads, result.precision != "f32")};
  model.load_weights();
  std::size_t done = 0;
  const auto total = static_cast<std::size_t>(options.repeats + options.new_tokens);
  const auto progress = [&] {
    if (options.progress) options.progress(++done, total);
  };
  work.prefill_all();  // once for caches and buffers
  work.decode();
  const auto users = static_cast<std::size_t>(options.batch);
  result.phases.push_back(measure(
      "prefill", users * static_cast<std::size_t>(options.prompt_tokens), options.repeats,
      [&] { work.prefill_all(); }, progress));
  result.phases.push_back(measure(
      "decode", users, options.new_tokens, [&] { work.decode(); }, progress));

  const perf::Profile traced;
  work.prefill_all();
  for (int i = 0; i < std::min(options.new_tokens, 8); ++i) work.decode();
  if (options.serving) serve(model, work, options.batch, options.new_tokens);
  result.trace = perf::perfetto_trace(traced);
  result.counters = counters_of(traced);
  return result;
}

}  // namespace ttt::inline v2::testing

#include <cstdio>

#include "cli.h"
#include "ttt/testing/bench.h"

namespace ttt_cli {

namespace {

struct BenchFlags {
  ModelFlags model;
  ttt::testing::BenchOptions options;
  bool json = false;
};

void bench(const BenchFlags& flags) {
  ttt::testing::PeakMemory memory;
  const ttt::LoadedModel loaded = flags.model.load();
  ttt::testing::BenchOptions options = flags.options;
  options.threads = flags.model.options.threads;
  const std::size_t before = memory.bytes();  // the measurement of the bandwidth needs memory of its own
  ttt::testing::BenchResult result;
  {
    ProgressBar bar("benchmark");
    options.progress = [&](std::size_t done, std::size_t total) { bar.update(done, total); };
    result = ttt::testing::benchmark(*loaded.model, options);
  }
  Report report;
  report.add("prompt", static_cast<std::size_t>(options.prompt_tokens), "tokens");
  report.add("new", static_cast<std::size_t>(options.new_tokens), "tokens");
  report.add("batch", static_cast<std::size_t>(options.batch), "users");
  report.add("time to first token", result.time_to_first_token * 1e3, "ms", 1);
  report.add("prefill tokens per second", result.prefill_tokens_per_second, "", 1);
  report.add("prefill", result.prefill_flops_per_second / 1e9, "GFLOP/s", 1);
  report.add("matrix peak", result.matrix_peak / 1e9, "GFLOP/s", 1);
  report.add("of matrix peak", 100 * result.prefill_flops_per_second / result.matrix_peak, "%", 1);
  report.add("tokens per second per user", result.tokens_per_second_per_user, "", 2);
  report.add("tokens per second", result.tokens_per_second, "", 2);
  report.add("time per step", result.time_per_step * 1e3, "ms", 3);
  report.add("moved per step", megabytes(result.bytes_per_step), "MB", 1);
  report.add("moved", result.bytes_per_second / 1e9, "GB/s", 2);
  report.add("read bandwidth", result.read_bandwidth / 1e9, "GB/s", 2);
  report.add("of read bandwidth",
             result.read_bandwidth > 0 ? 100 * result.bytes_per_second / result.read_bandwidth : 0, "%", 1);
  report.add("precision", loaded.model->target().precision);
  report.add("device", loaded.device->description());
  report.add("weights", megabytes(result.weight_bytes), "MB", 1);
  report.add("kv cache", megabytes(result.kv_bytes), "MB", 1);
  report.add("memory after loading", megabytes(before), "MB", 1);
  flags.json ? print_json(report.json()) : report.print();
}

}  // namespace

void add_bench(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("bench", "Measure speed: time to first token, prefill and decode");
  auto flags = std::make_shared<BenchFlags>();
  flags->model.add_to(app);
  app->add_option("--prompt-tokens", flags->options.prompt_tokens, "Prompt of each user")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--new-tokens", flags->options.new_tokens, "Tokens that each user gets")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--batch", flags->options.batch, "Users at the same time")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--repeats", flags->options.repeats, "The median of so many runs is reported")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--step-tokens", flags->options.step_tokens, "Longest piece of a prompt in one step")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  add_json_flag(app, flags->json);
  examples(
      app,
      {"ttt bench --model model.gguf",
       "ttt bench --model model.gguf --prompt-tokens 512 --new-tokens 128 --batch 8 --precision performance",
       "",
       "The read bandwidth and the matrix peak are measured in the same run, with the same threads: decoding",
       "one token reads every weight once, so it can not be faster than the memory; a prompt not faster",
       "than the products."});
  app->callback([flags] { bench(*flags); });
}

}  // namespace ttt_cli

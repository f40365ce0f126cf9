// ttt perf: where the time of prefill and of a decode step goes.
#include <algorithm>
#include <cstdio>

#include "tests.h"
#include "ttt/testing/profile.h"
#include "ttt/testing/report.h"

namespace ttt_cli {

namespace {

using namespace ttt::testing;
namespace perf = ttt::perf;

struct PerfFlags {
  ModelFlags model;
  ProfileOptions options;
  std::string trace, html, expectations;
  std::size_t rows = 12;
  bool no_serving = false, json = false;
};

std::string short_count(double value) {
  static constexpr const char* units[] = {"", " k", " M", " G", " T"};
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(units); ++unit) value /= 1000;
  return fixed(value, unit == 0 ? 0 : 2) + units[unit];
}

void print_table(const PhaseProfile& phase, const Roof& roof, const std::vector<perf::Share>& shares,
                 std::size_t limit) {
  Table table({"module", "op", "calls", "ms", "%", "bytes", "FLOPs", "% of roof", "bound"});
  for (const perf::Share& s : shares) {
    if (limit-- == 0) break;
    const double least = roof.seconds(s.bytes, s.flops);
    table.add({s.op.empty() && s.module.empty() ? "(between operations)" : s.module, s.op,
               std::to_string(s.calls), fixed(s.seconds * 1e3, 3), fixed(100 * s.seconds / phase.seconds, 1),
               short_count(static_cast<double>(s.bytes)), short_count(static_cast<double>(s.flops)),
               least > 0 && s.seconds > 0 ? fixed(100 * least / s.seconds, 1) : "",
               least > 0 ? (roof.memory_bound(s.bytes, s.flops) ? "memory" : "compute") : ""});
  }
  table.print();
}

void print_expectations(const PhaseProfile& phase, std::size_t limit) {
  if (phase.judged.empty()) return;
  std::printf("\n%s, modules beside what is recorded of them alone\n", phase.name.c_str());
  Table table({"module instance", "modules", "us", "recorded us", "ratio", "% of roof", "recorded", "word"});
  for (const ModuleJudgement& j : phase.judged) {
    if (limit-- == 0) break;
    table.add({j.key, std::to_string(j.modules), fixed(j.measured.median * 1e6, 1),
               fixed(j.expected * 1e6, 1), fixed(j.judgement.ratio, 2), fixed(100 * j.measured_roof, 1),
               fixed(100 * j.expected_roof, 1), std::string(name(j.judgement.verdict))});
  }
  table.print();
}

void print(const ProfileResult& result, std::size_t rows) {
  std::printf("%s, %s; read bandwidth %s GB/s, matrix peak %s GFLOP/s\n", result.precision.c_str(),
              result.device.c_str(), fixed(result.roof.read_bandwidth / 1e9, 2).c_str(),
              fixed(result.roof.matrix_peak / 1e9, 1).c_str());
  for (const PhaseProfile& phase : result.phases) {
    const double least = result.roof.seconds(phase.bytes, phase.flops);
    std::printf(
        "\n%s: %zu token%s in %s ms (%s ms without zones), %sB and %sFLOP, %s %% of the roof, bound by %s\n",
        phase.name.c_str(), phase.tokens, phase.tokens == 1 ? "" : "s", fixed(phase.seconds * 1e3, 3).c_str(),
        fixed(phase.plain_seconds * 1e3, 3).c_str(), short_count(static_cast<double>(phase.bytes)).c_str(),
        short_count(static_cast<double>(phase.flops)).c_str(), fixed(100 * least / phase.seconds, 1).c_str(),
        result.roof.memory_bound(phase.bytes, phase.flops) ? "memory" : "compute");
    print_table(phase, result.roof, perf::group(phase.shares, perf::GroupBy::module_and_op), rows);
    print_expectations(phase, rows);
  }
  if (std::ranges::all_of(result.phases, [](const PhaseProfile& p) { return p.judged.empty(); }))
    std::printf("\nno time of these modules is recorded on this machine (ttt expect record --model)\n");
  if (result.counters.empty()) return;
  std::printf("\nserving\n");
  Table table({"counter", "mean", "largest", "last"});
  for (const ProfileResult::Counter& counter : result.counters) {
    double sum = 0, largest = 0;
    for (const auto& [time, value] : counter.values) sum += value, largest = std::max(largest, value);
    table.add({counter.name, fixed(sum / static_cast<double>(counter.values.size()), 2), fixed(largest, 0),
               fixed(counter.values.back().second, 0)});
  }
  table.print();
}

void run(const PerfFlags& flags) {
  const ttt::LoadedModel loaded = flags.model.load();
  ProfileOptions options = flags.options;
  options.threads = flags.model.options.threads;
  options.serving = !flags.no_serving;
  ProfileResult result;
  {
    ProgressBar bar("profile");
    options.progress = [&](std::size_t done, std::size_t total) { bar.update(done, total); };
    result = profile(*loaded.model, options);
  }
  judge(result, *loaded.model, expectations_of(flags.expectations));
  const std::string document = to_json(result, report_subject(loaded, model_name(flags.model.model)));
  if (!flags.trace.empty()) write_text(flags.trace, result.trace);
  if (!flags.html.empty()) write_text(flags.html, html_report({&document, 1}));
  flags.json ? print_json(Json::parse(document)) : print(result, flags.rows);
}

}  // namespace

void add_perf(Program& program) {
  CLI::App* parent =
      program.app.add_subcommand("perf", "See where time goes, beside what the machine could do");
  parent->require_subcommand(1);
  parent->footer(
      "ttt perf COMMAND --help explains a command and gives examples; docs/profiling.md has a story.");
  CLI::App* app = parent->add_subcommand(
      "run", "Time, bytes and FLOPs of prefill and of a decode step, by module and operation");
  auto flags = std::make_shared<PerfFlags>();
  flags->model.add_to(app);
  const auto number = [&](const char* name, int& value, const char* help) {
    app->add_option(name, value, help)->check(positive())->capture_default_str()->type_name("N");
  };
  number("--prompt-tokens", flags->options.prompt_tokens, "Prompt of each user");
  number("--new-tokens", flags->options.new_tokens, "Decode steps to profile, beside as many without");
  number("--batch", flags->options.batch, "Users at the same time");
  number("--repeats", flags->options.repeats, "Prefills to profile, beside as many without");
  app->add_option("--rows", flags->rows, "Rows of each table; 0: all")
      ->capture_default_str()
      ->type_name("N")
      ->transform([](const std::string& text) { return text == "0" ? std::to_string(1 << 20) : text; });
  app->add_flag("--no-serving", flags->no_serving, "Leave out the run of the generator, and its counters");
  app->add_option("--expectations", flags->expectations,
                  "Recorded times of module instances (ttt expect record); default: those of the release")
      ->type_name("FILE");
  app->add_option("--trace", flags->trace, "Also write a trace for https://ui.perfetto.dev")
      ->type_name("FILE");
  app->add_option("--html", flags->html, "Also write a page with charts")->type_name("FILE");
  add_json_flag(app, flags->json);
  examples(app,
           {"ttt perf run --model model.gguf",
            "ttt perf run --model model.gguf --prompt-tokens 512 --batch 8 --trace run.perfetto-trace --html "
            "run.html",
            "",
            "The roof is measured in the same run: what memory can deliver and what the vector units can "
            "compute.",
            "An operation can not be faster than its bytes over the one or its FLOPs over the other."});
  app->callback([flags] { run(*flags); });
}

}  // namespace ttt_cli

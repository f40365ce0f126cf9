// ttt expect: what module instances cost and how exact they are, recorded and compared.
#include <algorithm>
#include <cstdio>
#include <map>

#include "tests.h"
#include "ttt/base/error.h"
#include "ttt/testing/bench.h"

namespace ttt_cli {

namespace {

namespace testing = ttt::testing;
using testing::Expectation;
using testing::InstanceResult;
using testing::SelectedInstance;
using testing::Verdict;

struct ExpectFlags {
  testing::SelectionOptions selection;
  std::vector<std::string> libraries;
  testing::InstanceOptions run;
  std::string file;
  std::size_t memory_mb = 256, most = 0;
  double most_spread = 0.1, tolerance = 0.1, seconds = 0;
  bool json = false, accuracy_only = false, missing = false;
};

struct Measured {
  const SelectedInstance* selected;
  InstanceResult result;
};

// Runs the selected instances of the processor until time is over, progress on standard error.
template <class Done>
std::size_t measure(ExpectFlags& flags, const testing::Selection& selection,
                    const std::function<bool(const SelectedInstance&)>& wanted, Done done) {
  flags.run.memory = flags.memory_mb << 20;
  if (flags.accuracy_only) flags.run.repeats = 0;
  const auto begin = std::chrono::steady_clock::now();
  ProgressBar bar("measuring");
  std::size_t count = 0, index = 0;
  for (const SelectedInstance& s : selection.instances) {
    bar.update(++index, selection.instances.size());
    if (!wanted(s)) continue;
    const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (flags.seconds > 0 && passed > flags.seconds) break;
    if (flags.most > 0 && count == flags.most) break;
    done(s, testing::run_instance(s, flags.run));
    ++count;
  }
  return count;
}

testing::Selection selection_of(ExpectFlags& flags) {
  flags.selection.model_libraries.assign(flags.libraries.begin(), flags.libraries.end());
  for (const std::string& sku : flags.selection.skus) {
    if (sku != "cpu")
      throw ttt::Error("the times of " + ttt::printable(sku) + " can not be measured here", "--sku",
                       "run this where the card is, with --sku cpu for the processor");
  }
  return testing::select_tests(flags.selection);
}

void record(Program& program, ExpectFlags& flags) {
  if (flags.file.empty())
    throw ttt::Error("no file", "ttt expect record", "name one by --file data/expectations/cpu.jsonl");
  const testing::Selection selection = selection_of(flags);
  const std::string device = testing::machine(flags.run.backend, flags.run.threads);
  std::vector<Expectation> before;
  if (std::filesystem::exists(flags.file)) before = expectations_of(flags.file);
  const auto there = [&](const SelectedInstance& s) {
    return std::ranges::any_of(
        before, [&](const Expectation& e) { return e.key == s.instance.key() && e.device == device; });
  };
  const double bandwidth = flags.accuracy_only ? 0 : testing::read_bandwidth(flags.run.threads);
  std::vector<Expectation> rows;
  std::size_t noisy = 0, failed = 0, skipped = 0;
  measure(
      flags, selection, [&](const SelectedInstance& s) { return !flags.missing || !there(s); },
      [&](const SelectedInstance& s, const InstanceResult& result) {
        if (result.outcome == testing::Outcome::skipped) return void(++skipped);
        if (result.outcome == testing::Outcome::failed) {
          ++failed;
          std::printf("FAIL   %s: %s\n", s.instance.key().c_str(), result.detail.c_str());
          return;
        }
        Expectation e = testing::expectation_of(s, result, device, bandwidth);
        if (e.time && e.time->spread > flags.most_spread) {
          ++noisy;
          std::printf("noisy  %s: spread of %.0f %%\n", s.instance.key().c_str(), 100 * e.time->spread);
          return;
        }
        rows.push_back(std::move(e));
      });
  testing::record_expectations(flags.file, rows);
  std::printf(
      "%zu recorded in %s; refused: %zu with a spread above %.0f %%, %zu that failed; %zu above "
      "--memory-mb\n",
      rows.size(), flags.file.c_str(), noisy, 100 * flags.most_spread, failed, skipped);
  program.status = noisy + failed > 0;
}

void check(Program& program, ExpectFlags& flags) {
  const testing::Selection selection = selection_of(flags);
  const std::vector<Expectation> expected = expectations_of(flags.file);
  const std::string device = testing::machine(flags.run.backend, flags.run.threads);
  const auto wanted = [&](const SelectedInstance& s) {
    return std::ranges::any_of(expected, [&](const Expectation& e) { return e.key == s.instance.key(); });
  };
  std::map<Verdict, std::size_t> counts;
  Json rows = Json::array();
  Table table({"instance", "verdict", "why"});
  measure(flags, selection, wanted, [&](const SelectedInstance& s, const InstanceResult& result) {
    const testing::Judgement j =
        testing::judge(expected, s, result, device, flags.tolerance, flags.most_spread);
    ++counts[j.verdict];
    rows.push_back({{"key", s.instance.key()},
                    {"verdict", testing::name(j.verdict)},
                    {"why", j.why},
                    {"ratio", j.ratio}});
    table.add({s.instance.key(), std::string(testing::name(j.verdict)), j.why});
  });
  Json totals = Json::object();
  std::string line;
  for (const auto& [verdict, count] : counts) {
    totals[std::string(testing::name(verdict))] = count;
    line += (line.empty() ? "" : ", ") + std::to_string(count) + " " + std::string(testing::name(verdict));
  }
  if (flags.json) {
    print_json({{"device", device}, {"counts", std::move(totals)}, {"instances", std::move(rows)}});
  } else {
    if (!counts.empty()) table.print();
    std::printf("%s\n%s\n", device.c_str(),
                line.empty() ? "nothing that is selected is recorded" : line.c_str());
  }
  program.status = counts[Verdict::inaccurate] > 0;
}

void add_flags(CLI::App* app, ExpectFlags& flags) {
  add_selection_flags(app, flags.selection, flags.libraries);
  app->add_option("--file", flags.file, "Rows of expectations; default of check: those of the release")
      ->type_name("FILE");
  app->add_option("--repeats", flags.run.repeats, "Samples of each time")
      ->default_val(15)
      ->check(positive())
      ->type_name("N");
  app->add_option("--threads", flags.run.threads,
                  "Threads of the cpu backend; default: all that the process may use")
      ->check(positive())
      ->type_name("N");
  app->add_option("--memory-mb", flags.memory_mb,
                  "Leave out instances with more weights than this in float32")
      ->capture_default_str()
      ->check(positive())
      ->type_name("MB");
  app->add_option("--spread", flags.most_spread,
                  "Distance of the quartiles over the median above which a time says nothing")
      ->capture_default_str()
      ->check(positive())
      ->type_name("X");
  app->add_option("--seconds", flags.seconds, "Stop after so long; 0: never")
      ->capture_default_str()
      ->type_name("S");
  app->add_option("--most", flags.most, "Stop after so many instances; 0: never")
      ->capture_default_str()
      ->type_name("N");
  app->add_flag("--accuracy-only", flags.accuracy_only, "Take no times");
}

}  // namespace

std::vector<Expectation> expectations_of(const std::string& file) {
  return file.empty() ? testing::known_expectations("cpu") : testing::parse_expectations(read_text(file));
}

void add_expect(Program& program) {
  CLI::App* app = program.app.add_subcommand(
      "expect", "Record how exact and how fast module instances are, and compare with what was recorded");
  app->require_subcommand(1);
  app->footer("ttt expect COMMAND --help explains a command and gives examples.");

  CLI::App* sub =
      app->add_subcommand("record", "Measure the selected instances and write rows of expectations");
  auto flags = std::make_shared<ExpectFlags>();
  add_flags(sub, *flags);
  sub->add_flag("--missing", flags->missing, "Only those that have no row of this machine");
  examples(sub, {"ttt expect record --file data/expectations/cpu.jsonl --family NAME",
                 "ttt expect record --file data/expectations/cpu.jsonl --missing --seconds 60", "",
                 "A noisy time is refused: run it on a machine that does nothing else. Exit status 1 when a "
                 "row was refused."});
  sub->callback([&program, flags] { record(program, *flags); });

  sub = app->add_subcommand("check", "Measure recorded instances again: better, as expected or worse");
  auto again = std::make_shared<ExpectFlags>();
  add_flags(sub, *again);
  sub->add_option("--tolerance", again->tolerance,
                  "Ratio of times beyond which a difference counts, as 0.1 for 10 %")
      ->capture_default_str()
      ->check(positive())
      ->type_name("X");
  add_json_flag(sub, again->json);
  examples(sub,
           {"ttt expect check --family NAME", "ttt expect check --changed main...HEAD --json",
            "ttt expect check --accuracy-only", "",
            "Exit status 1 when an instance is less exact than expected. Times are compared on the machine "
            "that recorded them, as ratios."});
  sub->callback([&program, again] { check(program, *again); });
}

}  // namespace ttt_cli

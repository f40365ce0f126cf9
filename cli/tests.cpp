// ttt tests: which tests a question is about, and running them.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>

#include "tests.h"
#include "ttt/base/error.h"
#include "ttt/testing/instance_run.h"

namespace ttt_cli {

namespace {

namespace fs = std::filesystem;
using ttt::testing::InstanceResult;
using ttt::testing::Outcome;
using ttt::testing::SelectedInstance;
using ttt::testing::Selection;

std::string share(std::size_t part, std::size_t whole) {
  return std::to_string(part) + " of " + std::to_string(whole) +
         (whole == 0
              ? ""
              : " (" + fixed(100.0 * static_cast<double>(part) / static_cast<double>(whole), 1) + " %)");
}

void print(const Selection& selection, bool change) {
  std::set<std::string> kinds;
  Table table({"instance", "why"});
  for (const SelectedInstance& s : selection.instances) {
    kinds.insert(s.instance.kind.key());
    table.add({s.instance.key(), s.reason});
  }
  if (!selection.instances.empty()) table.print();
  if (!selection.cases.empty()) {
    std::printf("\n");
    Table cases({"test", "why"});
    for (const auto& c : selection.cases) cases.add({c.name, c.reason});
    cases.print();
  }
  for (const std::string& note : selection.notes) std::printf("note: %s\n", note.c_str());
  std::printf("%s instances of %zu kinds", share(selection.instances.size(), selection.of_instances).c_str(),
              kinds.size());
  if (change) std::printf(", %s tests of ctest", share(selection.cases.size(), selection.of_cases).c_str());
  std::printf("\n");
}

Json json_of(const Selection& selection) {
  Json instances = Json::array(), cases = Json::array();
  for (const SelectedInstance& s : selection.instances)
    instances.push_back({{"key", s.instance.key()},
                         {"kind", s.instance.kind.key()},
                         {"network", s.network->name},
                         {"architecture", s.network->description.architecture},
                         {"path", s.instance.path},
                         {"why", s.reason}});
  for (const auto& c : selection.cases) cases.push_back({{"test", c.name}, {"why", c.reason}});
  return {{"instances", std::move(instances)},
          {"of_instances", selection.of_instances},
          {"tests", std::move(cases)},
          {"of_tests", selection.of_cases},
          {"notes", selection.notes}};
}

struct SelectFlags {
  ttt::testing::SelectionOptions options;
  std::vector<std::string> libraries;
  bool json = false, ctest = false;

  bool change() const { return !options.changed.empty() || !options.files.empty(); }
  Selection select() {
    options.model_libraries.assign(libraries.begin(), libraries.end());
    return ttt::testing::select_tests(options);
  }
};

void select(SelectFlags& flags) {
  const Selection selection = flags.select();
  if (flags.ctest) {
    std::printf("%s\n", ttt::testing::ctest_pattern(selection.cases).c_str());
  } else if (flags.json) {
    print_json(json_of(selection));
  } else {
    print(selection, flags.change());
  }
}

// ---------------------------------------------------------------- run

struct RunFlags {
  SelectFlags select;
  ttt::testing::InstanceOptions run;
  std::string backend;
  std::size_t memory_mb = 256;
  int jobs = 2;
  bool json = false, verbose = false, no_cases = false;
};

// Of the instances of one module.
struct Tally {
  std::size_t passed = 0, failed = 0, skipped = 0;
  double pcc = 1, seconds = 0;
};

void run(Program& program, RunFlags& flags) {
  const Selection selection = flags.select.select();
  flags.run.memory = flags.memory_mb << 20;
  std::map<std::string, Tally> modules;
  Json rows = Json::array();
  Tally all;
  {
    ProgressBar bar("testing");
    std::size_t done = 0;
    for (const SelectedInstance& s : selection.instances) {
      bar.update(++done, selection.instances.size());
      const auto begin = std::chrono::steady_clock::now();
      flags.run.backend = !flags.backend.empty()                ? flags.backend
                          : s.target.sku.arch == ttt::Arch::cpu ? "cpu"
                                                                : "null";
      const InstanceResult result = ttt::testing::run_instance(s, flags.run);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      for (Tally* t : {&modules[s.instance.kind.module], &all}) {
        t->passed += result.outcome == Outcome::passed;
        t->failed += result.outcome == Outcome::failed;
        t->skipped += result.outcome == Outcome::skipped;
        if (result.outcome != Outcome::skipped && result.pcc > 0) t->pcc = std::min(t->pcc, result.pcc);
        t->seconds += seconds;
      }
      if (flags.json) {
        rows.push_back({{"key", s.instance.key()},
                        {"outcome", word(result.outcome)},
                        {"detail", result.detail},
                        {"pcc", result.pcc},
                        {"error", result.error},
                        {"why", s.reason}});
      } else if (flags.verbose || result.outcome == Outcome::failed) {
        std::printf("%s  %s%s%s\n", word(result.outcome), s.instance.key().c_str(),
                    result.detail.empty() ? "" : ": ", result.detail.c_str());
      }
    }
  }
  int ctest = 0;
  if (!selection.cases.empty() && !flags.no_cases) {
    const fs::path build =
        flags.select.options.build.empty() ? ttt::testing::own_build_folder() : flags.select.options.build;
    ctest = ttt::testing::run_cases(selection.cases, build, flags.jobs);
  }
  if (flags.json) {
    print_json({{"passed", all.passed},
                {"failed", all.failed},
                {"skipped", all.skipped},
                {"tests", selection.cases.size()},
                {"tests_failed", ctest != 0},
                {"instances", std::move(rows)}});
  } else {
    Table table({"module", "instances", "passed", "failed", "skipped", "lowest PCC", "seconds"});
    const auto add = [&](const std::string& name, const Tally& t) {
      table.add({name, std::to_string(t.passed + t.failed + t.skipped), std::to_string(t.passed),
                 std::to_string(t.failed), std::to_string(t.skipped), fixed(t.pcc, 6), fixed(t.seconds, 1)});
    };
    for (const auto& [name, tally] : modules) add(name, tally);
    add("all", all);
    table.print();
    if (!selection.cases.empty() && !flags.no_cases)
      std::printf("%zu tests of ctest: %s\n", selection.cases.size(), ctest == 0 ? "passed" : "FAILED");
  }
  program.status = all.failed > 0 || ctest != 0;
}

}  // namespace

void add_selection_flags(CLI::App* app, ttt::testing::SelectionOptions& options,
                         std::vector<std::string>& libraries) {
  CLI::Option* model =
      app->add_option("--model", options.model, "Instances of this checkpoint (a config.json is enough)")
          ->type_name("PATH")
          ->group("Selection");
  app->add_option("--family", options.family, "Instances of the networks of this family")
      ->type_name("NAME")
      ->group("Selection");
  app->add_option("--sku", options.skus, "Platforms; default: cpu (see ttt hw)")
      ->type_name("NAME")
      ->group("Selection");
  app->add_option("--precision", options.precision, "Number formats of full-size networks")
      ->capture_default_str()
      ->type_name("NAME")
      ->group("Selection");
  app->add_option("--module", options.module, "Instances of this module: attention, mlp, norm, custom, ...")
      ->type_name("NAME")
      ->group("Selection");
  app->add_option("--changed", options.changed,
                  "What a change can break: a range of git (HEAD: what is not committed), by the build's own "
                  "dependencies")
      ->type_name("RANGE")
      ->group("Selection");
  app->add_option("--changed-file", options.files,
                  "The same by names of changed files below the source folder")
      ->type_name("FILE")
      ->group("Selection");
  app->add_option("--new", options.added, "What a checkpoint adds to the set of the known architectures")
      ->type_name("PATH")
      ->group("Selection")
      ->excludes(model);
  app->add_option("--build", options.build, "Build tree; default: the one that this program runs from")
      ->type_name("DIR")
      ->group("Selection");
  app->add_option("--models", libraries, "Model libraries besides the installed ones and $TTT_MODELS")
      ->type_name("LIB")
      ->group("Selection");
}

void add_tests(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("tests", "Choose tests by model, platform, module or change, and run them");
  app->require_subcommand(1);
  app->footer("ttt tests COMMAND --help explains a command and gives examples.");

  CLI::App* sub = app->add_subcommand("select", "Print the module instances and tests to run, and why");
  auto flags = std::make_shared<SelectFlags>();
  add_selection_flags(sub, flags->options, flags->libraries);
  sub->add_flag("--ctest", flags->ctest, "Print the tests of ctest alone, as a pattern for ctest -R");
  add_json_flag(sub, flags->json);
  examples(sub, {"ttt tests select", "ttt tests select --model config_folder/ --sku n150 --sku t3k",
                 "ttt tests select --family NAME --module attention",
                 "ttt tests select --changed main...HEAD", "ttt tests select --new checkpoint/",
                 "ctest --test-dir build -R \"$(ttt tests select --changed HEAD --ctest)\"", "",
                 "Conditions are joined by \"and\". docs/testing.md explains what is selected."});
  sub->callback([flags] { select(*flags); });

  sub = app->add_subcommand("run", "Run a selection: instances against their oracle, and tests of ctest");
  auto runs = std::make_shared<RunFlags>();
  add_selection_flags(sub, runs->select.options, runs->select.libraries);
  sub->add_option("--backend", runs->backend,
                  "What runs instances; default: cpu for the processor, null (shapes alone) for cards")
      ->type_name("cpu|ttnn|null");
  sub->add_option("--threads", runs->run.threads,
                  "Threads of the cpu backend; default: all that the process may use")
      ->check(positive())
      ->type_name("N");
  sub->add_option("--memory-mb", runs->memory_mb, "Skip instances with more weights than this in float32")
      ->capture_default_str()
      ->check(positive())
      ->type_name("MB");
  sub->add_option("--jobs", runs->jobs, "Tests of ctest at the same time")
      ->capture_default_str()
      ->check(positive())
      ->type_name("N");
  sub->add_flag("--no-cases", runs->no_cases, "Leave out the tests of ctest");
  sub->add_flag("--verbose", runs->verbose, "Print every instance, not only those that fail");
  add_json_flag(sub, runs->json);
  examples(sub, {"ttt tests run --family NAME", "ttt tests run --sku n150 --sku t3k --module attention",
                 "ttt tests run --changed main...HEAD", "", "Exit status 1 when anything fails."});
  sub->callback([&program, runs] { run(program, *runs); });
}

}  // namespace ttt_cli

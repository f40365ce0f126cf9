// ttt check: from a checkpoint to an answer in stages.
#include <algorithm>
#include <cstdio>

#include "cli.h"
#include "ttt/base/error.h"

namespace ttt_cli {

namespace {

using ttt::testing::CheckResult;
using ttt::testing::CheckStage;
using ttt::testing::Outcome;

struct CheckFlags {
  ModelFlags model;
  std::string path, reference;
  std::vector<std::string> names;
  double search_seconds = 60;
  bool json = false;
};

Json json_of(const CheckResult& result) {
  Json stages = Json::array();
  for (const CheckStage& stage : result.stages) {
    Json row{{"stage", stage.name}, {"outcome", word(stage.outcome)}, {"detail", stage.detail}};
    if (!stage.cause.empty()) row["cause"] = stage.cause;
    stages.push_back(std::move(row));
  }
  Json kinds = Json::array(), instances = Json::array();
  for (const auto& kind : result.addition.kinds) kinds.push_back(kind.key());
  for (const auto& instance : result.addition.instances) instances.push_back(instance.key());
  return {{"path", result.path.string()},   {"architecture", result.architecture},
          {"family", result.family},        {"passed", result.passed()},
          {"stages", std::move(stages)},    {"diverges", result.diverges},
          {"changes", result.changes},      {"changes_suffice", result.changes_suffice},
          {"new_kinds", std::move(kinds)},  {"new_instances", std::move(instances)},
          {"instances", result.addition.of}};
}

void print(const CheckStage& stage) {
  std::printf("%s  %-14s %s\n", word(stage.outcome), stage.name.c_str(), stage.detail.c_str());
  if (!stage.cause.empty()) std::printf("%20s cause: %s\n", "", stage.cause.c_str());
}

void print(const CheckResult& result, const CheckFlags& flags) {
  for (const CheckStage& stage : result.stages) print(stage);
  if (!result.diverges.empty()) std::printf("\nfirst difference: %s\n", result.diverges.c_str());
  if (result.addition.of == 0) return;
  const std::size_t kinds = result.addition.kinds.size(), instances = result.addition.instances.size();
  std::printf(
      "\nThe test set gets %zu new module kinds and %zu new instances; the network has %zu on a card.\n",
      kinds, instances, result.addition.of);
  for (const auto& kind : result.addition.kinds) std::printf("  kind %s\n", kind.key().c_str());
  constexpr std::size_t shown = 12;
  for (std::size_t i = 0; i < std::min(instances, shown); ++i)
    std::printf("  %s\n", result.addition.instances[i].key().c_str());
  if (instances > shown) std::printf("  and %zu more (--json lists them)\n", instances - shown);
  std::printf("\n");
  print_support_row(result, flags.model.options.model_libraries);
}

void check_listings(Program& program, const CheckFlags& flags) {
  Json rows = Json::array();
  std::size_t failed = 0;
  for (const std::string& file : flags.names) {
    const CheckResult result = ttt::testing::check_names(read_text(file), flags.model.resolved());
    failed += !result.passed();
    if (flags.json) {
      rows.push_back(json_of(result));
      continue;
    }
    std::printf("%s  %s\n", result.passed() ? "pass" : "FAIL", result.path.string().c_str());
    for (const CheckStage& stage : result.stages) {
      if (stage.outcome == Outcome::failed || flags.names.size() == 1) print(stage);
    }
  }
  if (flags.json) {
    print_json({{"passed", flags.names.size() - failed}, {"failed", failed}, {"results", std::move(rows)}});
  } else {
    std::printf("%zu passed, %zu failed\n", flags.names.size() - failed, failed);
  }
  program.status = failed > 0;
}

void check(Program& program, const CheckFlags& flags) {
  if (!flags.names.empty()) return check_listings(program, flags);
  if (flags.path.empty())
    throw ttt::Error("no checkpoint", "ttt check", "give a folder, a GGUF file, or --names FILE");
  CheckResult result;
  {
    ProgressBar bar("checking");
    std::size_t done = 0;
    result = ttt::testing::check(flags.path, {.load = flags.model.resolved(),
                                              .reference = flags.reference,
                                              .search_seconds = flags.search_seconds,
                                              .progress = [&](std::string_view) { bar.update(++done, 10); }});
  }
  if (flags.json) {
    print_json(json_of(result));
  } else {
    print(result, flags);
  }
  program.status = !result.passed();
}

}  // namespace

void add_check(Program& program) {
  CLI::App* app = program.app.add_subcommand(
      "check", "Go from a checkpoint to an answer in stages, and say where and why a model is wrong");
  auto flags = std::make_shared<CheckFlags>();
  app->add_option("PATH", flags->path, "Checkpoint folder or GGUF file");
  app->add_option(
         "--reference", flags->reference,
         "What transformers computed (tools/reference); default: golden.safetensors of the folder, if any")
      ->type_name("FILE");
  app->add_option("--names", flags->names,
                  "Check listings of tensor names and shapes instead (JSON with config and tensors; - reads "
                  "standard input)")
      ->type_name("FILE");
  app->add_option(
         "--search-seconds", flags->search_seconds,
         "How long to look for the cause of a difference by running what ports get wrong; 0: not at all")
      ->capture_default_str()
      ->type_name("S");
  flags->model.add_to(app, ModelFlags::Model::none);
  add_json_flag(app, flags->json);
  examples(
      app,
      {"ttt check checkpoint/", "ttt check checkpoint/ --reference reference.safetensors",
       "ttt check checkpoint/ --models build/libmine.so", "zcat listing.json.gz | ttt check --names -", "",
       "Stages: config, weights, shapes, forward; with a reference first layer, all layers, logits, greedy "
       "tokens, bf16; chat.",
       "docs/add_a_model.md is worked through on a real family."});
  app->callback([&program, flags] { check(program, *flags); });
}

}  // namespace ttt_cli

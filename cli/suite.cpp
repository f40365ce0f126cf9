// ttt eval suite: what every number format and recipe costs and brings.
#include <cstdio>

#include "cli.h"
#include "ttt/testing/suite.h"

namespace ttt_cli {

namespace {

using namespace ttt::testing;

struct SuiteFlags {
  ModelFlags model;
  SuiteOptions options;
  std::string text;
  bool json = false;
};

Json json_of(const SuiteResult& result) {
  Json rows = Json::array();
  for (const SuiteRow& row : result.rows) {
    Json r{{"precision", row.precision}};
    if (!row.failure.empty()) {
      r["failure"] = row.failure;
    } else {
      r.update({{"top_1_percent", 100 * row.agreement.top1},
                {"top_5_percent", 100 * row.agreement.top5},
                {"perplexity", row.perplexity},
                {"tokens_per_second_per_user", row.speed.tokens_per_second_per_user},
                {"time_to_first_token_ms", 1e3 * row.speed.time_to_first_token},
                {"prefill_tokens_per_second", row.speed.prefill_tokens_per_second},
                {"weights_mb", megabytes(row.speed.weight_bytes)}});
    }
    rows.push_back(std::move(r));
  }
  return {{"model", result.model},
          {"architecture", result.architecture},
          {"family", result.family},
          {"device", result.device},
          {"reference", result.reference},
          {"tokens", result.tokens},
          {"prompt_tokens", result.prompt_tokens},
          {"batch_users", result.batch},
          {"rows", std::move(rows)}};
}

void suite(Program& program, SuiteFlags& flags) {
  SuiteOptions& options = flags.options;
  options.load = flags.model.resolved();
  if (!options.load.precision.empty()) options.precisions = {options.load.precision};
  options.bench.threads = options.load.threads;
  if (!flags.text.empty()) options.text = read_text(flags.text);
  SuiteResult result;
  {
    ProgressBar bar("accuracy suite");
    const std::size_t precisions =
        options.precisions.empty() ? ttt::precision_names().size() : options.precisions.size();
    std::size_t done = 0;
    options.progress = [&](std::string_view, std::string_view) { bar.update(done++, 3 * precisions + 1); };
    result = evaluate_suite(flags.model.model, options);
  }
  if (flags.json) {
    print_json(json_of(result));
  } else {
    std::printf(
        "%s (%s), %s\n\n%s\nTop-1 and top-5 over %zu tokens against %s; speed with a prompt of %d tokens and "
        "%d "
        "user%s.\n",
        result.model.c_str(), result.architecture.c_str(), result.device.c_str(), markdown(result).c_str(),
        result.tokens, result.reference.c_str(), result.prompt_tokens, result.batch,
        result.batch == 1 ? "" : "s");
  }
  for (const SuiteRow& row : result.rows) {
    if (!row.failure.empty()) program.status = 1;
  }
}

}  // namespace

void add_suite(Program& program, CLI::App* eval) {
  CLI::App* app =
      eval->add_subcommand("suite", "Accuracy and speed of every number format and recipe, as one table");
  auto flags = std::make_shared<SuiteFlags>();
  flags->model.add_to(app);
  app->add_option(
         "--reference", flags->options.reference,
         "Reference file with top5_ids (tools/reference); default: golden.safetensors of the folder, "
         "else the model's own float32 run")
      ->type_name("FILE");
  app->add_option("--text", flags->text,
                  "UTF-8 text to run instead; - is standard input; default: a page that is built in")
      ->type_name("FILE");
  app->add_option("--tokens", flags->options.tokens, "At most so many tokens")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--prefill", flags->options.prefill,
                  "Of them in one piece, at most half; the rest one by one")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  const auto number = [&](const char* name, int& value, const char* help) {
    app->add_option(name, value, help)->check(positive())->capture_default_str()->type_name("N");
  };
  number("--prompt-tokens", flags->options.bench.prompt_tokens, "Prompt whose first token is timed");
  number("--new-tokens", flags->options.bench.new_tokens, "Tokens that are timed");
  number("--batch", flags->options.bench.batch, "Users at the same time");
  number("--repeats", flags->options.bench.repeats, "The median of so many runs is reported");
  add_json_flag(app, flags->json);
  examples(app,
           {"ttt eval suite --model model.gguf --reference tokens.safetensors",
            "ttt eval suite --model checkpoint/ --tokens 256 --prefill 128", "",
            "The columns are those of version 1: agreement with the reference's best and five best tokens "
            "by teacher",
            "forcing, tokens per second per user, time to first token; perplexity is of the same tokens.",
            "With --precision only that row."});
  app->callback([&program, flags] { suite(program, *flags); });
}

}  // namespace ttt_cli

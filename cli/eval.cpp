#include <cstdio>
#include <map>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/registry.h"

namespace ttt_cli {

namespace {

using namespace ttt::testing;

// ---------------------------------------------------------------- golden

struct GoldenFlags {
  ModelFlags model;
  std::vector<std::string> folders;
  std::string record;
  bool chunks = false, batch = false, json = false;
};

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.2e", value);
  return buffer;
}

Json json_of(const GoldenResult& result) {
  Json runs = Json::array();
  for (const GoldenRun& run : result.runs) {
    Json row{{"precision", run.precision},       {"passed", run.passed},
             {"largest_error", run.max_error},   {"pcc", run.pcc},
             {"tokens_equal", run.tokens_equal}, {"tokens", run.tokens}};
    if (run.required_pcc > 0) row["required_pcc"] = run.required_pcc;
    if (run.chunks_error) row["chunks_of_5_error"] = *run.chunks_error;
    if (run.single_error) row["token_by_token_error"] = *run.single_error;
    if (run.batch_error) row["batch_error"] = *run.batch_error;
    if (!run.passed) row["failure"] = run.failure;
    if (!run.diverges.empty()) row["diverges"] = run.diverges;
    runs.push_back(std::move(row));
  }
  return {{"name", result.name},     {"path", result.path.string()}, {"architecture", result.architecture},
          {"family", result.family}, {"passed", result.passed()},    {"runs", std::move(runs)}};
}

void print(const GoldenResult& result) {
  for (const GoldenRun& run : result.runs) {
    std::printf("%s  %-28s %-11s largest error %s  PCC %.6f  tokens equal %d of %d",
                run.passed ? "pass" : "FAIL", result.name.c_str(), run.precision.c_str(),
                text(run.max_error).c_str(), run.pcc, run.tokens_equal, run.tokens);
    if (run.chunks_error)
      std::printf("  chunks of 5 %s  token by token %s", text(*run.chunks_error).c_str(),
                  text(*run.single_error).c_str());
    if (run.batch_error) std::printf("  batch %s", text(*run.batch_error).c_str());
    std::printf("\n");
    if (!run.passed) std::printf("      %s\n", run.failure.c_str());
    if (!run.diverges.empty()) std::printf("      first divergence: %s\n", run.diverges.c_str());
  }
  std::fflush(stdout);
}

void golden(Program& program, const GoldenFlags& flags) {
  GoldenOptions options{.load = flags.model.resolved(), .chunks = flags.chunks, .batch = flags.batch};
  if (!options.load.precision.empty()) options.precisions = {options.load.precision};
  Json results = Json::array();
  std::size_t passed = 0;
  for (const std::string& folder : flags.folders) {
    bool good = false;
    try {
      const GoldenResult result = evaluate_golden(folder, options);
      good = result.passed();
      if (!flags.record.empty()) record_evidence(flags.record, {&result, 1});
      if (flags.json) {
        results.push_back(json_of(result));
      } else {
        print(result);
      }
    } catch (const ttt::Error& error) {  // the other folders are still of interest
      if (flags.json) {
        results.push_back({{"path", folder}, {"passed", false}, {"failure", error.what()}});
      } else {
        std::printf("FAIL  %s\n      %s\n", ttt::printable(folder, 200).c_str(), error.what());
        std::fflush(stdout);
      }
    }
    passed += good;
  }
  const std::size_t failed = flags.folders.size() - passed;
  if (flags.json) {
    print_json({{"passed", passed}, {"failed", failed}, {"results", std::move(results)}});
  } else {
    std::printf("%zu passed, %zu failed\n", passed, failed);
  }
  if (failed > 0) {
    program.status = 1;
    std::fflush(stdout);
    std::fprintf(stderr,
                 "error: %zu of %zu goldens failed, ttt eval golden, see the first divergence of each\n",
                 failed, flags.folders.size());
  }
}

void add_golden(Program& program, CLI::App* eval) {
  CLI::App* app =
      eval->add_subcommand("golden", "Compare checkpoints with the outputs that transformers gave for them");
  auto flags = std::make_shared<GoldenFlags>();
  app->add_option(
         "DIR", flags->folders,
         "Checkpoint folders with a golden.safetensors, or fixtures (tests/golden/fixtures/NAME.json)")
      ->required();
  app->add_flag("--chunks", flags->chunks, "Also run the prompt in chunks of 5 and token by token");
  app->add_flag("--batch", flags->batch, "Also run it in a batch of 8 different lengths");
  app->add_option("--record", flags->record,
                  "Put the results into this table of evidence, which ttt models --markdown reads")
      ->type_name("FILE");
  flags->model.add_to(app, ModelFlags::Model::none);
  add_json_flag(app, flags->json);
  examples(app, {"ttt eval golden tests/golden/fixtures/*.json", "ttt eval golden goldens/* --chunks --batch",
                 "ttt eval golden my_model --precision bfp8_b --json",
                 "ttt eval golden goldens/* --record data/models/evidence.json", "",
                 "Without --precision each runs in f32 (every logit within 2e-3, greedy tokens equal) and in "
                 "bf16 (PCC at least",
                 "min(0.99, p - 0.002), p being what the reference's own bfloat16 reaches). "
                 "docs/references.md has the format."});
  app->callback([&program, flags] { golden(program, *flags); });
}

// ---------------------------------------------------------------- perplexity

struct PerplexityFlags {
  ModelFlags model;
  std::string text;
  PerplexityOptions options;
  bool json = false;
};

void add_model_rows(Report& report, const ttt::LoadedModel& loaded) {
  report.add("precision", loaded.model->target().precision);
  report.add("device", loaded.device->description());
}

const ttt::Tokenizer& tokenizer_of(const ttt::LoadedModel& loaded, const ModelFlags& flags) {
  if (!loaded.tokenizer)
    throw ttt::Error("no tokenizer", ttt::printable(flags.model, 200),
                     "put a tokenizer.json into the folder");
  return *loaded.tokenizer;
}

void perplexity(const PerplexityFlags& flags) {
  const std::string text = read_text(flags.text);
  const ttt::LoadedModel loaded = flags.model.load();
  PerplexityOptions options = flags.options;
  PerplexityResult result;
  {
    ProgressBar bar("perplexity");
    options.progress = [&](std::size_t done, std::size_t total) { bar.update(done, total); };
    result = evaluate_perplexity(*loaded.model, tokenizer_of(loaded, flags.model), text, options);
  }
  Report report;
  report.add("perplexity", result.perplexity, "", 4);
  report.add("word perplexity", result.word_perplexity, "", 4);
  report.add("bits per byte", result.bits_per_byte, "", 4);
  report.add("tokens", result.tokens);
  report.add("scored tokens", result.scored);
  report.add("words", result.words);
  report.add("bos", result.bos);
  report.add("windows", result.windows);
  report.add("context", static_cast<std::size_t>(result.context), "tokens");
  report.add("stride", static_cast<std::size_t>(result.stride), "tokens");
  add_model_rows(report, loaded);
  report.add("time", result.seconds, "s", 2);
  flags.json ? print_json(report.json()) : report.print();
}

void add_perplexity(CLI::App* eval) {
  CLI::App* app = eval->add_subcommand("perplexity", "How well the model predicts a text; lower is better");
  auto flags = std::make_shared<PerplexityFlags>();
  flags->model.add_to(app);
  app->add_option("--text", flags->text, "UTF-8 text; - is standard input")->required()->type_name("FILE");
  app->add_option("--tokens", flags->options.tokens, "Only the first N tokens, BOS among them; default: all")
      ->type_name("N");
  app->add_option("--context", flags->options.context, "Tokens of a window; default: the model's maximum")
      ->check(positive())
      ->type_name("N");
  app->add_option("--stride", flags->options.stride,
                  "New tokens per window; default: as many as fit beside one token of context")
      ->check(positive())
      ->type_name("N");
  app->add_option("--bos", flags->options.bos,
                  "Begin with the beginning-of-sequence token; auto: where the tokenizer adds it")
      ->transform(CLI::Validator(
          [](std::string& text) {
            static const std::map<std::string, Bos> known = {
                {"auto", Bos::automatic}, {"yes", Bos::yes}, {"no", Bos::no}};
            const auto found = known.find(text);
            if (found == known.end()) return "\"" + ttt::printable(text) + "\" is none of auto, yes and no";
            text = std::to_string(static_cast<int>(found->second));
            return std::string();
          },
          ""))
      ->type_name("auto|yes|no");
  add_json_flag(app, flags->json);
  examples(app, {"ttt eval perplexity --model model.gguf --text book.txt",
                 "ttt eval perplexity --model model.gguf --text book.txt --tokens 4096 --context 1024 "
                 "--stride 512 --precision f32"});
  app->callback([flags] { perplexity(*flags); });
}

// ---------------------------------------------------------------- tokens

struct TokensFlags {
  ModelFlags model;
  std::string reference;
  TokenAccuracyOptions options;
  bool json = false;
};

void tokens(const TokensFlags& flags) {
  const Reference reference = Reference::open(flags.reference);
  const ttt::LoadedModel loaded = flags.model.load();
  TokenAccuracyOptions options = flags.options;
  TokenAccuracyResult result;
  {
    ProgressBar bar("token agreement");
    options.progress = [&](std::size_t done, std::size_t total) { bar.update(done, total); };
    result = evaluate_tokens(*loaded.model, reference, options);
  }
  Report report;
  report.add("top-1", 100 * result.top1, "%", 2);
  report.add("top-5", 100 * result.top5, "%", 2);
  report.add("predictions", result.positions);
  report.add("prefill", result.prefill, "tokens");
  report.add("steps", result.steps);
  report.add("reference", reference.metadata("model"));
  add_model_rows(report, loaded);
  report.add("time", result.seconds, "s", 2);
  flags.json ? print_json(report.json()) : report.print();
}

void add_tokens(CLI::App* eval) {
  CLI::App* app = eval->add_subcommand(
      "tokens", "How often the model chooses the reference's next token (teacher forcing)");
  auto flags = std::make_shared<TokensFlags>();
  flags->model.add_to(app);
  app->add_option("--reference", flags->reference,
                  "Reference file with top5_ids, as tools/reference writes it")
      ->required()
      ->type_name("FILE");
  app->add_option("--prefill", flags->options.prefill, "Tokens of the prompt; the rest is fed one by one")
      ->capture_default_str()
      ->type_name("N");
  add_json_flag(app, flags->json);
  examples(
      app,
      {"ttt eval tokens --model model.gguf --reference tokens.safetensors",
       "ttt eval tokens --model model.gguf --reference tokens.safetensors --precision performance --json"});
  app->callback([flags] { tokens(*flags); });
}

}  // namespace

void add_eval(Program& program) {
  CLI::App* app = program.app.add_subcommand(
      "eval", "Evaluate a model: golden outputs, perplexity, token agreement, all precisions");
  app->require_subcommand(1);
  app->footer("ttt eval COMMAND --help explains a command and gives examples.");
  add_golden(program, app);
  add_perplexity(app);
  add_tokens(app);
  add_suite(program, app);
}

}  // namespace ttt_cli

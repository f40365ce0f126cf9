// ttt debug: intermediates of a model, where they leave a reference or another run, and both as a page.
#include <algorithm>
#include <charconv>
#include <cstdio>

#include "cli.h"
#include "tests.h"
#include "ttt/base/error.h"
#include "ttt/testing/debug.h"
#include "ttt/testing/expectations.h"
#include "ttt/testing/report.h"

namespace ttt_cli {

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;
namespace debug = ttt::debug;

constexpr const char* default_prompt = "The capital of France is Paris. The capital of Italy is";

struct DebugFlags {
  ModelFlags model;
  std::string prompt, prompt_ids, layers, html;
  std::vector<std::string> taps, against;
  std::size_t decode = 0;
  std::string dump, reference, expectations;
  double pcc = 0, tolerance = 0;
  bool isolate = false, json = false;
};

// ---------------------------------------------------------------- prompt

std::vector<std::int32_t> parse_ids(const std::string& text) {
  std::vector<std::int32_t> ids;
  for (const char *at = text.data(), *end = at + text.size(); at != end;) {
    std::int32_t id = 0;
    const auto [next, failed] = std::from_chars(at, end, id);
    if (failed != std::errc() || (next != end && *next != ','))
      throw ttt::Error("no token ids: '" + ttt::printable(text) + "'", "--prompt-ids",
                       "write numbers separated by commas");
    ids.push_back(id);
    at = next == end ? end : next + 1;
  }
  return ids;
}

std::vector<std::int32_t> prompt_of(const DebugFlags& flags, const ttt::LoadedModel& loaded) {
  if (!flags.prompt_ids.empty()) return parse_ids(flags.prompt_ids);
  if (loaded.tokenizer) return loaded.tokenizer->encode(flags.prompt.empty() ? default_prompt : flags.prompt);
  if (!flags.prompt.empty())
    throw ttt::Error("no tokenizer", ttt::printable(flags.model.model, 200), "give --prompt-ids");
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < 16; ++i) ids.push_back((7 * i + 5) % loaded.model->spec().vocab);
  return ids;
}

DebugOptions options_of(const DebugFlags& flags) {
  return {.taps = select_taps(joined(flags.taps, ","), flags.layers), .decode = flags.decode};
}

void print_non_finite(const std::vector<debug::NonFinite>& found) {
  for (const debug::NonFinite& f : found) std::printf("not finite: %s\n", debug::to_string(f).c_str());
}

std::string small(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

// ---------------------------------------------------------------- run

void run(const DebugFlags& flags) {
  const ttt::LoadedModel loaded = flags.model.load();
  const DebugRun ran = debug_run(*loaded.model, prompt_of(flags, loaded), options_of(flags));
  if (ran.taps.empty())
    throw ttt::Error("no tap matches", "--taps, --layers", "see docs/references.md for the names");
  const ReportSubject subject = report_subject(loaded, model_name(flags.model.model), ran.prompt);
  const std::string document = to_json(ran, subject);
  const fs::path folder = flags.dump;
  std::error_code failed;
  fs::create_directories(folder, failed);
  write_reference(ran, folder / "taps.safetensors",
                  {{"model", subject.model}, {"architecture", subject.architecture}});
  write_text(folder / "run.json", document + "\n");
  if (!flags.html.empty()) write_text(flags.html, html_report({&document, 1}));
  if (flags.json) return print_json(Json::parse(document));
  Table table({"tap", "rows", "features", "min", "max", "mean", "rms", "zeros", "NaN", "inf"});
  for (const debug::Intermediate& tap : ran.taps) {
    const debug::Statistics s = debug::statistics(tap.values);
    table.add({tap.tap, std::to_string(tap.rows), std::to_string(tap.features), small(s.min), small(s.max),
               small(s.mean), small(s.rms), std::to_string(s.zeros), std::to_string(s.nan),
               std::to_string(s.infinite)});
  }
  table.print();
  print_non_finite(ran.non_finite);
  std::printf("\n%zu intermediates of %zu tokens: %s and run.json\n", ran.taps.size(), ran.prompt.size(),
              (folder / "taps.safetensors").c_str());
}

// ---------------------------------------------------------------- compare

// The flags with what --against changes.
ttt::LoadOptions other_options(const DebugFlags& flags) {
  ModelFlags other = flags.model;
  for (const std::string& change : flags.against) {
    const auto equals = change.find('=');
    const std::string key = change.substr(0, equals),
                      value = equals == std::string::npos ? "" : change.substr(equals + 1);
    if (key == "precision") {
      other.options.precision = value;
    } else if (key == "backend") {
      other.options.backend = value;
    } else if (key == "isa") {
      other.options.isa = value;
    } else if (key == "mesh") {
      other.mesh = value;
    } else if (key == "overrides") {
      other.options.overrides = value;
    } else if (key == "threads" && parse_ids(value).size() == 1) {
      other.options.threads = parse_ids(value).front();
    } else if (key == "deterministic" && (value == "yes" || value == "no")) {
      other.options.deterministic = value == "yes";
    } else {
      throw ttt::Error("no such change: '" + ttt::printable(change) + "'", "--against",
                       "write precision=NAME, backend=NAME, isa=NAME, mesh=RxC, overrides=FILE, threads=N or "
                       "deterministic=yes");
    }
  }
  return other.resolved();
}

void print(const Comparison& c) {
  Table table({"tap", "rows", "largest error", "relative", "PCC", ""});
  for (const TapDifference& tap : c.taps)
    table.add({tap.tap, std::to_string(tap.rows), small(tap.error), small(tap.relative), fixed(tap.pcc, 6),
               tap.good              ? ""
               : tap.problem.empty() ? "DIFFERS"
                                     : "DIFFERS: " + tap.problem});
  table.print();
  print_non_finite(c.non_finite);
  if (!c.missing.empty()) std::printf("not computed here: %s\n", joined(c.missing).c_str());
  std::printf("\n%s against %s; expected: %s\n", c.ours.c_str(), c.theirs.c_str(), c.expected().c_str());
  if (const TapDifference* first = c.first()) {
    std::printf("first divergence: %s%s\n", to_string(*first).c_str(),
                c.isolated > 0 ? ("; expected: " + to_string(first->bound)).c_str() : "");
    if (first->problem.empty())
      std::printf("  worst at row %lld, feature %lld: %s instead of %s\n", static_cast<long long>(first->row),
                  static_cast<long long>(first->feature), small(first->ours).c_str(),
                  small(first->theirs).c_str());
  } else {
    std::printf("all %zu intermediates are as expected\n", c.taps.size());
    if (const TapDifference* step = c.steepest())
      std::printf("  the difference %s at %s, %s%s of its root mean square\n",
                  c.isolated > 0 ? "is largest" : "grows most", step->tap.c_str(),
                  c.isolated > 0 ? "" : "to ", small(step->relative).c_str());
  }
}

void compare(Program& program, const DebugFlags& flags) {
  if (flags.reference.empty() == flags.against.empty())
    throw ttt::Error("nothing to compare with", "ttt debug compare",
                     "give either --reference FILE or --against, like --against precision=f32");
  if (!flags.reference.empty() && !(flags.prompt.empty() && flags.prompt_ids.empty()))
    throw ttt::Error("a prompt besides that of the reference", "--prompt", "leave it out");
  std::optional<Reference> reference;
  if (!flags.reference.empty()) reference = Reference::open(flags.reference);
  const ttt::LoadOptions changed = other_options(flags);
  const ttt::LoadedModel loaded = flags.model.load();
  CompareOptions options{.debug = options_of(flags), .details = true, .isolate = flags.isolate};
  const auto expect = [&](const ttt::Target& other) {
    options = expecting(std::move(options), *loaded.model, other, expectations_of(flags.expectations));
    if (flags.tolerance > 0) options.bound = {.tolerance = flags.tolerance}, options.bounds = {};
    if (flags.pcc > 0) options.bound.required_pcc = flags.pcc, options.bounds = {};
  };
  Comparison c;
  if (reference) {
    expect(ttt::make_target(loaded.model->target().sku, reference->precision()));
    c = ttt::testing::compare(*loaded.model, *reference, options);
    if (c.taps.empty())
      throw ttt::Error("no intermediate in common", ttt::printable(flags.reference, 200),
                       "write it with tools/reference --taps, or choose other --taps and --layers");
  } else {
    const ttt::LoadedModel other = ttt::load(flags.model.model, changed);
    expect(other.model->target());
    c = ttt::testing::compare(*loaded.model, *other.model, prompt_of(flags, loaded), options);
    if (c.taps.empty())
      throw ttt::Error("no tap matches", "--taps, --layers", "see docs/references.md for the names");
  }
  const std::string document = to_json(c, report_subject(loaded, model_name(flags.model.model), c.prompt));
  if (!flags.html.empty()) write_text(flags.html, html_report({&document, 1}));
  flags.json ? print_json(Json::parse(document)) : print(c);
  program.status = c.first() != nullptr || !c.non_finite.empty();
}

// ---------------------------------------------------------------- report

struct ReportFlags {
  std::vector<std::string> files;
  std::string out;
};

void report(const ReportFlags& flags) {
  std::vector<std::string> documents;
  for (const std::string& file : flags.files) {
    const bool folder = fs::is_directory(file);
    documents.push_back(read_text(folder ? (fs::path(file) / "run.json").string() : file));
  }
  write_text(flags.out, html_report(documents));
  std::printf("%s\n", flags.out.c_str());
}

// ---------------------------------------------------------------- flags

void add_common(CLI::App* app, DebugFlags& flags) {
  flags.model.add_to(app);
  app->add_option("--prompt", flags.prompt, "Text to run; default: a sentence about capitals");
  app->add_option("--prompt-ids", flags.prompt_ids, "The prompt as token ids")->type_name("ID,ID,..");
  app->add_option("--layers", flags.layers, "Only taps of these layers")->type_name("0-3,7");
  app->add_option("--taps", flags.taps,
                  "Only taps of these names, inside their layer (attn.*, ffn) or whole (layers.*.attn, norm)")
      ->type_name("PATTERN");
  app->add_option("--decode", flags.decode,
                  "Feed the last so many tokens one by one, by the kernels that decode")
      ->type_name("N");
  app->add_option("--html", flags.html, "Also write a page with charts")->type_name("FILE");
  add_json_flag(app, flags.json);
}

void add_debug_run(CLI::App* parent) {
  CLI::App* app = parent->add_subcommand("run", "Keep what a model computes on the way, with statistics");
  auto flags = std::make_shared<DebugFlags>();
  add_common(app, *flags);
  app->add_option("--dump", flags->dump, "Folder for taps.safetensors (a reference file) and run.json")
      ->required()
      ->type_name("DIR");
  examples(app,
           {"ttt debug run --model model.gguf --prompt \"Hello\" --dump dump/",
            "ttt debug run --model checkpoint/ --dump dump/ --layers 0-3 --taps \"attn.*\"", "",
            "Every result is searched for NaN and infinities; the operation and the module that made them "
            "are named."});
  app->callback([flags] { run(*flags); });
}

void add_debug_compare(Program& program, CLI::App* parent) {
  CLI::App* app = parent->add_subcommand(
      "compare", "Walk the intermediates beside a reference or another run, and name the first that differs");
  auto flags = std::make_shared<DebugFlags>();
  add_common(app, *flags);
  app->add_option("--reference", flags->reference,
                  "What to compare with: of transformers (tools/reference --taps) or of ttt debug run")
      ->type_name("FILE");
  app->add_option(
         "--against", flags->against,
         "Compare with the same model under another precision, backend, isa, mesh, overrides, threads "
         "or deterministic")
      ->type_name("KEY=VALUE");
  app->add_option("--pcc", flags->pcc, "Correlation that is expected; default: by the precisions")
      ->type_name("X");
  app->add_option("--tolerance", flags->tolerance,
                  "Largest error that is expected, of a tap's root mean square (float32: 2e-3)")
      ->type_name("X");
  app->add_flag(
      "--isolate", flags->isolate,
      "Run every mixer and feed-forward on the counterpart's input, so that each shows its own error "
      "alone, and expect what is recorded of its instance (ttt expect)");
  app->add_option("--expectations", flags->expectations,
                  "Recorded rows for --isolate; default: those of the release")
      ->type_name("FILE");
  examples(app,
           {"ttt debug compare --model checkpoint/ --precision f32 --reference reference.safetensors",
            "ttt debug compare --model model.gguf --precision bfp8_b --against precision=f32 --isolate",
            "ttt debug compare --model model.gguf --precision f32 --against precision=bf16",
            "ttt debug compare --model model.gguf --against isa=portable --decode 4 --html page.html", "",
            "Exit status 1 when an intermediate differs more than expected, or when something is not "
            "finite.",
            "Expected: within 2e-3 in float32; a PCC of 0.99 in bf16, 0.98 in bfp8_b and accuracy, 0.85 in "
            "performance, 0.7 in bfp4_b."});
  app->callback([&program, flags] { compare(program, *flags); });
}

void add_debug_report(CLI::App* parent) {
  CLI::App* app =
      parent->add_subcommand("report", "One HTML page, without need of a network, of any results");
  auto flags = std::make_shared<ReportFlags>();
  app->add_option("FILE", flags->files,
                  "What ttt debug or ttt perf printed with --json, or the folder of a dump")
      ->required();
  app->add_option("--out", flags->out, "The page")->required()->type_name("FILE");
  examples(app, {"ttt debug report dump/ --out page.html",
                 "ttt debug report compare.json perf.json --out page.html"});
  app->callback([flags] { report(*flags); });
}

}  // namespace

void add_debug(Program& program) {
  CLI::App* app = program.app.add_subcommand(
      "debug", "See intermediates, find the first module that diverges, and what made a NaN");
  app->require_subcommand(1);
  app->footer(
      "ttt debug COMMAND --help explains a command and gives examples; docs/debugging.md has a story.");
  add_debug_run(app);
  add_debug_compare(program, app);
  add_debug_report(app);
}

}  // namespace ttt_cli

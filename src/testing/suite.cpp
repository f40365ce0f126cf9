#include "ttt/testing/suite.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "testing/built_in_text.h"
#include "testing/driver.h"
#include "testing/golden_run.h"
#include "ttt/base/error.h"
#include "ttt/hw/target.h"

namespace ttt::inline v2::testing {

namespace {

struct Tokens {
  std::vector<std::int32_t> ids, top5;  // top5 empty: the float32 run gives them
  std::string origin;
};

// Ids to run, cut to what was asked for and to the model's context.
void cut(Tokens& tokens, const CausalLM& model, const SuiteOptions& options) {
  std::size_t count = std::min(tokens.ids.size(), options.tokens);
  if (const std::size_t limit = max_context(model); limit > 0) count = std::min(count, limit);
  tokens.ids.resize(count);
  if (!tokens.top5.empty()) tokens.top5.resize(5 * count);
  if (count < 4)
    throw Error(std::to_string(count) + " tokens", "the text",
                "give more of it, or a larger number of tokens");
}

Tokens tokens_of(const std::filesystem::path& path, const LoadedModel& loaded, const SuiteOptions& options) {
  std::filesystem::path file = options.reference;
  if (file.empty() && options.text.empty() && std::filesystem::exists(path / "golden.safetensors"))
    file = path / "golden.safetensors";
  if (!file.empty()) {
    const Reference reference = Reference::open(file);
    if (reference.top5_ids().empty())
      throw Error("no top5_ids", printable(file.string(), 200), "write the file with tools/reference");
    return {.ids = reference.input_ids(), .top5 = reference.top5_ids(), .origin = made_by(reference)};
  }
  Tokens tokens{.ids = {}, .top5 = {}, .origin = "its own float32 run"};
  if (loaded.tokenizer) {
    tokens.ids =
        loaded.tokenizer->encode(options.text.empty() ? prose : options.text, {.parse_special = false});
  } else if (!options.text.empty()) {
    throw Error("no tokenizer", printable(path.string(), 200), "give a reference in place of a text");
  } else {
    for (std::size_t i = 0; i < options.tokens; ++i)
      tokens.ids.push_back(static_cast<std::int32_t>(
          (i * 7919 + 17) % static_cast<std::size_t>(std::max(loaded.model->spec().vocab, 1))));
  }
  return tokens;
}

// The five best ids after each token.
std::vector<std::int32_t> best_five(const CausalLM& model, std::span<const std::int32_t> ids) {
  std::vector<std::int32_t> best;
  Driver driver(model, 1, ids.size());
  constexpr std::size_t rows = 64;
  for (std::size_t at = 0; at < ids.size(); at += rows) {
    const std::size_t count = std::min(rows, ids.size() - at);
    const StepOutput output = driver.feed(ids.subspan(at, count), Want::all_rows);
    const auto vocab = static_cast<std::size_t>(output.vocab);
    std::vector<std::int32_t> order(vocab);
    for (std::size_t r = 0; r < count; ++r) {
      const std::span<const float> logits = std::span(output.logits).subspan(r * vocab, vocab);
      for (std::size_t i = 0; i < vocab; ++i) order[i] = static_cast<std::int32_t>(i);
      const auto five = order.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(5, vocab));
      std::ranges::partial_sort(order, five, std::ranges::greater{},
                                [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; });
      best.insert(best.end(), order.begin(), five);
      best.resize(5 * (best.size() / 5 + (best.size() % 5 != 0)), -1);
    }
  }
  return best;
}

class Suite {
 public:
  Suite(const std::filesystem::path& path, const SuiteOptions& options) : path_(path), options_(options) {}

  SuiteResult run() {
    const std::vector<std::string> precisions =
        options_.precisions.empty() ? precision_names() : options_.precisions;
    {
      progress("f32", "reference");
      const LoadedModel loaded = load_as("f32");
      require_numbers(*loaded.model, "the accuracy suite");
      tokens_ = tokens_of(path_, loaded, options_);
      cut(tokens_, *loaded.model, options_);
      if (tokens_.top5.empty()) tokens_.top5 = best_five(*loaded.model, tokens_.ids);
      result_.architecture = loaded.architecture;
      result_.family = loaded.family;
      result_.device = loaded.device->description();
    }
    result_.model =
        path_.filename().empty() ? path_.parent_path().filename().string() : path_.filename().string();
    result_.reference = tokens_.origin;
    result_.tokens = tokens_.ids.size();
    result_.prompt_tokens = options_.bench.prompt_tokens;
    result_.batch = options_.bench.batch;
    for (const std::string& precision : precisions) {
      SuiteRow& row = result_.rows.emplace_back(SuiteRow{.precision = precision});
      try {
        measure(row);
      } catch (const Error& error) { row.failure = error.what(); }
    }
    return std::move(result_);
  }

 private:
  void progress(std::string_view precision, std::string_view stage) const {
    if (options_.progress) options_.progress(precision, stage);
  }
  LoadedModel load_as(const std::string& precision) const {
    LoadOptions load_options = options_.load;
    load_options.precision = precision;
    return load(path_, load_options);
  }

  void measure(SuiteRow& row) const {
    const LoadedModel loaded = load_as(row.precision);
    progress(row.precision, "tokens");
    const std::size_t prefill = std::min(options_.prefill, tokens_.ids.size() / 2);
    row.agreement = evaluate_tokens(*loaded.model, tokens_.ids, tokens_.top5, {.prefill = prefill});
    progress(row.precision, "perplexity");
    row.perplexity = evaluate_perplexity(*loaded.model, tokens_.ids,
                                         {.context = static_cast<int>(tokens_.ids.size()), .bos = Bos::no})
                         .perplexity;
    progress(row.precision, "speed");
    row.speed = benchmark(*loaded.model, options_.bench);
  }

  const std::filesystem::path& path_;
  const SuiteOptions& options_;
  Tokens tokens_;
  SuiteResult result_;
};

}  // namespace

SuiteResult evaluate_suite(const std::filesystem::path& path, const SuiteOptions& options) {
  return Suite(path, options).run();
}

std::string markdown(const SuiteResult& result) {
  std::string text =
      "| Precision | Top-1 (%) | Top-5 (%) | Perplexity | Speed (t/s/u) | TTFT (ms) | Weights (MB) |\n"
      "|---|---|---|---|---|---|---|\n";
  for (const SuiteRow& row : result.rows) {
    if (!row.failure.empty()) {
      text += "| " + row.precision + " | " + row.failure + " | | | | | |\n";
      continue;
    }
    char line[256];
    std::snprintf(line, sizeof line, "| %s | %.1f | %.1f | %.3f | %.1f | %.0f | %.0f |\n",
                  row.precision.c_str(), 100 * row.agreement.top1, 100 * row.agreement.top5, row.perplexity,
                  row.speed.tokens_per_second_per_user, 1e3 * row.speed.time_to_first_token,
                  static_cast<double>(row.speed.weight_bytes) / 1e6);
    text += line;
  }
  return text;
}

}  // namespace ttt::inline v2::testing

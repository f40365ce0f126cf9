// The accuracy suite: what every number format and recipe costs and brings, as the table that version 1
// publishes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/testing/bench.h"
#include "ttt/testing/evaluate.h"

namespace ttt::inline v2::testing {

struct SuiteOptions {
  LoadOptions load{};                     // its precision is replaced by each of the following
  std::vector<std::string> precisions{};  // empty: precision_names()
  // What tokens are compared with: a file with top5_ids. Empty: golden.safetensors of the folder where there
  // is one, else the model's own float32 run, over `text`.
  std::filesystem::path reference{};
  std::string text{};  // empty: a page of prose that is built in; without a tokenizer: arbitrary tokens
  std::size_t tokens = 1024;  // of the text or the reference, at most
  std::size_t prefill = 512;  // of them, at most half; the rest is fed one by one
  BenchOptions bench{};
  std::function<void(std::string_view precision, std::string_view stage)> progress{};
};

struct SuiteRow {
  std::string precision;
  TokenAccuracyResult agreement{};
  double perplexity = 0;  // over the same tokens, one window
  BenchResult speed{};
  std::string failure{};  // why there are no numbers, one line
};

struct SuiteResult {
  std::string model, architecture, family, device;
  std::string reference;  // "transformers 5.23.0", "its own float32 run"
  std::size_t tokens = 0;
  int prompt_tokens = 0, batch = 0;  // of the speed
  std::vector<SuiteRow> rows{};
};

// Loads the checkpoint once per precision. What goes wrong for one precision is that row's failure; for all
// alike (no such path, no family, a reference of another vocabulary) it is thrown.
SuiteResult evaluate_suite(const std::filesystem::path&, const SuiteOptions& = {});

// The table: precision, top-1, top-5, perplexity, tokens/s/user, time to first token, weights.
std::string markdown(const SuiteResult&);

}  // namespace ttt::inline v2::testing

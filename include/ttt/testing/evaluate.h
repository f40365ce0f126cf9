// Evaluations of a model against a reference and against text. They drive CausalLM::step themselves, so what
// they measure is the model and nothing above it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/testing/reference.h"

namespace ttt::inline v2::testing {

// (done, total) of whatever is counted.
using Progress = std::function<void(std::size_t, std::size_t)>;

// ---------------------------------------------------------------- goldens

struct GoldenOptions {
  LoadOptions load{};  // its precision is replaced by each of the following
  std::vector<std::string> precisions{"f32", "bf16"};
  bool chunks = false;      // also the prompt in chunks of 5 and token by token
  bool batch = false;       // also as one of eight sequences of different lengths
  double tolerance = 2e-3;  // of a float32 logit, absolute
};

// One golden at one precision.
struct GoldenRun {
  std::string precision;
  bool passed = false;
  double max_error = 0;              // over logits and decode_logits, absolute
  double pcc = 0;                    // of the prompt's logits
  double required_pcc = 0;           // what bf16 and lower must reach; 0 under f32, where max_error decides
  int tokens_equal = 0, tokens = 0;  // greedy tokens as in the reference's continuation
  // Against the run in one piece; unset: not asked for, or not the same computation (rotations that depend on
  // the length so far).
  std::optional<double> chunks_error{}, single_error{}, batch_error{};
  std::string diverges;  // where it failed: the first tap that is off and by how much, as far as the
                         // reference has taps
  std::string failure;   // why it did not pass, one line; empty: it did
};
struct GoldenResult {
  std::filesystem::path path;
  std::string name;  // of the folder or fixture
  std::string architecture, family;
  std::string reference{};  // what computed it: "transformers 5.23.0"
  std::string device{};     // what ran: the backend's description
  double seconds = 0;       // of all runs, loading included
  std::vector<GoldenRun> runs{};
  bool passed() const;
};

// `path`: a checkpoint folder with a golden.safetensors, or a fixture file (tests/golden/fixtures/NAME.json),
// whose reference is
// ../reference/NAME.safetensors.
//
// The prompt is run in one piece, then the reference's continuation is fed token by token. Under f32 every
// logit must be within the tolerance and the greedy tokens equal; otherwise the PCC of the prompt's logits
// must be at least min(0.99, p - 0.002), where p is what the reference's own bfloat16 reaches: metadata
// bf16_pcc of the reference, or the folder's row in
// ../bf16_reference.csv, or 1. Chunks and batch are compared with the run in one piece: under f32 within the
// tolerance, otherwise their logits must correlate with it as much as with the reference.
//
// Errors of loading are thrown; what goes wrong while running is a failure of the run.
GoldenResult evaluate_golden(const std::filesystem::path& path, const GoldenOptions& = {});

// ---------------------------------------------------------------- perplexity

enum class Bos : std::uint8_t { automatic, yes, no };  // automatic: where the tokenizer adds it

struct PerplexityOptions {
  std::size_t tokens = 0;  // the first N tokens of the text, BOS among them; 0: all
  int context = 0;         // tokens of a window; 0: the model's maximum, or all tokens when they are fewer
  int stride = 0;  // new tokens per window; 0, or more than fit beside one token of context: as many as fit
  Bos bos = Bos::automatic;
  Progress progress{};
};
struct PerplexityResult {
  double perplexity = 0;       // exp of the mean negative log-likelihood of a scored token
  double word_perplexity = 0;  // the same per word: what stands between white space in the text of the tokens
  double bits_per_byte = 0;    // of the text of the scored tokens
  std::size_t tokens = 0;      // evaluated, BOS among them
  std::size_t scored = 0;      // all but the first
  std::size_t words = 0, bytes = 0, windows = 0;
  int context = 0, stride = 0;
  bool bos = false;
  double seconds = 0;
};

// Every token but the first is scored once. The first window scores all its tokens but the first; each later
// one ends `stride` tokens further and scores these; it begins with BOS where the text does. Error: fewer
// than two tokens, a context that the model does not have, a stride above the context.
PerplexityResult evaluate_perplexity(const CausalLM&, const Tokenizer&, std::string_view text,
                                     const PerplexityOptions& = {});
// The same of tokens; Bos::yes says that the first one is the beginning of sequence. Nothing is known of
// words and bytes.
PerplexityResult evaluate_perplexity(const CausalLM&, std::span<const std::int32_t> ids,
                                     const PerplexityOptions& = {});

// ---------------------------------------------------------------- token agreement

struct TokenAccuracyOptions {
  std::size_t prefill = 512;  // tokens of the prompt; the rest of the reference is fed one by one
  Progress progress{};
};
struct TokenAccuracyResult {
  double top1 = 0;  // share of positions where our likeliest token is the reference's likeliest
  double top5 = 0;  // .. is among the reference's five
  std::size_t positions = 0, prefill = 0, steps = 0;
  double seconds = 0;
};

// Teacher forcing: the first `prefill` tokens of the reference's prompt, then one step for each but the last
// of the others; every run of the model predicts one token. Error: the reference has no top5_ids or too few
// tokens, or another vocabulary.
TokenAccuracyResult evaluate_tokens(const CausalLM&, const Reference&, const TokenAccuracyOptions& = {});
// The same of tokens and the five best ids after each of them; `where` they are from is for messages.
TokenAccuracyResult evaluate_tokens(const CausalLM&, std::span<const std::int32_t> ids,
                                    std::span<const std::int32_t> top5_ids, const TokenAccuracyOptions&,
                                    const std::string& where = "the tokens");

}  // namespace ttt::inline v2::testing

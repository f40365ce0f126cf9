// Generator: continuous batching over one model. Requests join and leave between steps; each step runs the
// next token of every request that writes and fills up with chunks of prompts that are still read.
//
//   Generator generator(model, &tokenizer);
//   std::string text = generator.generate({.prompt = "The capital of France is"}).text;
//
// KV memory is paged: full blocks of equal prefixes are shared, and when blocks run out the latest request is
// set back and recomputed. What a request answers depends on neither (docs/generation.md says what that rests
// on).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/model/causal_lm.h"
#include "ttt/runtime/sampler.h"
#include "ttt/text/tokenizer.h"

namespace ttt::inline v2 {

using RequestId = std::uint64_t;

enum class FinishReason : std::uint8_t {
  stop,       // an end id, a stop id or a stop string
  length,     // max_new_tokens, or the context is full
  cancelled,  // by cancel(), by an exception of a callback, or by the end of the generator
  error,      // of the model's step or of its logits; GenerationResult::error says which
};
std::string_view name(FinishReason);

// What a request's step brought. The views live during the call only.
struct GenerationDelta {
  RequestId request = 0;
  std::string_view text{};  // whole UTF-8 sequences; all deltas together are GenerationResult::text
  std::span<const std::int32_t>
      ids{};  // may be ahead of the text, which waits for whole characters and stop strings
  std::span<const PositionLogprobs> logprobs{};  // one per id when asked for
  std::optional<FinishReason> finish_reason{};   // set in the last delta
};

struct GenerationTimings {           // seconds
  double queue = 0;                  // from submit() to the first step that had the request
  double time_to_first_token = 0;    // from submit(); 0 when there is none
  double total = 0;                  // from submit() to the end
  std::vector<double> tokens{};      // arrival of each token, from submit()
  double tokens_per_second() const;  // of the tokens after the first; 0 when there are none
};

struct GenerationResult {
  RequestId request = 0;
  std::vector<std::int32_t>
      ids{};  // new tokens, the end id included; of a stop string, those up to the one that completed it
  std::string text{};  // of the new tokens, without end ids and special tokens; empty without a tokenizer
  FinishReason finish_reason = FinishReason::length;
  std::string stop_string{};                 // the one that ended the output, if one did
  std::optional<std::int32_t> stop_token{};  // the id that ended the output, if one did
  std::string error{};  // what went wrong (FinishReason::error), or what a callback threw
  std::vector<PositionLogprobs> logprobs{};  // one per id when asked for
  std::vector<PositionLogprobs>
      prompt_logprobs{};  // of prompt tokens 1, 2, .. when asked for (the first has none)
  std::size_t prompt_tokens = 0;
  std::size_t cached_tokens = 0;  // of the prompt, whose KV was there when the request was first scheduled
  std::size_t preemptions = 0;
  std::size_t drafted_tokens = 0, accepted_tokens = 0;  // prompt-lookup speculation
  std::uint64_t seed = 0;                               // the one in use: give it again to repeat the output
  GenerationTimings timings{};
};

struct GenerationRequest {
  std::string prompt{};  // text; used where prompt_ids is empty
  std::vector<std::int32_t> prompt_ids{};
  EncodeOptions encode{};  // of `prompt`
  SamplingParams sampling{};
  int priority = 0;  // greater ones first; equal ones in the order of arrival

  // Called by the thread that runs the step, without locks held: submit(), cancel() and stats() are allowed,
  // step() and generate() not. An exception cancels this request only.
  std::function<void(const GenerationDelta&)> on_delta{};
  // Takes the result; without it the result is kept for take(), wait() or generate().
  std::function<void(GenerationResult&&)> on_finish{};
  // Changes the logits of the next token, e.g. masks them for structured output: (output so far, [vocab]
  // logits).
  std::function<void(std::span<const std::int32_t>, std::span<float>)> logits_processor{};
};

struct GeneratorOptions {
  int max_batch = 32;          // sequences in one step
  int max_step_tokens = 512;   // rows in one step: decode rows first, prompts fill up; at least one row of a
                               // prompt where one waits
  int block_size = 32;         // positions in a KV block
  std::size_t kv_bytes = 0;    // KV memory; 0: what max_batch contexts need, but no more than 1 GiB
  std::int64_t kv_blocks = 0;  // the same in blocks, in place of kv_bytes; 0: by kv_bytes
  int max_context = 0;  // tokens of prompt and output of one request; 0: the model's, or what KV memory holds
                        // when that is less
  bool prefix_reuse =
      true;  // keep full blocks and share them; off where the model can not (Capabilities::prefix_reuse)
  // Tokens that end an output unless ignore_eos; unset: the tokenizer's end_ids(). Callers pass the
  // checkpoint's generation config.
  std::optional<std::vector<std::int32_t>> eos_token_ids{};
  // Prompt-lookup speculation: up to this many tokens that followed the last earlier occurrence of the
  // sequence's end are run along and kept as far as they are what would have been chosen. Output does not
  // change. 0: off. Error where the model can not take tokens back (Capabilities::speculation).
  int prompt_lookup_tokens = 0;
  int prompt_lookup_ngram = 3;  // longest end that is looked up; shorter ones down to 2 follow
};

// A snapshot. Counters run from the construction.
struct GeneratorStats {
  std::size_t waiting = 0, running = 0;  // requests now
  std::size_t last_step_sequences = 0, last_step_tokens = 0;
  std::int64_t kv_blocks = 0;         // all
  std::int64_t kv_blocks_used = 0;    // held by running requests
  std::int64_t kv_blocks_cached = 0;  // held by none, kept for their contents
  std::size_t kv_bytes = 0;           // all
  double kv_occupancy() const {
    return kv_blocks == 0 ? 0 : static_cast<double>(kv_blocks_used) / static_cast<double>(kv_blocks);
  }
  std::uint64_t steps = 0;
  std::uint64_t submitted = 0;
  std::array<std::uint64_t, 4> finished{};  // by FinishReason
  std::uint64_t prompt_tokens = 0;          // of requests that were scheduled
  std::uint64_t cached_tokens = 0;          // of them, not computed because their KV was there
  std::uint64_t computed_tokens = 0;        // rows run: prompts, outputs, drafts, and what preemption repeats
  std::uint64_t generated_tokens = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t drafted_tokens = 0, accepted_tokens = 0;
  double step_seconds = 0;  // in the model's step, all together
};

// submit(), cancel(), take() and stats() are safe from any thread. step(), run(), wait() and generate() may
// be called from any thread too; steps run one at a time, each for all requests.
class Generator {
 public:
  // `model` outlives the generator; `tokenizer` is copied, null: ids only. KV memory is allocated here.
  // Error: an option out of range, or KV memory that can not hold what the options promise (the message says
  // what fits).
  explicit Generator(const CausalLM& model, const Tokenizer* tokenizer = nullptr,
                     const GeneratorOptions& = {});
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;
  ~Generator();  // requests that are still there end as cancelled

  // Runs until the request is done. Error as submit(); what goes wrong later is in the result
  // (FinishReason::error).
  GenerationResult generate(GenerationRequest);
  // All of them batched; results in the order of the requests. When one is refused none is run.
  std::vector<GenerationResult> generate(std::span<const GenerationRequest>);

  // Whether SamplingParams::json_schema can be used: a matter of the build.
  static bool follows_schemas();

  // Queues the request. Error: sampling parameters, a schema that can not be followed, an empty prompt, an id
  // outside of the vocabulary, a prompt that leaves no room for a token in the context (the message says what
  // fits and what to change).
  RequestId submit(GenerationRequest);
  // The request ends at the next step, with what it has. false when it is not there any more.
  bool cancel(RequestId);
  void cancel_all();

  // One iteration: schedules, runs the model once, samples, calls back. false when there was nothing to do.
  bool step();
  bool idle() const;  // no request waits or runs
  // Steps for as long as there is work and sleeps while there is none, until stop is requested: the loop of a
  // server's thread.
  void run(std::stop_token);

  // The result of a finished request, once. Nothing while it runs, for an unknown id, or when on_finish took
  // it.
  std::optional<GenerationResult> take(RequestId);
  GenerationResult wait(RequestId);  // steps until it is finished; Error for an id that is not there

  GeneratorStats stats() const;
  int max_context() const;                  // in force
  const GeneratorOptions& options() const;  // with defaults filled in
  const CausalLM& model() const;
  const Tokenizer* tokenizer() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ttt::inline v2

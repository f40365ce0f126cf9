// What the files of Generator share: a request's state and the class that all work is done by.
//   generator.cpp           memory, requests, the public face
//   generator_schedule.cpp  which rows a step takes, and whose memory they use
//   generator_step.cpp      running them, choosing tokens, ending requests
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "runtime/block_manager.h"
#include "runtime/json_grammar.h"
#include "runtime/stop_matcher.h"
#include "ttt/runtime/generator.h"
#include "ttt/text/stream_decoder.h"

namespace ttt::inline v2 {

namespace runtime {

using Clock = std::chrono::steady_clock;

inline double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// One request, from submit() to its end. Only `cancelled` is touched by threads other than the one that
// steps.
struct Sequence {
  RequestId id = 0;
  GenerationRequest request;
  bool keep_result = false;  // for generate(), beside what on_finish gets
  std::atomic<bool> cancelled = false;

  std::vector<std::int32_t> tokens;  // prompt and output
  std::size_t prompt_size = 0;
  std::size_t limit = 0;              // of output tokens, by max_new_tokens and the context
  std::vector<std::int32_t> end_ids;  // end the output; banned until min_new_tokens

  std::size_t computed = 0;  // tokens whose KV is there
  std::vector<std::int32_t> blocks;
  std::vector<BlockManager::Content> contents;  // of the full blocks, in order
  std::int32_t slot = -1;                       // >= 0 exactly while running
  bool scheduled_before = false;

  Penalties penalties;
  std::optional<StreamDecoder> decoder;
  StopMatcher stops;
  JsonMask json;
  GenerationResult result;
  Clock::time_point submitted;

  const SamplingParams& params() const { return request.sampling; }
  std::size_t pending() const { return tokens.size() - computed; }
  std::span<const std::int32_t> output() const { return std::span(tokens).subspan(prompt_size); }
  // Prompt positions whose log-probabilities are still to come: rows [size of those known, prompt_size - 1)
  // have them.
  bool wants_prompt_logits() const {
    return params().prompt_logprobs && result.prompt_logprobs.size() + 1 < prompt_size;
  }
};

using SequencePtr = std::shared_ptr<Sequence>;

// What a sequence brings to a step.
struct Part {
  SequencePtr sequence;
  std::vector<std::int32_t> rows;  // token ids: known tokens, then drafts
  std::size_t drafts = 0;
  std::size_t first_logit = 0, logits = 0;  // of the rows, those that want logits; in the step's output
};

}  // namespace runtime

class Generator::Impl {
 public:
  Impl(const CausalLM& model, const Tokenizer* tokenizer, const GeneratorOptions& options);
  ~Impl();

  runtime::SequencePtr prepare(GenerationRequest request) const;
  void enqueue(std::span<const runtime::SequencePtr> sequences);
  bool step();
  void run(const std::stop_token& stop);
  GenerationResult wait(RequestId id);
  std::optional<GenerationResult> take(RequestId id);
  bool cancel(RequestId id);
  void cancel_all();
  bool idle() const;
  GeneratorStats stats() const;

  const CausalLM& model_;
  std::optional<Tokenizer> tokenizer_;
  GeneratorOptions options_;

 private:
  static runtime::BlockManager plan_memory(const CausalLM& model, GeneratorOptions& options);
  std::int64_t blocks_for(std::size_t tokens) const {
    const auto size = static_cast<std::size_t>(options_.block_size);
    return static_cast<std::int64_t>((tokens + size - 1) / size);
  }

  // The right to step, which one thread has at a time.
  class Turn {
   public:
    explicit Turn(Impl& impl);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Impl& impl_;
  };
  void refuse_in_callback() const;

  bool collect();
  std::vector<runtime::Part> schedule();
  void schedule_decode(std::vector<runtime::Part>& parts);
  void schedule_prefill(std::vector<runtime::Part>& parts);
  void add_drafts(std::vector<runtime::Part>& parts);
  std::size_t chunk_size(const runtime::Sequence& s, std::size_t budget) const;
  bool admit(const runtime::SequencePtr& s);
  void preempt(const runtime::SequencePtr& s);
  void free_memory(runtime::Sequence& s);
  void trim(runtime::Sequence& s);
  void publish(runtime::Sequence& s);
  void run_parts(std::vector<runtime::Part>& parts);
  void advance(runtime::Part& part, std::span<float> logits, std::int64_t vocab,
               runtime::Clock::time_point now);
  std::int32_t choose(runtime::Sequence& s, std::span<float> logits);
  void finish(const runtime::SequencePtr& s, FinishReason reason, std::string error = {},
              std::size_t new_tokens = 0, std::string text = {});
  bool deliver(runtime::Sequence& s, std::size_t new_tokens, std::string_view text,
               std::optional<FinishReason> reason);
  void count_step(std::size_t sequences, std::size_t tokens, double model_seconds);
  void update_gauges();

  Capabilities capabilities_;
  std::int64_t vocab_ = 0;
  runtime::BlockManager blocks_;
  std::unique_ptr<State> state_;
  std::uint64_t seed_base_;
  std::unique_ptr<runtime::JsonGrammars> grammars_;  // null: no tokenizer

  // Of the thread whose turn it is to step: everything of scheduling, the sequences included.
  std::vector<runtime::SequencePtr> waiting_, running_;  // by priority, then arrival
  std::vector<std::int32_t> free_slots_;
  bool decode_turn_ = false;  // where steps do not mix
  Sampler sampler_;
  std::vector<float> raw_logits_, saved_;

  // Held for moments: what other threads touch.
  mutable std::mutex mutex_;
  std::condition_variable_any work_, turn_;  // something arrived; a step has ended
  bool work_arrived_ = false, closed_ = false;
  std::optional<std::thread::id> stepping_;
  std::vector<runtime::SequencePtr> incoming_;
  std::unordered_map<RequestId, runtime::SequencePtr> live_;
  std::unordered_map<RequestId, GenerationResult> finished_;
  RequestId next_id_ = 1;
  GeneratorStats stats_;
};

}  // namespace ttt::inline v2

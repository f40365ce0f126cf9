#include "ttt/runtime/generator.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <iterator>
#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <unordered_map>
#include <utility>

#include "runtime/block_manager.h"
#include "runtime/prompt_lookup.h"
#include "runtime/stop_matcher.h"
#include "ttt/base/error.h"
#include "ttt/text/stream_decoder.h"

namespace ttt::inline v2 {

using runtime::BlockManager;
using runtime::StopMatcher;

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t default_kv_bytes = std::size_t{1} << 30;
constexpr std::size_t prompt_logit_bytes = std::size_t{64} << 20;  // of one chunk whose logits are all wanted
constexpr std::int64_t unlimited_context = std::int64_t{1} << 20;  // of a model that names no limit

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

// What an exception that is being handled says.
std::string current_message() {
  try {
    throw;
  } catch (const std::exception& e) { return e.what(); } catch (...) {
    return "an exception of unknown type";
  }
}

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

bool before(const SequencePtr& a, const SequencePtr& b) {
  return a->request.priority != b->request.priority ? a->request.priority > b->request.priority
                                                    : a->id < b->id;
}

void insert_in_order(std::vector<SequencePtr>& list, SequencePtr sequence) {
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, before), std::move(sequence));
}

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::error:
      break;
  }
  return "error";
}

double GenerationTimings::tokens_per_second() const {
  if (tokens.size() < 2 || tokens.back() <= tokens.front()) return 0;
  return static_cast<double>(tokens.size() - 1) / (tokens.back() - tokens.front());
}

class Generator::Impl {
 public:
  Impl(const CausalLM& model, const Tokenizer* tokenizer, const GeneratorOptions& options);
  ~Impl();

  SequencePtr prepare(GenerationRequest request) const;
  void enqueue(std::span<const SequencePtr> sequences);
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
  static BlockManager plan_memory(const CausalLM& model, GeneratorOptions& options);
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
  std::vector<Part> schedule();
  void schedule_decode(std::vector<Part>& parts);
  void schedule_prefill(std::vector<Part>& parts);
  void add_drafts(std::vector<Part>& parts);
  std::size_t chunk_size(const Sequence& s, std::size_t budget) const;
  bool admit(const SequencePtr& s);
  void preempt(const SequencePtr& s);
  void free_memory(Sequence& s);
  void trim(Sequence& s);
  void publish(Sequence& s);
  void run_parts(std::vector<Part>& parts);
  void advance(Part& part, std::span<float> logits, std::int64_t vocab, Clock::time_point now);
  std::int32_t choose(Sequence& s, std::span<float> logits);
  void finish(const SequencePtr& s, FinishReason reason, std::string error = {}, std::size_t new_tokens = 0,
              std::string text = {});
  bool deliver(Sequence& s, std::size_t new_tokens, std::string_view text,
               std::optional<FinishReason> reason);
  void count_step(std::size_t sequences, std::size_t tokens, double model_seconds);
  void update_gauges();

  Capabilities capabilities_;
  std::int64_t vocab_ = 0;
  BlockManager blocks_;
  std::unique_ptr<State> state_;
  std::uint64_t seed_base_ = random_seed();

  // Of the thread whose turn it is to step: everything of scheduling, the sequences included.
  std::vector<SequencePtr> waiting_, running_;  // by priority, then arrival
  std::vector<std::int32_t> free_slots_;
  bool decode_turn_ = false;  // where steps do not mix
  Sampler sampler_;
  std::vector<float> raw_logits_, saved_;

  // Held for moments: what other threads touch.
  mutable std::mutex mutex_;
  std::condition_variable_any work_, turn_;  // something arrived; a step has ended
  bool work_arrived_ = false, closed_ = false;
  std::optional<std::thread::id> stepping_;
  std::vector<SequencePtr> incoming_;
  std::unordered_map<RequestId, SequencePtr> live_;
  std::unordered_map<RequestId, GenerationResult> finished_;
  RequestId next_id_ = 1;
  GeneratorStats stats_;
};

// --- Construction

namespace {

void check_option(std::string_view field, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return;
  throw Error("generator option out of range", std::string(field) + " " + std::to_string(value),
              "use a number from " + std::to_string(least) + " to " + std::to_string(most));
}

std::string in_mebibytes(std::size_t bytes) {
  return std::to_string((bytes + (1u << 20) - 1) >> 20) + " MiB";
}

}  // namespace

// Fills in kv_blocks, kv_bytes and max_context.
BlockManager Generator::Impl::plan_memory(const CausalLM& model, GeneratorOptions& options) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  check_option("max_batch", options.max_batch, 1, 1 << 16);
  check_option("max_step_tokens", options.max_step_tokens, 1, 1 << 24);
  check_option("block_size", options.block_size, 1, 1 << 16);
  check_option("kv_blocks", options.kv_blocks, 0, most);
  check_option("max_context", options.max_context, 0, most);
  check_option("prompt_lookup_tokens", options.prompt_lookup_tokens, 0, 1 << 10);
  check_option("prompt_lookup_ngram", options.prompt_lookup_ngram, 2, 1 << 10);
  const std::int64_t positions = model.spec().max_positions;
  if (positions > 0 && options.max_context > positions)
    throw Error("max_context is beyond the model's positions",
                "max_context " + std::to_string(options.max_context),
                "use at most " + std::to_string(positions));

  const std::int64_t block_size = options.block_size;
  std::size_t position_bytes = 0;
  for (const KvLayerSpec& layer : model.kv_layers()) position_bytes += layer.bytes_per_position();
  const std::size_t block_bytes = position_bytes * static_cast<std::size_t>(block_size);
  const std::int64_t context = options.max_context > 0 ? options.max_context
                               : positions > 0         ? positions
                                                       : unlimited_context;
  const std::int64_t context_blocks = (context + block_size - 1) / block_size;
  if (options.kv_blocks == 0) {
    const std::int64_t wanted = std::min(most, context_blocks * options.max_batch);
    if (options.kv_bytes == 0) {
      options.kv_blocks = wanted;
      if (block_bytes > 0)
        options.kv_blocks = std::min(
            wanted, std::max<std::int64_t>(1, static_cast<std::int64_t>(default_kv_bytes / block_bytes)));
    } else {
      options.kv_blocks =
          block_bytes == 0
              ? wanted
              : static_cast<std::int64_t>(std::min<std::size_t>(most, options.kv_bytes / block_bytes));
      if (options.kv_blocks == 0)
        throw Error("KV memory holds no block", "kv_bytes " + std::to_string(options.kv_bytes),
                    "use at least " + std::to_string(block_bytes) + " bytes, or a smaller block_size");
    }
  }
  const std::int64_t capacity = options.kv_blocks * block_size;
  if (options.max_context > capacity)
    throw Error("KV memory holds " + std::to_string(capacity) + " tokens, fewer than one context",
                "max_context " + std::to_string(options.max_context),
                "lower max_context, or raise KV memory to " + std::to_string(context_blocks) + " blocks (" +
                    in_mebibytes(static_cast<std::size_t>(context_blocks) * block_bytes) + ")");
  options.max_context = static_cast<int>(std::min({context, capacity, most}));
  options.kv_bytes = static_cast<std::size_t>(options.kv_blocks) * block_bytes;

  const Capabilities can = model.capabilities();
  options.prefix_reuse = options.prefix_reuse && can.prefix_reuse && can.chunked_prefill;
  if (options.prompt_lookup_tokens > 0 && !(can.speculation && can.chunked_prefill && can.mixed_step))
    throw Error("the model can not take tokens back, or can not verify several at once",
                "prompt_lookup_tokens " + std::to_string(options.prompt_lookup_tokens),
                "set prompt_lookup_tokens to 0");
  return BlockManager(options.kv_blocks, options.block_size, options.prefix_reuse);
}

Generator::Impl::Impl(const CausalLM& model, const Tokenizer* tokenizer, const GeneratorOptions& options)
    : model_(model),
      options_(options),
      capabilities_(model.capabilities()),
      vocab_(model.spec().vocab),
      blocks_(plan_memory(model, options_)),
      state_(model.allocate(
          {.blocks = options_.kv_blocks, .block_size = options_.block_size, .slots = options_.max_batch})) {
  if (tokenizer) tokenizer_ = *tokenizer;
  if (!options_.eos_token_ids)
    options_.eos_token_ids = tokenizer ? tokenizer->end_ids() : std::vector<std::int32_t>{};
  for (int slot = options_.max_batch; slot-- > 0;) free_slots_.push_back(slot);
  update_gauges();
}

Generator::Impl::~Impl() {
  const Turn turn(*this);
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  cancel_all();
  collect();
}

// --- Requests

SequencePtr Generator::Impl::prepare(GenerationRequest request) const {
  auto s = std::make_shared<Sequence>();
  s->submitted = Clock::now();
  const SamplingParams& params = request.sampling;
  validate(params, vocab_);
  if (!tokenizer_) {
    if (request.prompt_ids.empty() && !request.prompt.empty())
      throw Error("a prompt of text needs a tokenizer", "prompt",
                  "give prompt_ids, or the generator a tokenizer");
    if (!params.stop.empty())
      throw Error("stop strings need a tokenizer", "stop",
                  "use stop_token_ids, or give the generator a tokenizer");
  }
  if (request.prompt_ids.empty() && tokenizer_)
    s->tokens = tokenizer_->encode(request.prompt, request.encode);
  else
    s->tokens = std::move(request.prompt_ids);
  if (s->tokens.empty()) throw Error("the prompt is empty", "prompt", "give at least one token");
  for (const std::int32_t id : s->tokens) {
    if (id < 0 || id >= vocab_)
      throw Error("a token is outside of the model's vocabulary", "prompt id " + std::to_string(id),
                  "use ids from 0 to " + std::to_string(vocab_ - 1));
  }
  s->prompt_size = s->tokens.size();
  const auto context = static_cast<std::size_t>(options_.max_context);
  const std::size_t new_tokens = params.max_new_tokens > 0 ? 1 : 0;
  if (s->prompt_size + new_tokens > context) {
    const bool memory = context == static_cast<std::size_t>(options_.kv_blocks) *
                                       static_cast<std::size_t>(options_.block_size);
    throw Error("the prompt of " + std::to_string(s->prompt_size) + " tokens leaves no room for an answer",
                "the context holds " + std::to_string(context) + " tokens",
                memory ? "shorten the prompt, or raise KV memory (kv_bytes " +
                             std::to_string(options_.kv_bytes) + ") and max_context"
                       : "shorten the prompt, or raise max_context");
  }
  s->limit = std::min(static_cast<std::size_t>(params.max_new_tokens), context - s->prompt_size);
  s->end_ids = params.stop_token_ids;
  if (!params.ignore_eos)
    s->end_ids.insert(s->end_ids.end(), options_.eos_token_ids->begin(), options_.eos_token_ids->end());
  s->penalties = Penalties(params, s->tokens);
  if (tokenizer_) s->decoder.emplace(*tokenizer_, s->tokens);
  s->stops = StopMatcher(params.stop, params.include_stop_string);
  s->result.prompt_tokens = s->prompt_size;
  s->request = std::move(request);
  return s;
}

void Generator::Impl::enqueue(std::span<const SequencePtr> sequences) {
  const std::lock_guard lock(mutex_);
  if (closed_) throw Error("the generator is ending", "", "submit no request from the last callbacks");
  for (const SequencePtr& s : sequences) {
    s->id = s->result.request = next_id_++;
    s->result.seed = s->params().seed.value_or(seed_base_ + s->id * 0x9E3779B97F4A7C15u);
    live_.emplace(s->id, s);
    incoming_.push_back(s);
    ++stats_.submitted;
  }
  work_arrived_ = true;
  work_.notify_all();
}

bool Generator::Impl::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(id);
  if (found == live_.end()) return false;
  found->second->cancelled = true;
  work_arrived_ = true;
  work_.notify_all();
  return true;
}

void Generator::Impl::cancel_all() {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, s] : live_) s->cancelled = true;
  work_arrived_ = true;
  work_.notify_all();
}

bool Generator::Impl::idle() const {
  const std::lock_guard lock(mutex_);
  return live_.empty();
}

std::optional<GenerationResult> Generator::Impl::take(RequestId id) {
  const std::lock_guard lock(mutex_);
  auto node = finished_.extract(id);
  if (node.empty()) return std::nullopt;
  return std::move(node.mapped());
}

GenerationResult Generator::Impl::wait(RequestId id) {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      refuse_in_callback();
      // While another thread steps, this one sleeps: it must not miss its result for want of a turn.
      turn_.wait(lock, [&] { return !stepping_ || !live_.contains(id); });
      if (auto node = finished_.extract(id); !node.empty()) return std::move(node.mapped());
      if (!live_.contains(id))
        throw Error("no such request", "request " + std::to_string(id),
                    "wait once for each id that submit() gave");
    }
    step();
  }
}

GeneratorStats Generator::Impl::stats() const {
  const std::lock_guard lock(mutex_);
  GeneratorStats now = stats_;
  now.waiting = live_.size() - std::min(live_.size(), stats_.running);
  return now;
}

// --- Scheduling

// New requests join the queue; cancelled ones leave. Whether any did.
bool Generator::Impl::collect() {
  std::vector<SequencePtr> arrived;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(incoming_);
    work_arrived_ = false;
  }
  for (SequencePtr& s : arrived) insert_in_order(waiting_, std::move(s));
  std::vector<SequencePtr> leaving;
  for (const std::vector<SequencePtr>* list : {&waiting_, &running_})
    std::copy_if(list->begin(), list->end(), std::back_inserter(leaving),
                 [](const SequencePtr& s) { return s->cancelled.load(); });
  for (const SequencePtr& s : leaving) finish(s, FinishReason::cancelled);
  return !leaving.empty();
}

void Generator::Impl::free_memory(Sequence& s) {
  blocks_.release(s.blocks);
  s.blocks.clear();
  s.contents.clear();
  s.computed = 0;
  if (s.slot >= 0) free_slots_.push_back(s.slot);
  s.slot = -1;
}

// Gives back the blocks beyond those that the known tokens need.
void Generator::Impl::trim(Sequence& s) {
  const auto needed = static_cast<std::size_t>(blocks_for(s.tokens.size()));
  if (s.blocks.size() <= needed) return;
  blocks_.release(std::span(s.blocks).subspan(needed));
  s.blocks.resize(needed);
}

void Generator::Impl::preempt(const SequencePtr& s) {
  free_memory(*s);
  ++s->result.preemptions;
  std::erase(running_, s);
  insert_in_order(waiting_, s);
  const std::lock_guard lock(mutex_);
  ++stats_.preemptions;
}

// Gives the request a slot and blocks for all its tokens, found or new. False when they are not there now.
bool Generator::Impl::admit(const SequencePtr& s) {
  if (free_slots_.empty()) return false;
  BlockManager::Match match;
  // The last token is always run: its logits are wanted.
  if (options_.prefix_reuse && !s->wants_prompt_logits())
    match = blocks_.find(std::span(s->tokens).first(s->tokens.size() - 1));
  const auto held = std::count_if(match.blocks.begin(), match.blocks.end(),
                                  [&](std::int32_t b) { return blocks_.held(b); });
  const std::int64_t total = blocks_for(s->tokens.size());
  // A spare block for each that runs: otherwise its next token could set this one back again.
  if (total - held + static_cast<std::int64_t>(running_.size()) > blocks_.available()) return false;
  for (const std::int32_t block : match.blocks) blocks_.acquire(block);
  s->blocks = std::move(match.blocks);
  s->contents = std::move(match.contents);
  s->computed = s->blocks.size() * static_cast<std::size_t>(options_.block_size);
  while (static_cast<std::int64_t>(s->blocks.size()) < total) s->blocks.push_back(*blocks_.allocate());
  s->slot = free_slots_.back();
  free_slots_.pop_back();
  if (!s->scheduled_before) {
    s->scheduled_before = true;
    s->result.cached_tokens = s->computed;
    s->result.timings.queue = seconds(Clock::now() - s->submitted);
    const std::lock_guard lock(mutex_);
    stats_.prompt_tokens += s->prompt_size;
    stats_.cached_tokens += s->computed;
  }
  return true;
}

// One row for every request whose next token is all that is missing.
void Generator::Impl::schedule_decode(std::vector<Part>& parts) {
  // By index: preempting shortens the list at its end.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    const SequencePtr s = running_[i];
    if (s->pending() != 1) continue;
    while (static_cast<std::int64_t>(s->blocks.size()) < blocks_for(s->tokens.size())) {
      if (const auto block = blocks_.allocate()) {
        s->blocks.push_back(*block);
        continue;
      }
      const SequencePtr latest = running_.back();
      preempt(latest);
      if (latest == s) break;
    }
    if (s->slot < 0) break;
    parts.push_back({.sequence = s, .rows = {s->tokens.back()}});
  }
}

std::size_t Generator::Impl::chunk_size(const Sequence& s, std::size_t budget) const {
  std::size_t count = std::min(s.pending(), budget);
  if (s.wants_prompt_logits())
    count = std::min(count, std::max<std::size_t>(
                                1, prompt_logit_bytes / (sizeof(float) * static_cast<std::size_t>(vocab_))));
  return count;
}

// Chunks of prompts within what decode rows leave of the step, first of those already begun, then of those
// that wait.
void Generator::Impl::schedule_prefill(std::vector<Part>& parts) {
  const auto limit = static_cast<std::size_t>(options_.max_step_tokens);
  std::size_t budget = limit > parts.size() ? limit - parts.size() : 1;
  bool first = true;
  // Where steps do not mix, single rows are of the other kind than longer chunks.
  bool single = false;
  const auto add = [&](const SequencePtr& s) {
    std::size_t count = chunk_size(*s, budget);
    if (!capabilities_.chunked_prefill) {
      if (!first && s->pending() > budget) return false;
      count = s->pending();
    }
    if (!capabilities_.mixed_step) {
      if (first)
        single = count == 1;
      else if (single != (count == 1))
        return false;
    }
    const auto begin = s->tokens.begin() + static_cast<std::ptrdiff_t>(s->computed);
    parts.push_back({.sequence = s, .rows = {begin, begin + static_cast<std::ptrdiff_t>(count)}});
    budget -= std::min(budget, count);
    first = false;
    return true;
  };
  for (const SequencePtr& s : running_) {
    if (budget == 0) return;
    if (s->pending() > 1) add(s);
  }
  while (budget > 0 && !waiting_.empty()) {
    const SequencePtr s = waiting_.front();
    if (!admit(s)) return;
    waiting_.erase(waiting_.begin());
    insert_in_order(running_, s);
    if (!add(s)) return;  // it holds its memory and comes with a later step
  }
}

// Drafts for decode rows, in what is left of the step and of memory.
void Generator::Impl::add_drafts(std::vector<Part>& parts) {
  std::size_t rows = 0;
  for (const Part& part : parts) rows += part.rows.size();
  for (Part& part : parts) {
    Sequence& s = *part.sequence;
    const auto budget = static_cast<std::size_t>(options_.max_step_tokens);
    if (s.pending() != 1 || rows >= budget) continue;
    const std::size_t left = s.limit - s.output().size();
    const std::size_t count =
        std::min({static_cast<std::size_t>(options_.prompt_lookup_tokens), left - 1, budget - rows});
    const auto drafts =
        runtime::prompt_lookup(s.tokens, static_cast<std::size_t>(options_.prompt_lookup_ngram), count);
    for (const std::int32_t draft : drafts) {
      if (static_cast<std::int64_t>(s.blocks.size()) < blocks_for(s.tokens.size() + part.drafts + 1)) {
        if (blocks_.available() <= static_cast<std::int64_t>(running_.size())) break;
        s.blocks.push_back(*blocks_.allocate());
      }
      part.rows.push_back(draft);
      ++part.drafts;
    }
    rows += part.drafts;
  }
}

std::vector<Part> Generator::Impl::schedule() {
  std::vector<Part> parts;
  if (capabilities_.mixed_step) {
    schedule_decode(parts);
    schedule_prefill(parts);
    if (options_.prompt_lookup_tokens > 0) add_drafts(parts);
  } else {
    // In turns, so that neither kind starves the other.
    if (decode_turn_) schedule_decode(parts);
    const bool prefill = parts.empty() && (schedule_prefill(parts), !parts.empty());
    if (parts.empty()) schedule_decode(parts);
    decode_turn_ = prefill;
  }
  // Single rows first, as a step orders them.
  std::stable_partition(parts.begin(), parts.end(), [](const Part& part) { return part.rows.size() == 1; });
  return parts;
}

// --- The step

void Generator::Impl::refuse_in_callback() const {
  if (stepping_ == std::this_thread::get_id())
    throw Error("step(), wait() or generate() was called from a callback of the same generator", "",
                "use submit() there");
}

Generator::Impl::Turn::Turn(Impl& impl) : impl_(impl) {
  std::unique_lock lock(impl_.mutex_);
  impl_.refuse_in_callback();
  impl_.turn_.wait(lock, [&] { return !impl_.stepping_; });
  impl_.stepping_ = std::this_thread::get_id();
}

Generator::Impl::Turn::~Turn() {
  impl_.update_gauges();
  const std::lock_guard lock(impl_.mutex_);
  impl_.stepping_.reset();
  impl_.turn_.notify_all();
}

bool Generator::Impl::step() {
  const Turn turn(*this);
  const bool left = collect();
  std::vector<Part> parts = schedule();
  if (parts.empty()) return left;
  run_parts(parts);
  return true;
}

void Generator::Impl::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    if (step()) continue;
    std::unique_lock lock(mutex_);
    work_.wait(lock, stop, [&] { return work_arrived_; });
  }
}

void Generator::Impl::run_parts(std::vector<Part>& parts) {
  std::vector<std::int32_t> tokens, row_begin{0}, context, tables, slots, logit_rows;
  std::size_t width = 0;
  for (const Part& part : parts) width = std::max(width, part.sequence->blocks.size());
  tables.assign(width * parts.size(), -1);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    const Sequence& s = *part.sequence;
    const std::size_t first = tokens.size(), count = part.rows.size();
    tokens.insert(tokens.end(), part.rows.begin(), part.rows.end());
    row_begin.push_back(static_cast<std::int32_t>(tokens.size()));
    context.push_back(static_cast<std::int32_t>(s.computed));
    slots.push_back(s.slot);
    std::copy(s.blocks.begin(), s.blocks.end(), tables.begin() + static_cast<std::ptrdiff_t>(i * width));
    // Rows [from, count): prompt rows whose log-probabilities are wanted, then those whose next token is
    // unknown.
    std::size_t from = s.tokens.size() - 1 - s.computed;
    if (s.wants_prompt_logits())
      from = std::min(from, std::max(s.result.prompt_logprobs.size(), s.computed) - s.computed);
    part.first_logit = logit_rows.size();
    for (std::size_t row = std::min(from, count); row < count; ++row) {
      const bool is_new = s.computed + row + 1 >= s.tokens.size();
      const bool is_prompt = s.params().prompt_logprobs && s.computed + row + 1 < s.prompt_size;
      if (is_new || is_prompt) logit_rows.push_back(static_cast<std::int32_t>(first + row));
    }
    part.logits = logit_rows.size() - part.first_logit;
  }

  StepOutput output;
  const Clock::time_point start = Clock::now();
  std::string failure;
  try {
    output = model_.step({.tokens = tokens,
                          .row_begin = row_begin,
                          .context = context,
                          .block_tables = tables,
                          .table_width = static_cast<std::int32_t>(width),
                          .slots = slots,
                          .logit_rows = logit_rows},
                         *state_);
    if (output.rows != static_cast<std::int64_t>(logit_rows.size()) ||
        (output.rows > 0 &&
         (output.vocab != vocab_ ||
          output.logits.size() != static_cast<std::size_t>(output.rows) * static_cast<std::size_t>(vocab_))))
      failure = "the model's step returned logits [" + std::to_string(output.rows) + ", " +
                std::to_string(output.vocab) + "] where [" + std::to_string(logit_rows.size()) + ", " +
                std::to_string(vocab_) + "] were wanted";
  } catch (...) {
    failure = current_message();
    if (failure.empty()) failure = "the model's step failed";
  }
  const Clock::time_point now = Clock::now();
  count_step(parts.size(), tokens.size(), seconds(now - start));
  for (Part& part : parts) {
    if (!failure.empty()) {
      finish(part.sequence, FinishReason::error, failure);
      continue;
    }
    const auto vocab = static_cast<std::size_t>(vocab_);
    advance(part, std::span(output.logits).subspan(part.first_logit * vocab, part.logits * vocab), vocab_,
            now);
  }
}

void Generator::Impl::publish(Sequence& s) {
  if (!options_.prefix_reuse) return;
  const auto size = static_cast<std::size_t>(options_.block_size);
  while ((s.contents.size() + 1) * size <= s.computed) {
    const std::size_t i = s.contents.size();
    s.contents.push_back(blocks_.publish(s.blocks[i], i == 0 ? 0 : s.contents[i - 1],
                                         std::span(s.tokens).subspan(i * size, size)));
  }
}

// Takes in what the step computed for one request: [part.logits, vocab].
void Generator::Impl::advance(Part& part, std::span<float> logits, std::int64_t vocab,
                              Clock::time_point now) {
  const SequencePtr& s = part.sequence;
  const auto row = [&](std::size_t i) {
    return logits.subspan(i * static_cast<std::size_t>(vocab), static_cast<std::size_t>(vocab));
  };
  std::string text, error;
  std::size_t new_tokens = 0;
  std::optional<FinishReason> reason;
  try {
    std::size_t next = 0;  // logit row
    while (next < part.logits && s->wants_prompt_logits()) {
      const std::int32_t token = s->tokens[s->result.prompt_logprobs.size() + 1];
      s->result.prompt_logprobs.push_back(
          log_probabilities(row(next++), token, *s->params().prompt_logprobs));
    }
    s->computed += part.rows.size() - part.drafts;
    publish(*s);
    if (s->pending() > 0) return;  // more of the prompt to come
    if (s->cancelled) {
      reason = FinishReason::cancelled;
    } else if (s->limit == 0) {
      reason = FinishReason::length;
    }
    std::size_t accepted = 0;
    while (!reason) {
      const std::int32_t token = choose(*s, row(next++));
      s->tokens.push_back(token);
      s->result.timings.tokens.push_back(seconds(now - s->submitted));
      ++new_tokens;
      const std::size_t written = s->output().size();
      if (std::find(s->end_ids.begin(), s->end_ids.end(), token) != s->end_ids.end()) {
        reason = FinishReason::stop;
        s->result.stop_token = token;
      } else {
        if (s->decoder)
          text += s->stops.push(s->decoder->push(token),
                                written >= static_cast<std::size_t>(s->params().min_new_tokens));
        if (s->stops.matched())
          reason = FinishReason::stop;
        else if (written >= s->limit)
          reason = FinishReason::length;
      }
      if (reason || accepted == part.drafts || token != part.rows[part.rows.size() - part.drafts + accepted])
        break;
      ++accepted;
      ++s->computed;
    }
    if (part.drafts > 0) {
      s->result.drafted_tokens += part.drafts;
      s->result.accepted_tokens += accepted;
      const std::lock_guard lock(mutex_);
      stats_.drafted_tokens += part.drafts;
      stats_.accepted_tokens += accepted;
    }
    publish(*s);
    if (!reason) trim(*s);
  } catch (...) {
    reason = FinishReason::error;
    error = current_message();
  }
  {
    const std::lock_guard lock(mutex_);
    stats_.generated_tokens += new_tokens;
  }
  if (!reason) {
    if (!deliver(*s, new_tokens, text, {})) {
      new_tokens = 0, text.clear();
      reason = FinishReason::cancelled;
    } else if (s->cancelled) {
      reason = FinishReason::cancelled;
      new_tokens = 0, text.clear();
    }
  }
  if (reason) finish(s, *reason, std::move(error), new_tokens, std::move(text));
}

// The next token of the request. `logits` is changed.
std::int32_t Generator::Impl::choose(Sequence& s, std::span<float> logits) {
  const SamplingParams& params = s.params();
  const std::size_t position = s.output().size();
  const bool banned = position < static_cast<std::size_t>(params.min_new_tokens);
  const bool changes = banned || !params.allowed_token_ids.empty() || !params.logit_bias.empty() ||
                       s.request.logits_processor || s.penalties.active();
  if (params.logprobs && changes) raw_logits_.assign(logits.begin(), logits.end());
  const auto at = [&](std::int32_t id) -> float& { return logits[static_cast<std::size_t>(id)]; };
  constexpr float never = -std::numeric_limits<float>::infinity();
  if (changes) {
    if (!params.allowed_token_ids.empty()) {
      saved_.clear();
      for (const std::int32_t id : params.allowed_token_ids) saved_.push_back(at(id));
      std::fill(logits.begin(), logits.end(), never);
      for (std::size_t i = 0; i < saved_.size(); ++i) at(params.allowed_token_ids[i]) = saved_[i];
    }
    if (banned)
      for (const std::int32_t id : s.end_ids)
        if (id >= 0 && id < vocab_) at(id) = never;
    for (const auto& [id, bias] : params.logit_bias) at(id) += bias;
    if (s.request.logits_processor) s.request.logits_processor(s.output(), logits);
    s.penalties.apply(logits);
  }
  const std::int32_t token = sampler_.sample(logits, params, counter_uniform(s.result.seed, position));
  s.penalties.add(token);
  if (params.logprobs)
    s.result.logprobs.push_back(
        log_probabilities(changes ? std::span<const float>(raw_logits_) : logits, token, *params.logprobs));
  return token;
}

// --- The end of a request

// False when the callback threw; the message is in the result then.
bool Generator::Impl::deliver(Sequence& s, std::size_t new_tokens, std::string_view text,
                              std::optional<FinishReason> reason) {
  s.result.text += text;
  if (!s.request.on_delta || (new_tokens == 0 && text.empty() && !reason)) return true;
  try {
    const std::size_t logprobs = std::min(new_tokens, s.result.logprobs.size());
    s.request.on_delta({.request = s.id,
                        .text = text,
                        .ids = s.output().last(new_tokens),
                        .logprobs = std::span<const PositionLogprobs>(s.result.logprobs).last(logprobs),
                        .finish_reason = reason});
    return true;
  } catch (...) {
    s.result.error = current_message();
    return false;
  }
}

// Ends the request: memory back, last text out, result to whoever wants it.
void Generator::Impl::finish(const SequencePtr& s, FinishReason reason, std::string error,
                             std::size_t new_tokens, std::string text) {
  const SequencePtr keep = s;  // `s` may live in the lists it leaves
  Sequence& r = *keep;
  std::erase(running_, keep);
  std::erase(waiting_, keep);
  free_memory(r);
  if (r.decoder && !r.stops.matched()) {
    try {
      text += r.stops.push(r.decoder->finish(),
                           r.output().size() >= static_cast<std::size_t>(r.params().min_new_tokens));
      if (r.stops.matched() && reason == FinishReason::length) reason = FinishReason::stop;
      text += r.stops.finish();
    } catch (...) {
      if (error.empty()) error = current_message();
      reason = FinishReason::error;
    }
  }
  if (r.stops.matched()) r.result.stop_string = *r.stops.matched();
  if (!error.empty()) r.result.error = std::move(error);
  if (!deliver(r, new_tokens, text, reason) && reason != FinishReason::error)
    reason = FinishReason::cancelled;
  r.result.finish_reason = reason;
  r.result.ids.assign(r.output().begin(), r.output().end());
  if (!r.result.timings.tokens.empty())
    r.result.timings.time_to_first_token = r.result.timings.tokens.front();
  r.result.timings.total = seconds(Clock::now() - r.submitted);
  const bool takes = static_cast<bool>(r.request.on_finish);
  if (takes) {
    try {
      r.request.on_finish(r.keep_result ? GenerationResult(r.result) : std::move(r.result));
    } catch (...) {
      // The request is over; nobody is left to tell.
    }
  }
  const std::lock_guard lock(mutex_);
  ++stats_.finished[static_cast<std::size_t>(reason)];
  if (!takes || r.keep_result) finished_.insert_or_assign(r.id, std::move(r.result));
  live_.erase(r.id);
}

void Generator::Impl::count_step(std::size_t sequences, std::size_t tokens, double model_seconds) {
  const std::lock_guard lock(mutex_);
  ++stats_.steps;
  stats_.last_step_sequences = sequences;
  stats_.last_step_tokens = tokens;
  stats_.computed_tokens += tokens;
  stats_.step_seconds += model_seconds;
}

void Generator::Impl::update_gauges() {
  const std::lock_guard lock(mutex_);
  stats_.running = running_.size();
  stats_.kv_blocks = blocks_.blocks();
  stats_.kv_blocks_used = blocks_.blocks() - blocks_.available();
  stats_.kv_blocks_cached = blocks_.cached();
  stats_.kv_bytes = options_.kv_bytes;
}

// --- The public face

Generator::Generator(const CausalLM& model, const Tokenizer* tokenizer, const GeneratorOptions& options)
    : impl_(std::make_unique<Impl>(model, tokenizer, options)) {}
Generator::~Generator() = default;

GenerationResult Generator::generate(GenerationRequest request) {
  return std::move(generate(std::span<const GenerationRequest>(&request, 1)).front());
}

std::vector<GenerationResult> Generator::generate(std::span<const GenerationRequest> requests) {
  std::vector<SequencePtr> sequences;
  for (const GenerationRequest& request : requests) {
    sequences.push_back(impl_->prepare(request));
    sequences.back()->keep_result = true;
  }
  impl_->enqueue(sequences);
  std::vector<GenerationResult> results;
  for (const SequencePtr& s : sequences) results.push_back(impl_->wait(s->id));
  return results;
}

RequestId Generator::submit(GenerationRequest request) {
  const SequencePtr s = impl_->prepare(std::move(request));
  impl_->enqueue(std::span(&s, 1));
  return s->id;
}

bool Generator::cancel(RequestId id) { return impl_->cancel(id); }
void Generator::cancel_all() { impl_->cancel_all(); }
bool Generator::step() { return impl_->step(); }
bool Generator::idle() const { return impl_->idle(); }
void Generator::run(std::stop_token stop) { impl_->run(stop); }
std::optional<GenerationResult> Generator::take(RequestId id) { return impl_->take(id); }
GenerationResult Generator::wait(RequestId id) { return impl_->wait(id); }
GeneratorStats Generator::stats() const { return impl_->stats(); }
int Generator::max_context() const { return impl_->options_.max_context; }
const GeneratorOptions& Generator::options() const { return impl_->options_; }
const CausalLM& Generator::model() const { return impl_->model_; }
const Tokenizer* Generator::tokenizer() const { return impl_->tokenizer_ ? &*impl_->tokenizer_ : nullptr; }

}  // namespace ttt::inline v2

#include "ttt/runtime/generator.h"

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "runtime/generator_impl.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

using runtime::BlockManager;
using runtime::Clock;
using runtime::Sequence;
using runtime::SequencePtr;
using runtime::StopMatcher;

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

// --- Construction

namespace {

constexpr std::size_t default_kv_bytes = std::size_t{1} << 30;
constexpr std::int64_t unlimited_context = std::int64_t{1} << 20;  // of a model that names no limit

std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

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
          {.blocks = options_.kv_blocks, .block_size = options_.block_size, .slots = options_.max_batch})),
      seed_base_(random_seed()) {
  if (tokenizer) tokenizer_ = *tokenizer;
  if (!options_.eos_token_ids)
    options_.eos_token_ids = tokenizer ? tokenizer->end_ids() : std::vector<std::int32_t>{};
  if (tokenizer_)
    grammars_ = std::make_unique<runtime::JsonGrammars>(*tokenizer_, vocab_, *options_.eos_token_ids);
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
    if (params.json_schema)
      throw Error("a JSON schema needs a tokenizer", "json_schema", "give the generator a tokenizer");
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
                             std::to_string(options_.kv_bytes) + ") and the context (max_context, --context)"
                       : "shorten the prompt, or raise the context (max_context, --context)");
  }
  s->limit = std::min(static_cast<std::size_t>(params.max_new_tokens), context - s->prompt_size);
  s->end_ids = params.stop_token_ids;
  if (params.json_schema) s->json = grammars_->mask(*params.json_schema);
  if (!params.ignore_eos || params.json_schema)
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
bool Generator::follows_schemas() { return runtime::JsonGrammars::available(); }
int Generator::max_context() const { return impl_->options_.max_context; }
const GeneratorOptions& Generator::options() const { return impl_->options_; }
const CausalLM& Generator::model() const { return impl_->model_; }
const Tokenizer* Generator::tokenizer() const { return impl_->tokenizer_ ? &*impl_->tokenizer_ : nullptr; }

}  // namespace ttt::inline v2

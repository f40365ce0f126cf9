// Running a step, choosing tokens, ending requests.
#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "runtime/generator_impl.h"
#include "ttt/base/error.h"
#include "ttt/perf/counter.h"

namespace ttt::inline v2 {

using runtime::Clock;
using runtime::Part;
using runtime::seconds;
using runtime::Sequence;
using runtime::SequencePtr;

namespace {

// What an exception that is being handled says.
std::string current_message() {
  try {
    throw;
  } catch (const std::exception& e) { return e.what(); } catch (...) {
    return "an exception of unknown type";
  }
}

}  // namespace

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
                       s.request.logits_processor || s.json || s.penalties.active();
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
    if (s.json) s.json.apply(s.output(), logits);
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
  if (!perf::counting()) return;
  perf::count("requests running", static_cast<double>(stats_.running));
  perf::count("requests waiting", static_cast<double>(waiting_.size()));
  perf::count("KV blocks used", static_cast<double>(stats_.kv_blocks_used));
  perf::count("KV blocks cached", static_cast<double>(stats_.kv_blocks_cached));
  perf::count("prompt tokens from the cache", static_cast<double>(stats_.cached_tokens));
  perf::count("sequences in a step", static_cast<double>(stats_.last_step_sequences));
  perf::count("tokens in a step", static_cast<double>(stats_.last_step_tokens));
}

}  // namespace ttt::inline v2

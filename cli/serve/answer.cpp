#include "answer.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt_serve {

struct Answer::Event {
  std::size_t choice = 0;
  std::string text{};
  std::vector<ttt::PositionLogprobs> logprobs{};
  std::optional<ttt::FinishReason> finish{};
  std::optional<ttt::GenerationResult> result{};
};

// Between the generator's callbacks and the connection's thread; outlives the answer while requests end.
struct Answer::Channel {
  std::mutex mutex;
  std::condition_variable arrived;
  std::deque<Event> events;

  void push(Event event) {
    {
      const std::lock_guard lock(mutex);
      events.push_back(std::move(event));
    }
    arrived.notify_one();
  }
  std::deque<Event> take(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex);
    arrived.wait_for(lock, patience, [this] { return !events.empty(); });
    return std::exchange(events, {});
  }
};

Answer::Answer(const AnswerContext& context, const ApiRequest& request, AnswerHead head)
    : context_(context),
      head_(std::move(head)),
      stream_(request.stream),
      include_usage_(request.include_usage),
      echo_(request.echo),
      logprobs_(request.logprobs.has_value()),
      prompts_(request.chat ? std::vector<Prompt>{chat_prompt(request)} : request.prompts),
      channel_(std::make_shared<Channel>()) {
  try {
    submit(request);
  } catch (const ttt::Error& error) {
    cancel();
    if (error.where() != "json_schema") throw;
    throw ApiError(400, error.what(), "response_format", "invalid_schema");
  } catch (...) {
    cancel();
    throw;
  }
}

Answer::~Answer() { cancel(); }

void Answer::submit(const ApiRequest& request) {
  for (std::size_t p = 0; p < prompts_.size(); ++p) {
    for (int k = 0; k < request.n; ++k) {
      const std::size_t index = choices_.size();
      ttt::GenerationRequest one = generation(request, prompts_[p], k);
      if (stream_) {
        one.on_delta = [channel = channel_, index](const ttt::GenerationDelta& delta) {
          // The result says what went wrong.
          const bool failed = delta.finish_reason == ttt::FinishReason::error ||
                              delta.finish_reason == ttt::FinishReason::cancelled;
          if (failed || (delta.text.empty() && delta.logprobs.empty() && !delta.finish_reason)) return;
          channel->push({.choice = index,
                         .text = std::string(delta.text),
                         .logprobs = {delta.logprobs.begin(), delta.logprobs.end()},
                         .finish = delta.finish_reason,
                         .result = {}});
        };
      }
      one.on_finish = [channel = channel_, index,
                       &metrics = context_.metrics](ttt::GenerationResult&& result) {
        metrics.finished(result);
        channel->push(
            {.choice = index, .text = {}, .logprobs = {}, .finish = {}, .result = std::move(result)});
      };
      const ttt::RequestId id = context_.generator.submit(std::move(one));
      choices_.push_back({.id = id, .prompt = p});
      ++open_;
    }
  }
}

ttt::GenerationRequest Answer::generation(const ApiRequest& request, const Prompt& prompt, int index) const {
  ttt::GenerationRequest one;
  one.prompt = prompt.text;
  one.prompt_ids = prompt.ids;
  if (prompt.ids.empty() && prompt.text.empty()) throw ApiError(400, "the prompt is empty", "prompt");
  one.sampling = request.sampling;
  if (one.sampling.seed) *one.sampling.seed += static_cast<std::uint64_t>(index);
  // Without a wish a chat's answer may fill the context, which bounds it anyway.
  one.sampling.max_new_tokens = request.max_tokens.value_or(request.chat ? 1 << 24 : 16);
  one.sampling.logprobs = request.logprobs;
  if (request.echo) one.sampling.prompt_logprobs = request.logprobs;
  return one;
}

Prompt Answer::chat_prompt(const ApiRequest& request) const {
  if (context_.chat_template == nullptr)
    throw ApiError(400, "the model has no chat template, use /v1/completions", "messages");
  ttt::RenderOptions options;
  options.add_generation_prompt = request.add_generation_prompt;
  options.continue_final_message = request.continue_final_message;
  options.tools = request.tools;
  options.tool_arguments = ttt::ToolArguments::parsed;
  if (!request.template_variables.empty()) options.variables = request.template_variables.dump();
  const ttt::RenderedPrompt rendered = context_.chat_template->render_json(request.messages.dump(), options);
  return {.text = rendered.text,
          .ids = ttt::encode_prompt(context_.tokenizer, rendered, context_.control_ids)};
}

void Answer::cancel() {
  for (const Choice& choice : choices_) {
    if (!choice.result) context_.generator.cancel(choice.id);
  }
}

Answer::More Answer::next(std::string& text, std::chrono::milliseconds patience) {
  if (ended_) return More::done;
  if (!begun_) {
    begun_ = true;
    if (stream_ && head_.chat) {
      text = role_chunks();
      return More::text;
    }
  }
  for (Event& event : channel_->take(patience)) {
    if (!event.result) {
      text += chunk(event.choice, event);
      continue;
    }
    choices_[event.choice].result = std::move(event.result);
    --open_;
  }
  if (open_ == 0) return finish(text);
  return text.empty() ? More::later : More::text;
}

std::string Answer::role_chunks() const {
  std::string text;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    Json one = shell(i);
    one["delta"] = {{"role", "assistant"}, {"content", ""}};
    one["finish_reason"] = nullptr;
    text += sse(stream_chunk(head_, Json::array({one})));
  }
  return text;
}

Json Answer::shell(std::size_t choice) const { return {{"index", choice}}; }

Json Answer::piece(std::size_t choice, const std::string& text) const {
  Json one = shell(choice);
  if (head_.chat)
    one["delta"] = {{"content", text}};
  else
    one["text"] = text;
  one["logprobs"] = nullptr;
  one["finish_reason"] = nullptr;
  return one;
}

std::string Answer::chunk(std::size_t index, const Event& event) {
  Choice& choice = choices_[index];
  const std::string text = ttt::utf8::repair(event.text);
  if (!logprobs_ && !event.finish) return plain_chunk(choice, index, text);
  Json one = piece(index, text);
  if (head_.chat && text.empty()) one["delta"] = Json::object();
  if (logprobs_ && !event.logprobs.empty())
    one["logprobs"] = logprobs_json(head_.chat, context_.tokenizer, event.logprobs, choice.characters);
  for (const char c : text) choice.characters += (c & 0xC0) != 0x80 ? 1 : 0;
  if (event.finish) one["finish_reason"] = finish_name(*event.finish);
  return sse(stream_chunk(head_, Json::array({one})));
}

// Of a piece of text alone. These are written for every token of every sequence, so what is the same in all
// of them is made once.
std::string Answer::plain_chunk(Choice& choice, std::size_t index, const std::string& text) const {
  if (choice.before.empty()) {
    const std::string whole = sse(stream_chunk(head_, Json::array({piece(index, "")})));
    const std::size_t at = whole.rfind("\"\"");  // the text: nothing behind it is an empty string
    choice.before = whole.substr(0, at);
    choice.behind = whole.substr(at + 2);
  }
  return choice.before + Json(text).dump() + choice.behind;
}

Answer::More Answer::finish(std::string& text) {
  ended_ = true;
  for (const Choice& choice : choices_) {
    const ttt::GenerationResult& result = *choice.result;
    if (result.finish_reason == ttt::FinishReason::cancelled && result.error.empty()) return More::broken;
    const bool failed = result.finish_reason == ttt::FinishReason::error ||
                        result.finish_reason == ttt::FinishReason::cancelled;
    if (!failed) continue;
    if (!stream_) return More::broken;
    text += sse(error_body(ApiError(500, result.error)));
    return More::text;
  }
  if (stream_) {
    if (include_usage_) {
      Json last = stream_chunk(head_, Json::array());
      last["usage"] = usage().json();
      text += sse(last);
    }
    text += "data: [DONE]\n\n";
    return More::text;
  }
  Json choices = Json::array();
  for (std::size_t i = 0; i < choices_.size(); ++i) choices.push_back(choice_json(i));
  text =
      whole_answer(head_, std::move(choices), usage()).dump(-1, ' ', false, Json::error_handler_t::replace);
  return More::text;
}

Json Answer::choice_json(std::size_t choice) const {
  const ttt::GenerationResult& result = *choices_[choice].result;
  const Prompt& prompt = prompts_[choices_[choice].prompt];
  Json one = shell(choice);
  const std::string text = ttt::utf8::repair(result.text);
  if (head_.chat) {
    one["message"] = {{"role", "assistant"}, {"content", text}};
  } else if (echo_) {
    one["text"] =
        (prompt.ids.empty() ? ttt::utf8::repair(prompt.text) : context_.tokenizer.decode(prompt.ids)) + text;
  } else {
    one["text"] = text;
  }
  one["logprobs"] = nullptr;
  if (logprobs_ && echo_) {
    const std::vector<std::int32_t> ids =
        prompt.ids.empty() ? context_.tokenizer.encode(prompt.text) : prompt.ids;
    std::vector<ttt::PositionLogprobs> all = result.prompt_logprobs;
    all.insert(all.end(), result.logprobs.begin(), result.logprobs.end());
    one["logprobs"] = logprobs_json(false, context_.tokenizer, all, 0, ids.front());
  } else if (logprobs_) {
    one["logprobs"] = logprobs_json(head_.chat, context_.tokenizer, result.logprobs);
  }
  one["finish_reason"] = finish_name(result.finish_reason);
  if (result.stop_token)
    one["stop_reason"] = *result.stop_token;
  else if (!result.stop_string.empty())
    one["stop_reason"] = result.stop_string;
  return one;
}

Usage Answer::usage() const {
  Usage sum;
  std::size_t counted = prompts_.size();  // of prompts: each once, whatever n
  for (const Choice& choice : choices_) {
    const ttt::GenerationResult& result = *choice.result;
    if (choice.prompt != counted) {
      sum.prompt += result.prompt_tokens;
      sum.cached += result.cached_tokens;
      counted = choice.prompt;
    }
    sum.completion += result.ids.size();
  }
  return sum;
}

}  // namespace ttt_serve

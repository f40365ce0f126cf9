#include "ttt/runtime/chat.h"

#include <algorithm>
#include <utility>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

std::vector<std::int32_t> control_ids(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  // Every added token that the template spells is among the ids of its source.
  std::vector<std::int32_t> ids = tokenizer.encode(chat_template.source(), {.add_special_tokens = false});
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::erase_if(ids, [&](std::int32_t id) {
    const std::string_view token = tokenizer.id_to_token(id).value_or("");
    // Not a lone bracket or a newline, which some vocabularies add, too.
    const bool mark = token.size() > 2 && (token.front() == '<' || token.front() == '[');
    return !mark || tokenizer.is_special(id) || !chat_template.writes(token);
  });
  return ids;
}

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, const RenderedPrompt& prompt,
                                        std::vector<std::int32_t> control) {
  EncodeOptions options;
  options.add_special_tokens = false;
  options.no_special_ranges = prompt.untrusted;
  options.control_ids = std::move(control);
  return tokenizer.encode(prompt.text, options);
}

ChatSession::ChatSession(Generator& generator, ChatTemplate chat_template, ChatOptions options,
                         RenderOptions render)
    : generator_(&generator),
      template_(std::move(chat_template)),
      options_(std::move(options)),
      render_(std::move(render)) {
  if (!generator.tokenizer())
    throw Error("a conversation needs a tokenizer", "", "give the generator a tokenizer");
  control_ids_ = control_ids(*generator.tokenizer(), template_);
}

void ChatSession::set_system(std::string text) {
  const bool present = !messages_.empty() && messages_.front().role == "system";
  if (present) messages_.erase(messages_.begin());
  if (!text.empty()) messages_.insert(messages_.begin(), {.role = "system", .content = std::move(text)});
}

void ChatSession::add(ChatMessage message) { messages_.push_back(std::move(message)); }

RenderedPrompt ChatSession::prompt() const { return template_.render(messages_, render_); }

GenerationResult ChatSession::send(std::string text, const OnText& on_text) {
  const std::size_t before = messages_.size();
  messages_.push_back({.role = "user", .content = std::move(text)});
  try {
    GenerationResult result = answer(on_text);
    if (result.finish_reason == FinishReason::error) messages_.resize(before);
    return result;
  } catch (...) {
    messages_.resize(before);
    throw;
  }
}

GenerationResult ChatSession::answer(const OnText& on_text) {
  GenerationRequest request;
  request.prompt_ids = encode_prompt(*generator_->tokenizer(), prompt(), control_ids_);
  request.sampling = options_.sampling;
  std::vector<std::int32_t>& stops = request.sampling.stop_token_ids;
  stops.insert(stops.end(), options_.eos_token_ids.begin(), options_.eos_token_ids.end());
  if (on_text) {
    request.on_delta = [&on_text](const GenerationDelta& delta) {
      if (!delta.text.empty()) on_text(delta.text);
    };
  }
  const RequestId id = generator_->submit(std::move(request));
  active_ = id;
  GenerationResult result;
  try {
    result = generator_->wait(id);
  } catch (...) {
    active_ = 0;
    generator_->cancel(id);
    throw;
  }
  active_ = 0;
  if (result.finish_reason != FinishReason::error)
    messages_.push_back({.role = "assistant", .content = result.text});
  return result;
}

void ChatSession::cancel() {
  if (const RequestId id = active_) generator_->cancel(id);
}

void ChatSession::clear() {
  const bool system = !messages_.empty() && messages_.front().role == "system";
  messages_.resize(system ? 1 : 0);
}

}  // namespace ttt::inline v2

// A conversation over a Generator: keeps the messages, renders them by the checkpoint's template, streams the
// answer.
//
//   ChatSession chat(generator, chat_template, {.eos_token_ids = {2}, .sampling = {.temperature = 0.7f}});
//   chat.set_system("Answer briefly.");
//   chat.send("What is the capital of France?", [](std::string_view text) { std::cout << text << std::flush;
//   });
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/runtime/generator.h"
#include "ttt/text/chat_template.h"

namespace ttt::inline v2 {

// How answers are made. What the checkpoint recommends (convert/generation_defaults.h) is for the caller to
// fill in.
struct ChatOptions {
  std::vector<std::int32_t> eos_token_ids{};  // end an answer beside the generator's own
  SamplingParams sampling{};
};

// Tokens that the template writes as marks although the tokenizer calls them plain, as <tool_call> often is:
// added tokens in angle or square brackets. Users' text must not spell them either.
std::vector<std::int32_t> control_ids(const Tokenizer&, const ChatTemplate&);

// Ids of a rendered prompt: special tokens and `control` are recognised where the template wrote them, not
// where a user did.
std::vector<std::int32_t> encode_prompt(const Tokenizer&, const RenderedPrompt&,
                                        std::vector<std::int32_t> control = {});

// Not thread-safe but for cancel(). The prefix that an answer shares with the one before is reused by the
// generator.
class ChatSession {
 public:
  using OnText = std::function<void(std::string_view)>;

  // `generator` outlives the session. Error when it has no tokenizer.
  ChatSession(Generator& generator, ChatTemplate chat_template, ChatOptions = {}, RenderOptions = {});

  void set_system(std::string text);  // replaces the system message; "" removes it
  void add(ChatMessage message);      // e.g. examples, or what a tool answered

  // Adds the user's message and the model's answer. `on_text` gets the answer as it is written. An answer
  // that was cancelled stays as far as it came. Error: the template refuses, or the conversation leaves no
  // room in the context; the conversation is then what it was before. What goes wrong while generating is in
  // the result, and neither message is kept.
  GenerationResult send(std::string text, const OnText& on_text = {});
  // The model's answer to the messages as they are.
  GenerationResult answer(const OnText& on_text = {});

  // Ends the answer that is being written; from another thread or from on_text.
  void cancel();
  void clear();  // forgets all but the system message

  const std::vector<ChatMessage>& messages() const { return messages_; }
  SamplingParams& sampling() { return options_.sampling; }
  RenderOptions& render_options() { return render_; }
  // What the model would be given now.
  RenderedPrompt prompt() const;

 private:
  Generator* generator_;
  ChatTemplate template_;
  ChatOptions options_;
  RenderOptions render_;
  std::vector<std::int32_t> control_ids_;
  std::vector<ChatMessage> messages_;
  std::atomic<RequestId> active_{0};
};

}  // namespace ttt::inline v2

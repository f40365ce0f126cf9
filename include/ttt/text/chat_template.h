// Chat templates: Jinja as Hugging Face checkpoints carry it (tokenizer_config.json "chat_template",
// chat_template.jinja, GGUF "tokenizer.chat_template"), with transformers' settings: trim_blocks,
// lstrip_blocks, loop controls, the "generation" tag, its own tojson, raise_exception, strftime_now, in an
// immutable sandbox.
//
//   ChatTemplate chat(source, {.bos = "<s>", .eos = "</s>"});
//   RenderedPrompt prompt = chat.render(messages);
//   tokenizer.encode(prompt.text, {.add_special_tokens = false, .no_special_ranges = prompt.untrusted});
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ttt::inline v2 {

// What templates read as bos_token, eos_token, ... An unset one is undefined there, as in transformers.
struct SpecialTokens {
  std::optional<std::string> bos = {}, eos = {}, unk = {}, sep = {}, pad = {}, cls = {}, mask = {};
  std::map<std::string, std::string> others = {};  // by variable name, e.g. {"image_token", "<image>"}
};

struct ChatMessage {
  std::string role = {};               // "system", "user", "assistant", "tool", ...
  std::string content = {};            // UTF-8; invalid bytes become U+FFFD
  std::string reasoning_content = {};  // "" : the message has none
  std::string tool_calls = {};         // JSON array as OpenAI clients send it; "" : the message has none
  std::string tool_call_id = {};       // "" : the message has none
  std::string name = {};               // "" : the message has none
};

// How the "arguments" of a message's tool_calls reach the template. OpenAI clients send a JSON object inside
// a string; most templates expect the object.
enum class ToolArguments {
  as_given,  // as transformers does
  parsed,    // a string that holds a JSON object or array is replaced by it
};

// A template is code from the internet: what one render may cost. Passing a limit is an Error that names it.
struct RenderLimits {
  std::uint64_t steps = 50'000'000;     // evaluated nodes, loop iterations and items visited by filters
  std::size_t memory_bytes = 1U << 30;  // strings and containers made while rendering, all together
  std::size_t output_bytes = 1U << 26;
  int depth = 200;  // nested macro calls, and nesting of values
};

struct RenderOptions {
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // end inside the last message; needs add_generation_prompt = false
  std::string tools = {};               // JSON array of tool definitions; "" : None
  std::string documents = {};           // JSON array of {"title", "text"}; "" : None
  std::string variables = {};           // JSON object of further variables, e.g. {"enable_thinking": false}
  ToolArguments tool_arguments = ToolArguments::as_given;
  std::optional<std::tm> now = {};              // what strftime_now sees; unset: the local time
  std::vector<std::string> trusted_roles = {};  // whose messages may spell special tokens
  RenderLimits limits = {};
};

// Bytes [first, second) of a text; lists of them are sorted, disjoint and not adjacent.
using ByteRanges = std::vector<std::pair<std::size_t, std::size_t>>;

struct RenderedPrompt {
  std::string text;
  // Bytes that come from messages, tools, documents or variables, followed through every filter and
  // concatenation. A special token must not be recognised where it overlaps one of them: give them to
  // EncodeOptions::no_special_ranges. The name of a message's role is trusted when it is one of the usual
  // ones, so that "<|" ~ role ~ "|>" works.
  ByteRanges untrusted;
  ByteRanges generated;  // what {% generation %} blocks wrote: the assistant's tokens, for training masks
};

// Immutable after construction; copies share the parsed template; safe to use from several threads.
class ChatTemplate {
 public:
  // Parses. Throws Error with the line for a syntax error, an unsupported tag, or a filter or test that does
  // not exist (as in jinja2, one that stands under a condition is only an error when it is reached).
  explicit ChatTemplate(std::string source, SpecialTokens special_tokens = {});

  // Throws Error: with the template's own message where it calls raise_exception, with jinja2's or Python's
  // words and the line where the reference would fail too, and with the limit's name where a limit is passed.
  RenderedPrompt render(std::span<const ChatMessage> messages, const RenderOptions& options = {}) const;

  // `messages_json`: a JSON array as OpenAI clients send it, or an object with the fields "messages" and,
  // where present, "tools", "documents" and "chat_template_kwargs" (used where `options` leaves them empty).
  // Keys of a message whose value is null are dropped, "reasoning" and "reasoning_content" stand for each
  // other, both as in transformers.
  RenderedPrompt render_json(std::string_view messages_json, const RenderOptions& options = {}) const;

  // Whether `text` stands in the template's own text or in one of its string constants. An added token that
  // is not special but is written by the template (as <tool_call> often is) is a control token all the same.
  bool writes(std::string_view text) const;

  // Whether the template reads the variable, e.g. "tools", "documents", "enable_thinking".
  bool reads(std::string_view variable) const;

  const std::string& source() const;
  const SpecialTokens& special_tokens() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace ttt::inline v2

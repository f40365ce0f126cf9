#include "ttt/text/chat_template.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"
#include "text/jinja_unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2 {

using jinja::Dict;
using jinja::Heap;
using jinja::Kind;
using jinja::SequenceType;
using jinja::Value;

namespace {

constexpr int max_json_depth = 100;

// JSON text to values in document order, every string untrusted.
class JsonReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonReader(Heap& heap, bool untrusted) : heap_(heap), untrusted_(untrusted) {}

  bool null() override { return put({}); }
  bool boolean(bool b) override { return put(Value(b)); }
  bool number_integer(std::int64_t i) override { return put(Value(i)); }
  bool number_unsigned(std::uint64_t u) override {
    if (u <= static_cast<std::uint64_t>(INT64_MAX)) return put(Value(static_cast<std::int64_t>(u)));
    return put(big(std::to_string(u)));
  }
  bool number_float(double d, const std::string& digits) override {
    const bool whole = digits.find_first_of(".eE") == std::string::npos;
    return put(whole ? big(digits) : Value(d));
  }
  bool string(std::string& s) override { return put(heap_.string(s, untrusted_)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(heap_.dict()); }
  bool key(std::string& name) override {
    keys_.back() = heap_.string(name, untrusted_);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(heap_.list({})); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    if (error.empty()) error = "not valid JSON at byte " + std::to_string(position);
    return false;
  }

  Value result;
  std::string error;

 private:
  Value big(const std::string& digits) {
    const Value text = heap_.string(digits);
    return {Kind::big_integer, text.object()};
  }
  bool open(const Value& container) {
    if (stack_.size() >= max_json_depth) {
      error = "JSON nested deeper than " + std::to_string(max_json_depth);
      return false;
    }
    put(container);
    stack_.push_back(container);
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }
  bool put(const Value& value) {
    if (stack_.empty()) {
      result = value;
    } else if (stack_.back().is(Kind::dict)) {
      jinja::store(heap_, jinja::as_dict(stack_.back()), keys_.back(), value);
    } else {
      heap_.budget().memory(sizeof(Value));
      jinja::as_sequence(stack_.back()).items.push_back(value);
    }
    return true;
  }

  Heap& heap_;
  bool untrusted_;
  std::vector<Value> stack_, keys_;
};

Value read_json(Heap& heap, std::string_view text, const std::string& where, bool untrusted = true) {
  JsonReader reader(heap, untrusted);
  if (!nlohmann::json::sax_parse(text, &reader) || !reader.error.empty()) {
    throw Error(reader.error.empty() ? "not valid JSON" : reader.error, where);
  }
  return reader.result;
}

bool is_list(const Value& v) { return jinja::is_sequence(v, SequenceType::list); }

// Roles that templates put between the parts of a special token ("<|" ~ role ~ "|>").
bool is_usual_role(std::string_view role) {
  constexpr std::array<std::string_view, 12> usual = {
      "system",  "user",  "assistant",   "tool",          "developer",   "function",
      "ipython", "model", "observation", "tool_response", "environment", "documents"};
  return std::find(usual.begin(), usual.end(), role) != usual.end();
}

const Value* item(const Value& dict, std::string_view key) { return jinja::find(jinja::as_dict(dict), key); }

// The same value with every string trusted.
Value trusted(Heap& heap, const Value& v) {
  if (v.is_string()) return heap.string(v.text().bytes);
  if (is_list(v)) {
    std::vector<Value> items;
    for (const Value& x : jinja::as_sequence(v).items) items.push_back(trusted(heap, x));
    return heap.list(std::move(items));
  }
  if (!v.is(Kind::dict)) return v;
  const Value out = heap.dict();
  for (const auto& [key, value] : jinja::as_dict(v).entries) {
    jinja::store(heap, jinja::as_dict(out), trusted(heap, key), trusted(heap, value));
  }
  return out;
}

void parse_arguments_in(Heap& heap, const Value& message) {
  const Value* calls = item(message, "tool_calls");
  if (calls == nullptr || !is_list(*calls)) return;
  for (const Value& call : jinja::as_sequence(*calls).items) {
    if (!call.is(Kind::dict)) continue;
    const Value* function = item(call, "function");
    const Value& owner = function != nullptr && function->is(Kind::dict) ? *function : call;
    const Value* arguments = item(owner, "arguments");
    if (arguments == nullptr || !arguments->is_string()) continue;
    JsonReader reader(heap, true);
    if (!nlohmann::json::sax_parse(arguments->text().bytes, &reader))
      continue;  // the model's own broken JSON: as given
    if (!reader.result.is(Kind::dict) && !is_list(reader.result)) continue;
    jinja::store(heap, jinja::as_dict(owner), heap.string("arguments", true), reader.result);
  }
}

}  // namespace

struct ChatTemplate::Impl {
  std::string source;
  SpecialTokens tokens;
  jinja::Template parsed;

  RenderedPrompt render(const RenderOptions& options, std::string_view messages_json,
                        std::span<const ChatMessage> messages, bool from_json) const;
};

namespace {

// One message as transformers hands it to a template: without keys that are null, with reasoning under all
// its names.
Value prepare(Heap& heap, const Value& message, const RenderOptions& options, std::size_t index) {
  if (!message.is(Kind::dict)) {
    throw Error("a message is not an object", "messages[" + std::to_string(index) + "]");
  }
  const Value* role = item(message, "role");
  Value reasoning;
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const Value* value = item(message, name);
    if (value == nullptr || value->is(Kind::none)) continue;
    reasoning = *value;
    break;
  }
  Value out = heap.dict();
  Dict& dict = jinja::as_dict(out);
  if (!reasoning.is(Kind::none)) jinja::store(heap, dict, heap.string("thinking"), reasoning);
  for (const auto& [key, value] : jinja::as_dict(message).entries) {
    if (value.is(Kind::none)) continue;
    const bool usual_role =
        key.text().bytes == "role" && value.is_string() && is_usual_role(value.text().bytes);
    jinja::store(heap, dict, key, usual_role ? heap.string(value.text().bytes) : value);
  }
  if (!reasoning.is(Kind::none)) jinja::store(heap, dict, heap.string("reasoning_content"), reasoning);
  if (role != nullptr && role->is_string()) {
    const auto& roles = options.trusted_roles;
    if (std::find(roles.begin(), roles.end(), role->text().bytes) != roles.end()) out = trusted(heap, out);
  }
  if (options.tool_arguments == ToolArguments::parsed) parse_arguments_in(heap, out);
  return out;
}

Value message_value(Heap& heap, const ChatMessage& message, std::size_t index) {
  const Value out = heap.dict();
  Dict& dict = jinja::as_dict(out);
  const auto put = [&](std::string_view key, const std::string& text) {
    jinja::store(heap, dict, heap.string(key), heap.string(utf8::repair(text), true));
  };
  put("role", message.role);
  put("content", message.content);
  if (!message.reasoning_content.empty()) put("reasoning_content", message.reasoning_content);
  if (!message.tool_call_id.empty()) put("tool_call_id", message.tool_call_id);
  if (!message.name.empty()) put("name", message.name);
  if (!message.tool_calls.empty()) {
    jinja::store(heap, dict, heap.string("tool_calls"),
                 read_json(heap, message.tool_calls, "messages[" + std::to_string(index) + "].tool_calls"));
  }
  return out;
}

// What marks the end of the final message; as transformers spells it, so that templates treat both alike.
constexpr std::string_view continue_tag = "CONTINUE_FINAL_MESSAGE_TAG ";

// Appends the mark to the text that is to be continued and returns that text.
Value mark_continuation(Heap& heap, const Value& messages, const std::string& source) {
  const std::string where = "continue_final_message";
  if (jinja::as_sequence(messages).items.empty()) throw Error("the conversation is empty", where);
  Dict& last = jinja::as_dict(jinja::as_sequence(messages).items.back());
  const Value* content = jinja::find(last, "content");
  if (content == nullptr) throw Error("the final message has no content to continue", where);
  if (source.find("content") == std::string::npos)
    throw Error("the template does not read a message's content", where);
  const Value tag = heap.string(continue_tag);
  if (content->is_string()) {
    const Value text = *content;
    jinja::store(heap, last, heap.string("content"), jinja::add(heap, text, tag));
    return text;
  }
  if (is_list(*content)) {
    std::vector<Value> parts = jinja::as_sequence(*content).items;
    for (std::size_t i = parts.size(); i-- > 0;) {
      if (!parts[i].is(Kind::dict)) continue;
      const Value* text = item(parts[i], "text");
      if (text == nullptr || !text->is_string()) continue;
      const Value original = *text;
      jinja::store(heap, jinja::as_dict(parts[i]), heap.string("text"), jinja::add(heap, original, tag));
      return original;
    }
  }
  throw Error("the final message has no text to continue", where);
}

void cut(ByteRanges& ranges, std::size_t size) {
  while (!ranges.empty() && ranges.back().first >= size) ranges.pop_back();
  if (!ranges.empty()) ranges.back().second = std::min(ranges.back().second, size);
}

std::string_view stripped(std::string_view text) {
  text.remove_prefix(jinja::leading_space(text));
  text.remove_suffix(jinja::trailing_space(text));
  return text;
}

void cut_continuation(RenderedPrompt& prompt, const std::string& final_text) {
  const std::size_t at = prompt.text.rfind(stripped(continue_tag));
  if (at == std::string::npos || prompt.text.find(stripped(final_text)) == std::string::npos) {
    throw Error("the final message does not appear in the rendered chat", "continue_final_message",
                "the template drops or changes it, so that it cannot be continued");
  }
  std::size_t end = at;
  if (prompt.text.compare(at, continue_tag.size(), continue_tag) != 0) {  // the template trims its messages
    end -= jinja::trailing_space(std::string_view(prompt.text).substr(0, at));
  }
  prompt.text.resize(end);
  cut(prompt.untrusted, end);
  cut(prompt.generated, end);
}

}  // namespace

RenderedPrompt ChatTemplate::Impl::render(const RenderOptions& options, std::string_view messages_json,
                                          std::span<const ChatMessage> chat, bool from_json) const {
  if (options.continue_final_message && options.add_generation_prompt) {
    throw Error("continue_final_message and add_generation_prompt exclude each other", "RenderOptions");
  }
  jinja::Budget budget;
  budget.limits = options.limits;
  budget.steps_left = options.limits.steps;
  budget.memory_left = options.limits.memory_bytes;
  budget.depth_limit = options.limits.depth;
  Heap heap(&budget);
  RenderedPrompt prompt;
  try {
    Value given;  // the array of messages
    Value tools, documents, variables;
    if (from_json) {
      given = read_json(heap, messages_json, "messages");
      if (given.is(Kind::dict)) {
        const Value request = given;
        const auto field = [&](const char* name) {
          const Value* value = item(request, name);
          return value != nullptr ? *value : Value();
        };
        given = field("messages");
        tools = field("tools");
        documents = field("documents");
        variables = field("chat_template_kwargs");
      }
      if (!is_list(given)) throw Error("not an array of messages", "messages");
    } else {
      std::vector<Value> items;
      for (std::size_t i = 0; i < chat.size(); ++i) items.push_back(message_value(heap, chat[i], i));
      given = heap.list(std::move(items));
    }
    std::vector<Value> prepared;
    for (const Value& message : jinja::as_sequence(given).items) {
      prepared.push_back(prepare(heap, message, options, prepared.size()));
    }
    const Value messages = heap.list(std::move(prepared));
    if (!options.tools.empty()) tools = read_json(heap, options.tools, "RenderOptions::tools");
    if (!options.documents.empty())
      documents = read_json(heap, options.documents, "RenderOptions::documents");
    if (!options.variables.empty())
      variables = read_json(heap, options.variables, "RenderOptions::variables");
    if (!tools.is(Kind::none) && !is_list(tools)) throw Error("not an array of tools", "tools");
    if (!documents.is(Kind::none) && !is_list(documents))
      throw Error("not an array of documents", "documents");
    if (!variables.is(Kind::none) && !variables.is(Kind::dict)) throw Error("not an object", "variables");
    std::string final_text;
    if (options.continue_final_message) final_text = mark_continuation(heap, messages, source).text().bytes;

    jinja::Interpreter interpreter(parsed, heap, options.now);
    const auto token = [&](const char* name, const std::optional<std::string>& text) {
      if (text.has_value()) interpreter.define(name, heap.string(*text));
    };
    token("bos_token", tokens.bos);
    token("eos_token", tokens.eos);
    token("unk_token", tokens.unk);
    token("sep_token", tokens.sep);
    token("pad_token", tokens.pad);
    token("cls_token", tokens.cls);
    token("mask_token", tokens.mask);
    for (const auto& [name, text] : tokens.others) token(name.c_str(), text);
    if (variables.is(Kind::dict)) {
      for (const auto& [name, value] : jinja::as_dict(variables).entries)
        interpreter.define(name.text().bytes, value);
    }
    interpreter.define("messages", messages);
    interpreter.define("tools", tools);
    interpreter.define("documents", documents);
    interpreter.define("add_generation_prompt", Value(options.add_generation_prompt));

    jinja::TextBuilder out(&budget);
    out.limit_output(options.limits.output_bytes);
    interpreter.run(out, &prompt.generated);
    prompt.text = std::move(out.bytes_);
    prompt.untrusted = std::move(out.untrusted_);
    if (options.continue_final_message) cut_continuation(prompt, final_text);
  } catch (const jinja::Failure& failure) {  // while the inputs were read
    throw Error(printable(failure.message, 4000), "chat template inputs");
  }
  return prompt;
}

ChatTemplate::ChatTemplate(std::string source, SpecialTokens special_tokens) {
  auto impl = std::make_shared<Impl>();
  impl->parsed = jinja::parse(source);
  impl->source = std::move(source);
  impl->tokens = std::move(special_tokens);
  impl_ = std::move(impl);
}

RenderedPrompt ChatTemplate::render(std::span<const ChatMessage> messages,
                                    const RenderOptions& options) const {
  return impl_->render(options, {}, messages, false);
}

RenderedPrompt ChatTemplate::render_json(std::string_view messages_json, const RenderOptions& options) const {
  return impl_->render(options, messages_json, {}, true);
}

bool ChatTemplate::writes(std::string_view text) const {
  return std::any_of(
      impl_->parsed.literals.begin(), impl_->parsed.literals.end(),
      [&](const jinja::Text* literal) { return literal->bytes.find(text) != std::string::npos; });
}

bool ChatTemplate::reads(std::string_view variable) const {
  return impl_->parsed.loaded.count(std::string(variable)) > 0;
}

const std::string& ChatTemplate::source() const { return impl_->source; }
const SpecialTokens& ChatTemplate::special_tokens() const { return impl_->tokens; }

}  // namespace ttt::inline v2

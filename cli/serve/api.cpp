#include "api.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt_serve {

namespace {

constexpr int max_depth = 64;

[[noreturn]] void refuse(const std::string& field, const std::string& message) {
  throw ApiError(400, message, field, "invalid_value");
}

// Reads the fields of one request; at the end, what nobody read is refused.
class Fields {
 public:
  explicit Fields(const Json& body) : body_(body) {
    if (!body.is_object()) throw ApiError(400, "the body is not a JSON object");
  }

  // The value, or null when it is absent or null.
  const Json* find(const std::string& name) {
    read_.insert(name);
    const auto found = body_.find(name);
    return found == body_.end() || found->is_null() ? nullptr : &*found;
  }
  void ignore(std::initializer_list<const char*> names) { read_.insert(names.begin(), names.end()); }

  bool boolean(const std::string& name, bool otherwise) {
    const Json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) refuse(name, name + " must be true or false");
    return value->get<bool>();
  }
  std::optional<std::int64_t> integer(const std::string& name, std::int64_t least, std::int64_t most) {
    const Json* value = find(name);
    if (value == nullptr) return {};
    const std::string range =
        name + " must be an integer from " + std::to_string(least) + " to " + std::to_string(most);
    if (!value->is_number_integer()) refuse(name, range);
    if (value->is_number_unsigned() &&
        value->get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
      refuse(name, range);
    const auto number = value->get<std::int64_t>();
    if (number < least || number > most) refuse(name, range);
    return number;
  }
  std::optional<int> small(const std::string& name, int least, int most) {
    const auto value = integer(name, least, most);
    return value ? std::optional<int>(static_cast<int>(*value)) : std::nullopt;
  }
  std::optional<float> number(const std::string& name) {
    const Json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_number() || !std::isfinite(value->get<double>()) || std::abs(value->get<double>()) > 1e6)
      refuse(name, name + " must be a number");
    return value->get<float>();
  }
  std::string string(const std::string& name, const std::string& otherwise = "") {
    const Json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) refuse(name, name + " must be a string");
    return value->get<std::string>();
  }

  void finish() const {
    for (const auto& [name, value] : body_.items()) {
      if (read_.contains(name)) continue;
      const std::string near = ttt::nearest(name, read_);
      throw ApiError(400,
                     "unknown field '" + ttt::printable(name) + "'" +
                         (near.empty() ? "" : ", did you mean '" + near + "'?"),
                     ttt::printable(name), "unknown_field");
    }
  }

 private:
  const Json& body_;
  std::set<std::string> read_;
};

std::vector<std::int32_t> parse_ids(const Json& list, const std::string& field) {
  std::vector<std::int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<double>() < 0 ||
        id.get<double>() > std::numeric_limits<std::int32_t>::max())
      refuse(field, field + " must hold token ids");
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

// A string, strings, ids, or lists of ids.
std::vector<Prompt> parse_prompts(const Json* value, int most) {
  if (value == nullptr) refuse("prompt", "prompt is missing");
  if (value->is_string()) return {{.text = value->get<std::string>()}};
  if (!value->is_array() || value->empty())
    refuse("prompt", "prompt must be a string, an array of strings, or token ids");
  if (value->front().is_number()) return {{.ids = parse_ids(*value, "prompt")}};
  if (value->size() > static_cast<std::size_t>(most))
    refuse("prompt", "at most " + std::to_string(most) + " prompts per request");
  std::vector<Prompt> prompts;
  for (const Json& one : *value) {
    if (one.is_string())
      prompts.push_back({.text = one.get<std::string>()});
    else if (one.is_array())
      prompts.push_back({.ids = parse_ids(one, "prompt")});
    else
      refuse("prompt", "prompt must be a string, an array of strings, or token ids");
  }
  return prompts;
}

void parse_sampling(Fields& fields, const ttt::GenerationDefaults& defaults, ttt::SamplingParams& p) {
  p.temperature = fields.number("temperature").value_or(defaults.temperature.value_or(1));
  p.top_p = fields.number("top_p").value_or(defaults.top_p.value_or(1));
  p.min_p = fields.number("min_p").value_or(defaults.min_p.value_or(0));
  // vLLM spells "all" as -1 too.
  p.top_k = std::max(
      0, fields.small("top_k", -1, std::numeric_limits<int>::max()).value_or(defaults.top_k.value_or(0)));
  p.repetition_penalty =
      fields.number("repetition_penalty").value_or(defaults.repetition_penalty.value_or(1));
  p.presence_penalty = fields.number("presence_penalty").value_or(0);
  p.frequency_penalty = fields.number("frequency_penalty").value_or(0);
  if (const auto seed = fields.integer("seed", std::numeric_limits<std::int64_t>::min(),
                                       std::numeric_limits<std::int64_t>::max()))
    p.seed = static_cast<std::uint64_t>(*seed);
  p.min_new_tokens = fields.small("min_tokens", 0, 1 << 24).value_or(0);
  p.ignore_eos = fields.boolean("ignore_eos", false);
  p.include_stop_string = fields.boolean("include_stop_str_in_output", false);
  if (const Json* stop = fields.find("stop")) {
    const Json list = stop->is_array() ? *stop : Json::array({*stop});
    if (list.size() > 16) refuse("stop", "at most 16 stop strings");
    for (const Json& one : list) {
      if (!one.is_string() || one.get_ref<const std::string&>().size() > 1024)
        refuse("stop", "stop must be a string or an array of strings of at most 1024 bytes");
      if (!one.get_ref<const std::string&>().empty()) p.stop.push_back(one.get<std::string>());
    }
  }
  if (const Json* ids = fields.find("stop_token_ids")) {
    if (!ids->is_array()) refuse("stop_token_ids", "stop_token_ids must be an array of token ids");
    p.stop_token_ids = parse_ids(*ids, "stop_token_ids");
  }
  if (const Json* ids = fields.find("allowed_token_ids")) {
    if (!ids->is_array()) refuse("allowed_token_ids", "allowed_token_ids must be an array of token ids");
    p.allowed_token_ids = parse_ids(*ids, "allowed_token_ids");
  }
  if (const Json* bias = fields.find("logit_bias")) {
    if (!bias->is_object()) refuse("logit_bias", "logit_bias must be an object of token ids and numbers");
    for (const auto& [key, value] : bias->items()) {
      const bool digits = !key.empty() && key.size() < 10 &&
                          std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
      if (!digits || !value.is_number() || !(std::abs(value.get<double>()) <= 100))
        refuse("logit_bias", "logit_bias must map token ids to numbers from -100 to 100");
      p.logit_bias.emplace_back(std::stoi(key), value.get<float>());
    }
  }
}

void parse_format(Fields& fields, ApiRequest& request) {
  const Json* format = fields.find("response_format");
  if (format == nullptr) return;
  const auto type = format->is_object() ? format->find("type") : format->end();
  if (!format->is_object() || type == format->end() || !type->is_string())
    refuse("response_format", "response_format must be an object with a type");
  if (*type == "json_object") {
    request.sampling.json_schema = R"({"type": "object"})";
  } else if (*type == "json_schema") {
    const auto outer = format->find("json_schema");
    const bool nested = outer != format->end() && outer->is_object() && outer->contains("schema");
    if (!nested || !outer->at("schema").is_object())
      refuse("response_format", "response_format.json_schema.schema must be an object");
    request.sampling.json_schema = outer->at("schema").dump();
  } else if (*type != "text") {
    refuse("response_format", "response_format.type must be text, json_object or json_schema");
  }
}

void parse_common(Fields& fields, const ttt::GenerationDefaults& defaults, const ApiLimits& limits,
                  ApiRequest& request) {
  request.model = fields.string("model");
  request.n = fields.small("n", 1, limits.max_choices).value_or(1);
  request.stream = fields.boolean("stream", false);
  if (const Json* options = fields.find("stream_options")) {
    if (!request.stream) refuse("stream_options", "stream_options needs stream");
    Fields inner(*options);
    request.include_usage = inner.boolean("include_usage", false);
    inner.ignore({"include_obfuscation", "continuous_usage_stats"});
    inner.finish();
  }
  request.max_tokens = fields.small("max_tokens", 0, 1 << 24);
  parse_sampling(fields, defaults, request.sampling);
  parse_format(fields, request);
  // Of the platform, not of the model.
  fields.ignore({"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"});
}

// A message's content as text: parts are joined, other kinds are refused.
Json flatten_content(Json message, std::size_t index) {
  const std::string where = "messages[" + std::to_string(index) + "]";
  if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
    refuse("messages", where + " must be an object with a role");
  const auto content = message.find("content");
  if (content == message.end() || content->is_null() || content->is_string()) return message;
  if (!content->is_array()) refuse("messages", where + ".content must be a string or an array of parts");
  std::string text;
  for (const Json& part : *content) {
    const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string() &&
                         (!part.contains("type") || part["type"] == "text");
    if (!is_text)
      refuse("messages", where + ".content has a part that is no text; the model reads text only");
    text += part["text"].get_ref<const std::string&>();
  }
  message["content"] = text;
  return message;
}

}  // namespace

Json error_body(const ApiError& error) {
  const char* type = error.status == 401                          ? "authentication_error"
                     : error.status == 404                        ? "not_found_error"
                     : error.status >= 500 || error.status == 429 ? "server_error"
                                                                  : "invalid_request_error";
  Json inner{{"message", ttt::utf8::repair(error.what())}, {"type", type}};
  inner["param"] = error.param.empty() ? Json() : Json(error.param);
  inner["code"] = error.code.empty() ? Json() : Json(error.code);
  return {{"error", inner}};
}

Json parse_body(std::string_view text) {
  bool deep = false;
  const auto watch = [&deep](int depth, Json::parse_event_t, Json&) {
    deep = deep || depth > max_depth;
    return !deep;
  };
  Json body = Json::parse(text, watch, false);
  if (deep) throw ApiError(400, "the body is nested too deeply");
  if (body.is_discarded()) throw ApiError(400, "the body is not valid JSON");
  return body;
}

ApiRequest parse_completion(const Json& body, const ttt::GenerationDefaults& defaults,
                            const ApiLimits& limits) {
  Fields fields(body);
  ApiRequest request;
  parse_common(fields, defaults, limits, request);
  request.prompts = parse_prompts(fields.find("prompt"), limits.max_prompts);
  request.logprobs = fields.small("logprobs", 0, limits.max_logprobs);
  request.echo = fields.boolean("echo", false);
  if (request.echo && request.stream) refuse("echo", "echo can not be streamed");
  if (const auto best = fields.small("best_of", 1, limits.max_choices); best && *best != request.n)
    refuse("best_of", "best_of is not supported, use n");
  if (!fields.string("suffix").empty()) refuse("suffix", "suffix is not supported");
  fields.finish();
  return request;
}

ApiRequest parse_chat(const Json& body, const ttt::GenerationDefaults& defaults, const ApiLimits& limits) {
  Fields fields(body);
  ApiRequest request;
  request.chat = true;
  parse_common(fields, defaults, limits, request);
  if (const auto most = fields.small("max_completion_tokens", 0, 1 << 24)) request.max_tokens = most;
  const bool logprobs = fields.boolean("logprobs", false);
  const auto top = fields.small("top_logprobs", 0, limits.max_logprobs);
  if (top && !logprobs) refuse("top_logprobs", "top_logprobs needs logprobs");
  if (logprobs) request.logprobs = top.value_or(0);

  const Json* messages = fields.find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty())
    refuse("messages", "messages must be an array that is not empty");
  request.messages = Json::array();
  for (std::size_t i = 0; i < messages->size(); ++i)
    request.messages.push_back(flatten_content((*messages)[i], i));

  const Json* choice = fields.find("tool_choice");
  if (choice != nullptr && *choice != "auto" && *choice != "none")
    refuse("tool_choice", "tool_choice must be auto or none: a call can not be forced");
  if (const Json* tools = fields.find("tools")) {
    if (!tools->is_array()) refuse("tools", "tools must be an array");
    if (!tools->empty() && (choice == nullptr || *choice != "none")) request.tools = tools->dump();
  }
  fields.ignore({"parallel_tool_calls"});
  if (const Json* variables = fields.find("chat_template_kwargs")) {
    if (!variables->is_object()) refuse("chat_template_kwargs", "chat_template_kwargs must be an object");
    request.template_variables = *variables;
  }
  if (const std::string effort = fields.string("reasoning_effort"); !effort.empty())
    request.template_variables["reasoning_effort"] = effort;
  request.add_generation_prompt = fields.boolean("add_generation_prompt", true);
  request.continue_final_message = fields.boolean("continue_final_message", false);
  if (request.continue_final_message && request.add_generation_prompt)
    refuse("continue_final_message", "continue_final_message needs add_generation_prompt false");
  fields.finish();
  return request;
}

Json Usage::json() const {
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

std::string finish_name(ttt::FinishReason reason) {
  return reason == ttt::FinishReason::length ? "length" : "stop";
}

Json logprobs_json(bool chat, const ttt::Tokenizer& tokenizer,
                   const std::vector<ttt::PositionLogprobs>& positions, std::size_t offset,
                   std::optional<std::int32_t> first_unknown) {
  const auto spelling = [&](std::int32_t id) { return ttt::utf8::repair(tokenizer.token_bytes(id)); };
  const auto finite = [](float value) {
    return std::isfinite(value) ? value : -9999.f;
  };  // as vLLM spells impossible
  if (chat) {
    const auto entry = [&](const ttt::TokenLogprob& one) {
      const std::string_view bytes = tokenizer.token_bytes(one.id);
      return Json{
          {"token", spelling(one.id)},
          {"logprob", finite(one.logprob)},
          {"bytes", std::vector<int>(reinterpret_cast<const unsigned char*>(bytes.data()),
                                     reinterpret_cast<const unsigned char*>(bytes.data()) + bytes.size())}};
    };
    Json content = Json::array();
    for (const ttt::PositionLogprobs& position : positions) {
      Json one = entry(position.token);
      one["top_logprobs"] = Json::array();
      for (const ttt::TokenLogprob& top : position.top) one["top_logprobs"].push_back(entry(top));
      content.push_back(std::move(one));
    }
    return {{"content", content}, {"refusal", nullptr}};
  }
  Json tokens = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  const auto add = [&](std::int32_t id, Json value, Json top) {
    tokens.push_back(spelling(id));
    values.push_back(std::move(value));
    tops.push_back(std::move(top));
    offsets.push_back(offset);
    const std::string text = spelling(id);
    offset +=
        static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
  };
  if (first_unknown) add(*first_unknown, nullptr, nullptr);
  for (const ttt::PositionLogprobs& position : positions) {
    Json top = Json::object();
    for (const ttt::TokenLogprob& one : position.top) {
      const std::string key = spelling(one.id);
      if (!top.contains(key)) top[key] = finite(one.logprob);
    }
    top[spelling(position.token.id)] = finite(position.token.logprob);
    add(position.token.id, finite(position.token.logprob), std::move(top));
  }
  return {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", tops}, {"text_offset", offsets}};
}

namespace {

Json head_json(const AnswerHead& head, const char* object) {
  return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

}  // namespace

Json whole_answer(const AnswerHead& head, Json choices, const Usage& usage) {
  Json answer = head_json(head, head.chat ? "chat.completion" : "text_completion");
  answer["choices"] = std::move(choices);
  answer["usage"] = usage.json();
  return answer;
}

Json stream_chunk(const AnswerHead& head, Json choices) {
  Json chunk = head_json(head, head.chat ? "chat.completion.chunk" : "text_completion");
  chunk["choices"] = std::move(choices);
  return chunk;
}

std::string sse(const Json& json) {
  return "data: " + json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n\n";
}

}  // namespace ttt_serve

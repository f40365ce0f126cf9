// The OpenAI API as data: requests from JSON, answers to JSON. Knows neither sockets nor threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/generation_defaults.h"
#include "ttt/runtime/generator.h"

namespace ttt_serve {

using Json = nlohmann::ordered_json;

// What a client is told: an HTTP status and OpenAI's error object.
class ApiError : public std::runtime_error {
 public:
  ApiError(int http_status, const std::string& message, std::string field = "", std::string error_code = "")
      : std::runtime_error(message),
        status(http_status),
        param(std::move(field)),
        code(std::move(error_code)) {}
  int status;
  std::string param, code;
};
Json error_body(const ApiError&);

// Text from the network as JSON: bounded depth, valid UTF-8. ApiError 400.
Json parse_body(std::string_view text);

// A prompt as the client sent it: text, or ids.
struct Prompt {
  std::string text{};
  std::vector<std::int32_t> ids{};
};

struct ApiRequest {
  bool chat = false, stream = false, include_usage = false, echo = false;
  std::string model{};
  int n = 1;
  std::vector<Prompt> prompts{};  // completions
  Json messages{};                // chat
  std::string tools{};            // JSON array, "": none
  Json template_variables = Json::object();
  bool add_generation_prompt = true, continue_final_message = false;
  std::optional<int> max_tokens{};  // unset: as much as the context holds (chat), 16 (completions)
  std::optional<int> logprobs{};    // likeliest tokens beside the chosen one
  ttt::SamplingParams sampling{};
};

struct ApiLimits {
  int max_choices = 16;   // n
  int max_prompts = 256;  // of one completions request
  int max_logprobs = 20;
};

// Values that the request leaves open are the checkpoint's own, else OpenAI's. ApiError 400 names the field.
ApiRequest parse_completion(const Json& body, const ttt::GenerationDefaults&, const ApiLimits&);
ApiRequest parse_chat(const Json& body, const ttt::GenerationDefaults&, const ApiLimits&);

// What is the same in all parts of an answer.
struct AnswerHead {
  std::string id, model;
  std::int64_t created = 0;
  bool chat = false;
};

struct Usage {
  std::size_t prompt = 0, completion = 0, cached = 0;
  Json json() const;
};

std::string finish_name(ttt::FinishReason);  // "stop", "length"

// Log-probabilities in the endpoint's form. `offset`: characters of the text before the first of them
// (completions). `first_unknown`: the first token has none (the first of an echoed prompt).
Json logprobs_json(bool chat, const ttt::Tokenizer&, const std::vector<ttt::PositionLogprobs>&,
                   std::size_t offset = 0, std::optional<std::int32_t> first_unknown = {});

Json whole_answer(const AnswerHead&, Json choices, const Usage&);
Json stream_chunk(const AnswerHead&, Json choices);  // without choices: the last one, for the usage
std::string sse(const Json&);                        // "data: ...\n\n"

}  // namespace ttt_serve

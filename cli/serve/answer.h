// One HTTP answer under way: the sequences that it asked of the generator, and their text as the client gets
// it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#include "metrics.h"
#include "ttt/runtime/chat.h"

namespace ttt_serve {

// What all answers of a server share.
struct AnswerContext {
  ttt::Generator& generator;
  const ttt::Tokenizer& tokenizer;
  const ttt::ChatTemplate* chat_template = nullptr;
  std::vector<std::int32_t> control_ids{};
  Metrics& metrics;
};

// Used by one thread, but for what the generator's thread brings.
class Answer {
 public:
  // Submits. ApiError or ttt::Error: the request can not be served; nothing is left running then.
  Answer(const AnswerContext&, const ApiRequest&, AnswerHead);
  ~Answer();
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  enum class More : std::uint8_t {
    text,    // there is some
    later,   // nothing within the patience
    broken,  // a sequence was cut off; the client must see that
    done,    // nothing follows
  };
  // The next piece of the body.
  More next(std::string& text, std::chrono::milliseconds patience);
  // Ends what still runs.
  void cancel();

 private:
  struct Event;
  struct Channel;
  struct Choice {
    ttt::RequestId id = 0;
    std::size_t prompt = 0;          // of the request's prompts
    std::size_t characters = 0;      // streamed so far
    std::string before{}, behind{};  // of the text in a streamed piece
    std::optional<ttt::GenerationResult> result{};
  };

  void submit(const ApiRequest&);
  ttt::GenerationRequest generation(const ApiRequest&, const Prompt&, int index) const;
  Prompt chat_prompt(const ApiRequest&) const;
  std::string role_chunks() const;
  Json piece(std::size_t choice, const std::string& text) const;
  std::string chunk(std::size_t index, const Event&);
  std::string plain_chunk(Choice&, std::size_t index, const std::string& text) const;
  More finish(std::string& text);
  Json choice_json(std::size_t choice) const;
  Json shell(std::size_t choice) const;
  Usage usage() const;

  const AnswerContext& context_;
  AnswerHead head_;
  bool stream_, include_usage_, echo_;
  bool logprobs_;
  std::vector<Prompt> prompts_;
  std::shared_ptr<Channel> channel_;
  std::vector<Choice> choices_;
  std::size_t open_ = 0;  // choices without a result
  bool begun_ = false, ended_ = false;
};

}  // namespace ttt_serve

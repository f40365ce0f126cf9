// Output that follows a JSON schema, by the xgrammar library where the build has it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ttt/text/tokenizer.h"

namespace ttt::inline v2::runtime {

// Which tokens continue one output. Empty: any.
class JsonMask {
 public:
  // -inf for the ids that do not continue the value. `output` grows by what was chosen since the last call.
  void apply(std::span<const std::int32_t> output, std::span<float> logits);
  explicit operator bool() const { return state_ != nullptr; }

 private:
  friend class JsonGrammars;
  struct State;
  std::shared_ptr<State> state_;
};

// The grammars of one vocabulary. Thread-safe; keeps what it compiled.
class JsonGrammars {
 public:
  static bool available();  // whether the build has the library

  // `end_ids` are what an output may end with once its value is whole.
  JsonGrammars(const Tokenizer&, std::int64_t vocab, std::vector<std::int32_t> end_ids);
  ~JsonGrammars();
  JsonGrammars(const JsonGrammars&) = delete;
  JsonGrammars& operator=(const JsonGrammars&) = delete;

  // For one output: a value of `schema`, without white space between its parts. Error: the schema can not be
  // compiled, or the build lacks the library.
  JsonMask mask(const std::string& schema);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ttt::inline v2::runtime

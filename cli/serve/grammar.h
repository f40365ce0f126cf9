// Answers that follow a JSON schema, by the xgrammar library where the program was built with it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ttt/text/tokenizer.h"

namespace ttt_serve {

using LogitsProcessor = std::function<void(std::span<const std::int32_t>, std::span<float>)>;

// Thread-safe; keeps compiled grammars.
class Grammars {
 public:
  static bool available();  // whether the program was built with the library

  // `end_ids` are allowed where an answer may end.
  Grammars(const ttt::Tokenizer&, std::int64_t vocab, std::vector<std::int32_t> end_ids);
  ~Grammars();

  // A processor for one answer that lets only tokens through that continue a JSON value of the schema; "": of
  // any JSON object. Without white space that the schema does not ask for. ApiError 400: the schema can not
  // be compiled, or the program lacks the library.
  LogitsProcessor json(const std::string& schema);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ttt_serve

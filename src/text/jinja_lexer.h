// The tokens of a template, as jinja2's lexer cuts them with trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::jinja {

enum class Type : std::uint8_t {
  data,
  block_begin,
  block_end,
  variable_begin,
  variable_end,
  name,
  string,
  integer,
  real,
  op,
  eof
};

struct Token {
  Type type = Type::eof;
  int line = 1;
  std::string text;  // data, name, decoded string, operator
  std::int64_t integer = 0;
  double real = 0;
};

std::string describe(const Token& token);  // in jinja2's messages

// Ends with a token of type eof. Throws Error with the line.
std::vector<Token> tokenize(std::string_view source);

[[noreturn]] void syntax_error(const std::string& message, int line, std::string_view fix = {});

}  // namespace ttt::inline v2::jinja

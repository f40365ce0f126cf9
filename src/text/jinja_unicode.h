// Python's str character classes and case mappings.
#pragma once

#include <string>
#include <string_view>

namespace ttt::inline v2::jinja {

bool is_space(char32_t c);       // str.isspace, and \s of regular expressions
bool is_printable(char32_t c);   // str.isprintable
bool is_alphabetic(char32_t c);  // str.isalpha
bool is_decimal(char32_t c);     // str.isdecimal
bool is_digit(char32_t c);       // str.isdigit
bool is_numeric(char32_t c);     // str.isnumeric
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_cased(char32_t c);  // lower, upper or title case
bool is_case_ignorable(char32_t c);
bool is_word(char32_t c);        // \w of regular expressions
bool is_line_break(char32_t c);  // str.splitlines

void append_upper(std::string& out, char32_t c);  // full mapping: U+00DF gives "SS"
void append_lower(std::string& out, char32_t c);
void append_title(std::string& out, char32_t c);
void append_folded(std::string& out, char32_t c);

// The bytes of the whitespace that `text` begins or ends with.
std::size_t leading_space(std::string_view text);
std::size_t trailing_space(std::string_view text);

}  // namespace ttt::inline v2::jinja

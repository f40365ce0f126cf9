// UTF-8 by the Unicode standard's table 3-7: overlong forms, surrogates and values above U+10FFFF are
// invalid.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ttt::inline v2::utf8 {

// Bytes of the valid sequence that `text` begins with (1 to 4), or 0 when it begins with an invalid one or is
// empty.
std::size_t valid_length(std::string_view text);

// Bytes that a sequence beginning with `text` still lacks, when `text` is a proper prefix of a valid
// sequence; else 0.
std::size_t missing_bytes(std::string_view text);

// The scalar value of the valid sequence that `text` begins with. Precondition: valid_length(text) > 0.
char32_t decode(std::string_view text);

void append(std::string& out, char32_t scalar);  // a surrogate or too large a value is appended as U+FFFD

// `text` with each maximal invalid part replaced by U+FFFD (Unicode 15, section 3.9, "substitution of maximal
// subparts").
std::string repair(std::string_view text);

}  // namespace ttt::inline v2::utf8

// JSON text from files that nobody vouches for: size and depth are bounded, errors are ttt::Error.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace ttt::inline v2::detail {

using Json = nlohmann::ordered_json;  // keeps the file's order

constexpr std::size_t json_limit = std::size_t{64} << 20;
constexpr int json_depth = 64;

// Accepts NaN, Infinity and -Infinity, which Python writes, as {"__float__": "NaN"} and so on, as
// transformers spells them.
Json parse_json(std::string_view text, const std::string& source, std::size_t limit = json_limit);

// Invalid UTF-8 becomes U+FFFD instead of an exception.
std::string dump_json(const Json&, int indent = -1);

}  // namespace ttt::inline v2::detail

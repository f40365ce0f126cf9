#include "convert/json.h"

#include "ttt/base/error.h"

namespace ttt::inline v2::detail {

namespace {

// The three words that JSON lacks, outside of strings.
std::string spell_floats(std::string_view text) {
  static constexpr std::string_view words[] = {"-Infinity", "Infinity", "NaN"};
  std::string out;
  bool quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (quoted && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && (text[i] == '-' || text[i] == 'I' || text[i] == 'N')) {
      for (std::string_view word : words) {
        if (text.substr(i, word.size()) != word) continue;
        out.append(text, begin, i - begin).append(R"({"__float__": ")").append(word).append("\"}");
        begin = i + word.size();
        i = begin - 1;
        break;
      }
    }
  }
  return out.append(text, begin);
}

}  // namespace

Json parse_json(std::string_view text, const std::string& source, std::size_t limit) {
  if (text.size() > limit)
    throw Error("JSON of " + std::to_string(text.size()) + " bytes", source,
                "at most " + std::to_string(limit) + " are read");
  const auto shallow = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > json_depth) throw Error("JSON nested deeper than " + std::to_string(json_depth), source);
    return true;
  };
  try {
    if (text.find("NaN") == std::string_view::npos && text.find("Infinity") == std::string_view::npos)
      return Json::parse(text, shallow);
    return Json::parse(spell_floats(text), shallow);
  } catch (const Json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    std::string_view message = e.what();
    if (const auto bracket = message.find("] "); bracket != std::string_view::npos)
      message.remove_prefix(bracket + 2);
    throw Error(printable(message, 160), source, "the file is damaged or no JSON");
  }
}

std::string dump_json(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace ttt::inline v2::detail

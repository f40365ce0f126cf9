#include "ttt/base/error.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "ttt/base/utf8.h"
#include "ttt/base/version.h"

namespace ttt::inline v2 {

#define TTT_STRING_(x) #x
#define TTT_STRING(x) TTT_STRING_(x)
const char* version() {
  return TTT_STRING(TTT_VERSION_MAJOR) "." TTT_STRING(TTT_VERSION_MINOR) "." TTT_STRING(TTT_VERSION_PATCH);
}

static std::string join(std::string_view what, std::string_view where, std::string_view fix) {
  std::string text(what);
  for (std::string_view part : {where, fix}) {
    if (part.empty()) continue;
    text += ", ";
    text += part;
  }
  return text;
}

Error::Error(std::string_view what, std::string_view where, std::string_view fix)
    : std::runtime_error(join(what, where, fix)), problem_(what), where_(where), fix_(fix) {}

std::string printable(std::string_view text, std::size_t limit) {
  std::string out;
  std::size_t i = 0;
  while (i < text.size() && out.size() < limit) {
    const std::size_t length = utf8::valid_length(text.substr(i));
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1_control = length == 2 && byte == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (length == 0 || byte < 0x20 || byte == 0x7F || c1_control) {
      char escaped[5];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      out += escaped;
      ++i;
    } else {
      out += text.substr(i, length);
      i += length;
    }
  }
  if (i < text.size()) out += "...";
  return out;
}

namespace detail {

std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t limit) {
  const std::size_t gap = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (gap >= limit) return limit;
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace detail

}  // namespace ttt::inline v2

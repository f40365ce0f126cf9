// jinja2's filters that make text, with transformers' tojson.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "text/jinja_filters.h"
#include "text/jinja_unicode.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

namespace {

Value center_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_center", a, {"width"}, 0);
  Arguments width;
  width.positional = {Value(integer_argument(in, args[0], 80))};
  return call_method(in, to_string(in.heap(), v), "center", width);
}

Value escape_filter(Interpreter& in, const Value& v, const Arguments&) {
  TextBuilder out(&in.budget());
  append_escaped(in.heap(), out, v);
  return in.heap().string(std::move(out), true);
}

Value forceescape_filter(Interpreter& in, const Value& v, const Arguments&) {
  const Text& text = text_of(in, v);
  TextBuilder plain(&in.budget());
  plain.add(text);
  return escape_filter(in, in.heap().string(std::move(plain)), {});
}

Value safe_filter(Interpreter& in, const Value& v, const Arguments&) {
  TextBuilder out(&in.budget());
  append_str(in.heap(), out, v);
  return in.heap().string(std::move(out), true);
}

Value filesizeformat_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_filesizeformat", a, {"binary"}, 0);
  double bytes = 0;
  if (v.is_string()) {
    if (!parse_real(v.text().bytes, bytes)) fail("could not convert string to float: " + repr(in.heap(), v));
  } else if (v.is_integral() || v.is(Kind::real)) {
    bytes = v.is(Kind::real) ? v.real() : static_cast<double>(v.integer());
  } else {
    fail("float() argument must be a string or a real number, not " + quoted(type_name(v)));
  }
  const bool binary = is_true(args[0]);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return in.heap().string("1 Byte");
  std::array<char, 400> out{};
  if (bytes < base) {
    std::snprintf(out.data(), out.size(), "%.0f Bytes", std::trunc(bytes));
    return in.heap().string(out.data());
  }
  constexpr std::array<char, 8> prefixes = {'k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y'};
  double unit = base;
  std::size_t i = 0;
  while (i + 1 < prefixes.size() && bytes >= unit * base) {
    unit *= base;
    ++i;
  }
  const char prefix = binary && i == 0 ? 'K' : prefixes[i];
  std::snprintf(out.data(), out.size(), "%.1f %c%sB", bytes / unit, prefix, binary ? "i" : "");
  return in.heap().string(out.data());
}

Value format_filter(Interpreter& in, const Value& v, const Arguments& a) {
  if (!a.positional.empty() && !a.keywords.empty()) {
    fail("can't handle positional and keyword arguments at the same time");
  }
  Value arguments;
  if (!a.keywords.empty()) {
    arguments = in.heap().dict();
    for (const auto& [key, value] : a.keywords)
      store(in.heap(), as_dict(arguments), in.heap().string(key), value);
  } else {
    arguments = in.heap().tuple(a.positional);
  }
  return percent_format(in.heap(), text_of(in, v), arguments);
}

Value indent_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_indent", a, {"width", "first", "blank"}, 0);
  TextBuilder spaces(&in.budget());
  if (args[0] != nullptr && args[0]->is_string()) {
    spaces.add(args[0]->text());
  } else {
    const std::int64_t width = integer_argument(in, args[0], 4);
    spaces.repeat(" ", static_cast<std::size_t>(std::max<std::int64_t>(0, width)));
  }
  const Value indention = in.heap().string(std::move(spaces));
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (!v.is_string()) fail("unsupported operand type(s) for +=: " + quoted(type_name(v)) + " and 'str'");
  const Value text = add(in.heap(), v, in.heap().string("\n"));
  TextBuilder out(&in.budget());
  bool first = true;
  if (is_true(args[1])) out.add(indention.text());
  for (const Value& line : split_lines(in.heap(), text.text(), false)) {
    if (!first) {
      out.add("\n");
      if (is_true(args[2]) || !line.text().bytes.empty()) out.add(indention.text());
    }
    first = false;
    out.add(line.text());
  }
  return in.heap().string(std::move(out), v.text().markup);
}

template <Case to>
Value case_filter(Interpreter& in, const Value& v, const Arguments&) {
  return change_case(in.heap(), text_of(in, v), to);
}

// Words begin after one of these, unlike in str.title.
Value title_filter(Interpreter& in, const Value& v, const Arguments&) {
  const Text& text = text_of(in, v);
  TextBuilder out(&in.budget());
  const auto offsets = character_offsets(in.heap(), text);
  const auto separates = [&](std::size_t i) {
    const std::string_view rest = std::string_view(text.bytes).substr(offsets[i]);
    const char32_t c = utf8::decode(rest);
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_space(c);
  };
  for (std::size_t i = 0; i + 1 < offsets.size();) {
    std::size_t end = i + 1;
    const bool separator = separates(i);
    while (end + 1 < offsets.size() && separates(end) == separator) ++end;
    const Value head = in.heap().slice(text, offsets[i], offsets[i + 1]);
    const Value tail = in.heap().slice(text, offsets[i + 1], offsets[end]);
    out.add(change_case(in.heap(), head.text(), Case::upper).text());
    out.add(change_case(in.heap(), tail.text(), Case::lower).text());
    i = end;
  }
  return in.heap().string(std::move(out));
}

Value replace_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_replace", a, {"old", "new", "count"}, 2);
  const std::int64_t count =
      args[2] == nullptr || args[2]->is(Kind::none) ? -1 : integer_argument(in, args[2], -1);
  return replace(in.heap(), text_of(in, v), text_of(in, *args[0]), text_of(in, *args[1]), count);
}

Value string_filter(Interpreter& in, const Value& v, const Arguments&) { return to_string(in.heap(), v); }

Value striptags_filter(Interpreter& in, const Value& v, const Arguments&) {
  const Text& text = text_of(in, v);
  in.budget().work(text.bytes.size());
  TextBuilder kept(&in.budget());
  const std::string& s = text.bytes;
  for (std::size_t i = 0; i < s.size();) {
    std::size_t end = i + 1;
    if (s[i] == '<') {
      const bool comment = s.compare(i, 4, "<!--") == 0;
      const std::size_t close = s.find(comment ? "-->" : ">", i);
      if (close != std::string::npos) {
        i = close + (comment ? 3 : 1);
        continue;
      }
    } else {
      end = std::min(s.find('<', i), s.size());
    }
    kept.add(text, i, end);
    i = end;
  }
  const Value plain = in.heap().string(std::move(kept));
  const Value words = call_method(in, plain, "split", {});
  const Value joined = join(in.heap(), in.heap().string(" ").text(), as_sequence(words).items, true);
  // The entities that markupsafe's escape makes.
  Value out = joined;
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> entities = {
      {{"&lt;", "<"}, {"&gt;", ">"}, {"&#34;", "\""}, {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}}};
  for (const auto& [entity, character] : entities) {
    out = replace(in.heap(), out.text(), in.heap().string(entity).text(), in.heap().string(character).text(),
                  -1);
  }
  return out;
}

Value tojson_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("tojson", a, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style;
  style.ensure_ascii = is_true(args[0]);
  style.sort_keys = is_true(args[3]);
  if (args[1] != nullptr && !args[1]->is(Kind::none)) {
    style.pretty = true;
    if (args[1]->is_string()) {
      style.indent = args[1]->text().bytes;
    } else {
      const std::int64_t width = integer_argument(in, args[1], 0);
      if (width > 1000) fail("tojson: an indent of " + std::to_string(width) + " is too large");
      style.indent.assign(static_cast<std::size_t>(std::max<std::int64_t>(0, width)), ' ');
    }
  }
  style.item_separator = in.heap().string(style.pretty ? "," : ", ");
  style.key_separator = in.heap().string(": ");
  if (args[2] != nullptr && !args[2]->is(Kind::none)) {
    const std::vector<Value> pair = iterate(in.heap(), *args[2]);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      fail("tojson: separators must be a pair of strings");
    }
    style.item_separator = pair[0];
    style.key_separator = pair[1];
  }
  TextBuilder out(&in.budget());
  append_json(in.heap(), out, v, style);
  return in.heap().string(std::move(out));
}

Value trim_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_trim", a, {"chars"}, 0);
  return strip(in.heap(), text_of(in, v), args[0], true, true);
}

Value truncate_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_truncate", a, {"length", "killwords", "end", "leeway"}, 0);
  const std::int64_t length = integer_argument(in, args[0], 255);
  const std::int64_t leeway =
      args[3] == nullptr || args[3]->is(Kind::none) ? 5 : integer_argument(in, args[3], 5);
  const Value end = args[2] != nullptr ? *args[2] : in.heap().string("...");
  const auto end_length = static_cast<std::int64_t>(length_of(in.heap(), end));
  if (length < end_length) {
    fail("expected length >= " + std::to_string(end_length) + ", got " + std::to_string(length));
  }
  if (leeway < 0) fail("expected leeway >= 0, got " + std::to_string(leeway));
  const auto n = static_cast<std::int64_t>(length_of(in.heap(), v));
  if (n <= length || n - length <= leeway) return v;
  if (!v.is_string()) fail(quoted(type_name(v)) + " object is not a string");
  const Value cut = slice(in.heap(), v, Value(), Value(length - end_length), Value());
  if (is_true(args[1])) return add(in.heap(), cut, end);
  const std::size_t space = cut.text().bytes.rfind(' ');
  const std::size_t keep = space == std::string::npos ? cut.text().bytes.size() : space;
  return add(in.heap(), in.heap().slice(cut.text(), 0, keep), end);
}

void append_url_quoted(TextBuilder& out, const Text& text, bool query) {
  TaintCursor untrusted(text);
  for (std::size_t i = 0; i < text.bytes.size(); ++i) {
    const char c = text.bytes[i];
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
    std::array<char, 4> escaped = {c, '\0', '\0', '\0'};
    if (query && c == ' ') {
      escaped[0] = '+';
    } else if (!plain) {
      std::snprintf(escaped.data(), escaped.size(), "%%%02X", static_cast<unsigned char>(c));
    }
    out.add(escaped.data(), untrusted(i));
  }
}

Value urlencode_filter(Interpreter& in, const Value& v, const Arguments&) {
  TextBuilder out(&in.budget());
  const bool iterable = v.is(Kind::dict) || v.is(Kind::sequence) || v.is(Kind::undefined);
  if (!iterable) {
    append_url_quoted(out, text_of(in, v), false);
    return in.heap().string(std::move(out));
  }
  const Value pairs = v.is(Kind::dict) ? in.apply_filter("items", v, {}) : v;
  bool first = true;
  for (const Value& pair : iterate(in.heap(), pairs)) {
    const std::vector<Value> items = iterate(in.heap(), pair);
    if (items.size() != 2) fail("too many values to unpack (expected 2)");
    if (!first) out.add("&");
    first = false;
    append_url_quoted(out, text_of(in, items[0]), true);
    out.add("=");
    append_url_quoted(out, text_of(in, items[1]), true);
  }
  return in.heap().string(std::move(out));
}

Value wordcount_filter(Interpreter& in, const Value& v, const Arguments&) {
  const Text& text = text_of(in, v);
  in.budget().work(text.bytes.size());
  std::int64_t words = 0;
  bool inside = false;
  for (std::size_t i = 0; i < text.bytes.size();) {
    const std::string_view rest = std::string_view(text.bytes).substr(i);
    const bool word = is_word(utf8::decode(rest));
    if (word && !inside) ++words;
    inside = word;
    i += std::max<std::size_t>(1, utf8::valid_length(rest));
  }
  return Value(words);
}

Value xmlattr_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_xmlattr", a, {"autospace"}, 0);
  if (!v.is(Kind::dict)) fail(quoted(type_name(v)) + " object has no attribute 'items'");
  TextBuilder out(&in.budget());
  bool first = true;
  for (const auto& [key, value] : as_dict(v).entries) {
    if (value.is(Kind::none) || value.is(Kind::undefined)) continue;
    const Text& name = require_text(in, key, "search");
    if (name.bytes.find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      fail("Invalid character in attribute name: " + quoted(name.bytes));
    }
    if (!first || args[0] == nullptr || truthy(*args[0])) out.add(" ");
    first = false;
    append_escaped(in.heap(), out, key);
    out.add("=\"");
    append_escaped(in.heap(), out, value);
    out.add("\"");
  }
  return in.heap().string(std::move(out));
}

}  // namespace

std::span<const NamedFilter> text_filters() {
  static constexpr NamedFilter table[] = {
      {"capitalize", case_filter<Case::capitalize>},
      {"center", center_filter},
      {"e", escape_filter},
      {"escape", escape_filter},
      {"filesizeformat", filesizeformat_filter},
      {"forceescape", forceescape_filter},
      {"format", format_filter},
      {"indent", indent_filter},
      {"lower", case_filter<Case::lower>},
      {"replace", replace_filter},
      {"safe", safe_filter},
      {"string", string_filter},
      {"striptags", striptags_filter},
      {"title", title_filter},
      {"tojson", tojson_filter},
      {"trim", trim_filter},
      {"truncate", truncate_filter},
      {"upper", case_filter<Case::upper>},
      {"urlencode", urlencode_filter},
      {"wordcount", wordcount_filter},
      {"xmlattr", xmlattr_filter},
  };
  return table;
}

}  // namespace ttt::inline v2::jinja

// The methods of str, list, tuple and dict that templates may call.
#include <algorithm>
#include <array>
#include <limits>
#include <unordered_map>

#include "text/jinja_interpreter.h"
#include "text/jinja_unicode.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

namespace {

struct Self {
  Interpreter& in;
  Heap& heap;
  const Value& value;
  const Text& text;  // of a str
  const Arguments& arguments;
};
using Method = Value (*)(const Self&);
using Methods = std::unordered_map<std::string_view, Method>;

const Text& text_argument(const Self& s, const Value& v) {
  if (v.is(Kind::undefined)) fail_undefined(s.heap, v);
  if (!v.is_string()) fail("must be str, not " + type_name(v));
  return v.text();
}

std::int64_t integer_argument(const Self& s, const Value* v, std::int64_t absent) {
  if (v == nullptr) return absent;
  if (v->is(Kind::undefined)) fail_undefined(s.heap, *v);
  if (!v->is_integral()) fail(quoted(type_name(*v)) + " object cannot be interpreted as an integer");
  return v->integer();
}

bool absent_or_none(const Value* v) { return v == nullptr || v->is(Kind::none); }

Value keep_markup(const Self& s, TextBuilder&& out) { return s.heap.string(std::move(out), s.text.markup); }

char32_t character(const Text& text, std::size_t at) {
  return utf8::decode(std::string_view(text.bytes).substr(at));
}

std::size_t character_size(const Text& text, std::size_t at) {
  return std::max<std::size_t>(1, utf8::valid_length(std::string_view(text.bytes).substr(at)));
}

// Sigma is final where a cased letter stands before it and none after it, ignoring marks in between.
bool final_sigma(const Text& text, std::size_t at) {
  bool before = false;
  for (std::size_t i = at; i > 0;) {
    do --i;
    while (i > 0 && (static_cast<unsigned char>(text.bytes[i]) & 0xC0) == 0x80);
    const char32_t c = character(text, i);
    if (is_case_ignorable(c)) continue;
    before = is_cased(c);
    break;
  }
  if (!before) return false;
  for (std::size_t i = at + 2; i < text.bytes.size(); i += character_size(text, i)) {
    const char32_t c = character(text, i);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

constexpr char32_t sigma = 0x3A3;

}  // namespace

Value change_case(Heap& heap, const Text& text, Case to) {
  heap.budget().step(1 + text.bytes.size() / 8);
  TextBuilder out(&heap.budget());
  TaintCursor untrusted(text);
  bool in_word = false, first = true;
  std::string mapped;
  std::uint64_t sigma_walk = 0;
  for (std::size_t i = 0; i < text.bytes.size();) {
    const char32_t c = character(text, i);
    const std::size_t n = character_size(text, i);
    mapped.clear();
    const auto lower = [&] {
      if (c == sigma) {
        sigma_walk += 64;
        heap.budget().step(1 + std::min<std::size_t>(text.bytes.size(), sigma_walk) / 64);
        utf8::append(mapped, final_sigma(text, i) ? 0x3C2 : 0x3C3);
      } else {
        append_lower(mapped, c);
      }
    };
    switch (to) {
      case Case::upper:
        append_upper(mapped, c);
        break;
      case Case::lower:
        lower();
        break;
      case Case::fold:
        append_folded(mapped, c);
        break;
      case Case::title:
        if (in_word) {
          lower();
        } else {
          append_title(mapped, c);
        }
        in_word = is_cased(c);
        break;
      case Case::capitalize:
        if (first) {
          append_title(mapped, c);
        } else {
          lower();
        }
        break;
      case Case::swap:
        if (is_upper(c)) {
          lower();
        } else if (is_lower(c)) {
          append_upper(mapped, c);
        } else {
          utf8::append(mapped, c);
        }
        break;
    }
    first = false;
    out.add(mapped, untrusted(i));
    i += n;
  }
  return heap.string(std::move(out), text.markup);
}

Value strip(Heap& heap, const Text& text, const Value* characters, bool left, bool right) {
  heap.budget().work(text.bytes.size());
  const std::string_view s = text.bytes;
  std::size_t begin = 0, end = s.size();
  if (absent_or_none(characters)) {
    if (left) begin = leading_space(s);
    if (right) end -= trailing_space(s.substr(begin));
    return heap.slice(text, begin, end);
  }
  if (characters->is(Kind::undefined)) fail_undefined(heap, *characters);
  if (!characters->is_string()) fail("strip arg must be None or str");
  const std::string& set = characters->text().bytes;
  heap.budget().work(set.size());
  const auto matches = [&](std::size_t at, std::size_t n) {
    heap.budget().step(1 + set.size() / 32);
    return n > 0 && set.find(s.substr(at, n)) != std::string::npos;
  };
  while (left && begin < end) {
    const std::size_t n = character_size(text, begin);
    if (!matches(begin, n)) break;
    begin += n;
  }
  while (right && end > begin) {
    std::size_t at = end - 1;
    while (at > begin && (static_cast<unsigned char>(s[at]) & 0xC0) == 0x80) --at;
    if (!matches(at, end - at)) break;
    end = at;
  }
  return heap.slice(text, begin, end);
}

Value replace(Heap& heap, const Text& text, const Text& old, const Text& by, std::int64_t count) {
  heap.budget().work(text.bytes.size());
  TextBuilder out(&heap.budget());
  std::size_t i = 0;
  std::uint64_t left =
      count < 0 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(count);
  if (old.bytes.empty()) {
    while (left > 0) {
      heap.budget().step();
      --left;
      out.add(by);
      if (i >= text.bytes.size()) break;
      const std::size_t n = character_size(text, i);
      out.add(text, i, i + n);
      i += n;
    }
  } else {
    while (left > 0) {
      const std::size_t found = text.bytes.find(old.bytes, i);
      if (found == std::string::npos) break;
      heap.budget().step();
      --left;
      out.add(text, i, found);
      out.add(by);
      i = found + old.bytes.size();
    }
  }
  out.add(text, i, text.bytes.size());
  return heap.string(std::move(out));
}

std::vector<Value> split_lines(Heap& heap, const Text& text, bool keep_ends) {
  heap.budget().work(text.bytes.size());
  std::vector<Value> lines;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.bytes.size();) {
    const std::size_t n = character_size(text, i);
    if (!is_line_break(character(text, i))) {
      i += n;
      continue;
    }
    std::size_t end = i + n;
    if (text.bytes[i] == '\r' && end < text.bytes.size() && text.bytes[end] == '\n') ++end;
    lines.push_back(heap.slice(text, begin, keep_ends ? end : i));
    begin = i = end;
  }
  if (begin < text.bytes.size()) lines.push_back(heap.slice(text, begin, text.bytes.size()));
  return lines;
}

namespace {
template <class Wanted, class Refused>
bool all_cased(const Text& text, Wanted wanted, Refused refused) {
  bool any = false;
  for (std::size_t i = 0; i < text.bytes.size(); i += character_size(text, i)) {
    const char32_t c = character(text, i);
    if (refused(c)) return false;
    any |= wanted(c);
  }
  return any;
}
}  // namespace

bool is_lower_text(const Text& text) {
  return all_cased(text, is_lower, [](char32_t c) { return is_cased(c) && !is_lower(c); });
}
bool is_upper_text(const Text& text) {
  return all_cased(text, is_upper, [](char32_t c) { return is_cased(c) && !is_upper(c); });
}

Value join(Heap& heap, const Text& separator, const std::vector<Value>& items, bool convert) {
  TextBuilder out(&heap.budget());
  for (std::size_t i = 0; i < items.size(); ++i) {
    heap.budget().step();
    if (i > 0) out.add(separator);
    if (!convert && !items[i].is_string()) {
      fail("sequence item " + std::to_string(i) + ": expected str instance, " + type_name(items[i]) +
           " found");
    }
    if (separator.markup && !convert) {
      append_escaped(heap, out, items[i]);
    } else {
      append_str(heap, out, items[i]);
    }
  }
  return heap.string(std::move(out), separator.markup && !convert);
}

namespace {

// str
// -----------------------------------------------------------------------------------------------------------------

template <Case to>
Value cased(const Self& s) {
  return change_case(s.heap, s.text, to);
}

template <bool left, bool right>
Value stripped(const Self& s) {
  const auto args = bind(left && right ? "strip" : left ? "lstrip" : "rstrip", s.arguments, {"chars"}, 0);
  return strip(s.heap, s.text, args[0], left, right);
}

// The bytes of text[start:stop] that prefix and search methods look at; false when start is beyond the end.
bool window(const Self& s, const Value* start, const Value* stop, std::size_t& begin, std::size_t& end) {
  begin = 0;
  end = s.text.bytes.size();
  if (absent_or_none(start) && absent_or_none(stop)) return true;
  const auto offsets = character_offsets(s.heap, s.text);
  const auto n = static_cast<std::int64_t>(offsets.size()) - 1;
  const auto clamp = [&](const Value* v, std::int64_t absent) {
    if (absent_or_none(v)) return absent;
    const std::int64_t i = integer_argument(s, v, 0);
    return i < 0 ? std::max<std::int64_t>(0, i < -n ? 0 : i + n) : i;
  };
  const std::int64_t from = clamp(start, 0), to = std::min(n, clamp(stop, n));
  if (from > n) return false;
  begin = offsets[static_cast<std::size_t>(from)];
  end = offsets[static_cast<std::size_t>(to)];
  return from <= to;
}

template <bool at_start>
Value has_affix(const Self& s) {
  const auto args = bind(at_start ? "startswith" : "endswith", s.arguments, {"prefix", "start", "end"}, 1);
  std::size_t begin = 0, end = 0;
  if (!window(s, args[1], args[2], begin, end)) return Value(false);
  const std::string_view text = std::string_view(s.text.bytes).substr(begin, end - begin);
  const auto matches = [&](const Value& v) {
    if (v.is(Kind::undefined)) fail_undefined(s.heap, v);
    if (!v.is_string()) {
      fail(std::string(at_start ? "startswith" : "endswith") +
           " first arg must be str or a tuple of str, not " + type_name(v));
    }
    s.heap.budget().work(v.text().bytes.size());
    return at_start ? text.starts_with(v.text().bytes) : text.ends_with(v.text().bytes);
  };
  if (!is_sequence(*args[0], SequenceType::tuple)) return Value(matches(*args[0]));
  const auto& items = as_sequence(*args[0]).items;
  return Value(std::any_of(items.begin(), items.end(), matches));
}

template <bool from_right, bool must_find>
Value found_at(const Self& s) {
  const auto args = bind("find", s.arguments, {"sub", "start", "end"}, 1);
  const std::string& sub = text_argument(s, *args[0]).bytes;
  std::size_t begin = 0, end = 0;
  std::size_t at = std::string::npos;
  s.heap.budget().work(s.text.bytes.size());
  if (window(s, args[1], args[2], begin, end)) {
    const std::string_view text = std::string_view(s.text.bytes).substr(begin, end - begin);
    at = from_right ? text.rfind(sub) : text.find(sub);
  }
  if (at == std::string::npos) {
    if (must_find) fail("substring not found");
    return Value(std::int64_t{-1});
  }
  at += begin;
  if (s.text.ascii) return Value(static_cast<std::int64_t>(at));
  s.heap.budget().work(at);
  return Value(static_cast<std::int64_t>(
      std::count_if(s.text.bytes.begin(), s.text.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                    [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; })));
}

Value counted(const Self& s) {
  const auto args = bind("count", s.arguments, {"sub", "start", "end"}, 1);
  const std::string& sub = text_argument(s, *args[0]).bytes;
  std::size_t begin = 0, end = 0;
  if (!window(s, args[1], args[2], begin, end)) return Value(std::int64_t{0});
  s.heap.budget().work(s.text.bytes.size());
  const std::string_view text = std::string_view(s.text.bytes).substr(begin, end - begin);
  std::int64_t n = 0;
  if (sub.empty()) {
    return Value(std::int64_t{1} + std::count_if(text.begin(), text.end(), [](char c) {
                   return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
                 }));
  }
  for (std::size_t i = text.find(sub); i != std::string_view::npos; i = text.find(sub, i + sub.size())) ++n;
  return Value(n);
}

Value replaced(const Self& s) {
  const auto args = bind("replace", s.arguments, {"old", "new", "count"}, 2);
  const Value out = replace(s.heap, s.text, text_argument(s, *args[0]), text_argument(s, *args[1]),
                            integer_argument(s, args[2], -1));
  if (!s.text.markup) return out;
  TextBuilder copy(&s.heap.budget());
  copy.add(out.text());
  return s.heap.string(std::move(copy), true);
}

template <bool from_right>
Value split(const Self& s) {
  const auto args = bind(from_right ? "rsplit" : "split", s.arguments, {"sep", "maxsplit"}, 0);
  std::int64_t left = integer_argument(s, args[1], -1);
  if (left < 0) left = std::numeric_limits<std::int64_t>::max();
  const std::string& bytes = s.text.bytes;
  s.heap.budget().work(bytes.size());
  std::vector<Value> parts;
  const auto add = [&](std::size_t begin, std::size_t end) {
    s.heap.budget().step();
    parts.push_back(s.heap.slice(s.text, begin, end));
  };
  if (absent_or_none(args[0])) {
    // Words; the last piece keeps its inner whitespace once the splits are used up.
    std::vector<std::pair<std::size_t, std::size_t>> words;
    std::size_t i = 0;
    while (true) {
      i += leading_space(std::string_view(bytes).substr(i));
      if (i >= bytes.size()) break;
      std::size_t end = i;
      while (end < bytes.size() && !is_space(character(s.text, end))) end += character_size(s.text, end);
      s.heap.budget().memory(sizeof(words[0]));
      words.emplace_back(i, end);
      i = end;
    }
    const auto limit = static_cast<std::uint64_t>(left);
    if (words.size() <= limit) {
      for (const auto& [begin, end] : words) add(begin, end);
    } else if (!from_right) {
      for (std::size_t w = 0; w < limit; ++w) add(words[w].first, words[w].second);
      const std::size_t begin = words[limit].first;
      add(begin, bytes.size());  // trailing whitespace stays
    } else {
      add(0, words[words.size() - limit - 1].second);  // so does leading whitespace
      for (std::size_t w = words.size() - limit; w < words.size(); ++w) add(words[w].first, words[w].second);
    }
    return s.heap.list(std::move(parts));
  }
  if (args[0]->is(Kind::undefined)) fail_undefined(s.heap, *args[0]);
  if (!args[0]->is_string()) fail("must be str or None, not " + type_name(*args[0]));
  const std::string& separator = args[0]->text().bytes;
  if (separator.empty()) fail("empty separator");
  if (!from_right) {
    std::size_t begin = 0;
    for (std::size_t at = 0; left > 0 && (at = bytes.find(separator, begin)) != std::string::npos; --left) {
      add(begin, at);
      begin = at + separator.size();
    }
    add(begin, bytes.size());
  } else {
    std::size_t end = bytes.size();
    while (left > 0 && end >= separator.size()) {
      const std::size_t at = bytes.rfind(separator, end - separator.size());
      if (at == std::string::npos) break;
      add(at + separator.size(), end);
      end = at;
      --left;
    }
    add(0, end);
    std::reverse(parts.begin(), parts.end());
  }
  return s.heap.list(std::move(parts));
}

Value lines(const Self& s) {
  const auto args = bind("splitlines", s.arguments, {"keepends"}, 0);
  if (args[0] != nullptr && !args[0]->is_integral()) {
    fail(quoted(type_name(*args[0])) + " object cannot be interpreted as an integer");
  }
  return s.heap.list(split_lines(s.heap, s.text, args[0] != nullptr && truthy(*args[0])));
}

template <bool from_right>
Value partition(const Self& s) {
  const auto args = bind("partition", s.arguments, {"sep"}, 1);
  const std::string& separator = text_argument(s, *args[0]).bytes;
  if (separator.empty()) fail("empty separator");
  s.heap.budget().work(s.text.bytes.size());
  const std::size_t at = from_right ? s.text.bytes.rfind(separator) : s.text.bytes.find(separator);
  const std::size_t n = s.text.bytes.size();
  if (at == std::string::npos) {
    const Value empty = s.heap.string("");
    return from_right ? s.heap.tuple({empty, empty, s.value}) : s.heap.tuple({s.value, empty, empty});
  }
  return s.heap.tuple({s.heap.slice(s.text, 0, at), s.heap.slice(s.text, at, at + separator.size()),
                       s.heap.slice(s.text, at + separator.size(), n)});
}

template <bool prefix>
Value remove_affix(const Self& s) {
  const auto args = bind(prefix ? "removeprefix" : "removesuffix", s.arguments, {"affix"}, 1);
  const std::string& affix = text_argument(s, *args[0]).bytes;
  const std::string_view text = s.text.bytes;
  if (prefix ? !text.starts_with(affix) : affix.empty() || !text.ends_with(affix)) return s.value;
  return prefix ? s.heap.slice(s.text, affix.size(), text.size())
                : s.heap.slice(s.text, 0, text.size() - affix.size());
}

Value joined(const Self& s) {
  const auto args = bind("join", s.arguments, {"iterable"}, 1);
  if (!args[0]->is_string() && !args[0]->is(Kind::sequence) && !args[0]->is(Kind::dict) &&
      !args[0]->is(Kind::undefined)) {
    fail("can only join an iterable");
  }
  return join(s.heap, s.text, iterate(s.heap, *args[0]), false);
}

// -1: left, 0: centre, 1: right
template <int align>
Value justify(const Self& s) {
  const auto args = bind("ljust", s.arguments, {"width", "fillchar"}, 1);
  const Value fill = args[1] != nullptr ? *args[1] : s.heap.string(" ");
  if (!fill.is_string() || code_points(s.heap, fill.text()) != 1) {
    fail("The fill character must be exactly one character long");
  }
  const auto length = static_cast<std::int64_t>(code_points(s.heap, s.text));
  const std::int64_t width = integer_argument(s, args[0], 0), pad = width - length;
  if (width <= length) return s.value;
  const std::int64_t left = align < 0 ? 0 : align > 0 ? pad : pad / 2 + (pad & width & 1);
  TextBuilder out(&s.heap.budget());
  out.repeat(fill.text().bytes, static_cast<std::size_t>(left));
  out.add(s.text);
  out.repeat(fill.text().bytes, static_cast<std::size_t>(pad - left));
  return keep_markup(s, std::move(out));
}

Value zero_filled(const Self& s) {
  const auto args = bind("zfill", s.arguments, {"width"}, 1);
  const auto length = static_cast<std::int64_t>(code_points(s.heap, s.text));
  const std::int64_t width = integer_argument(s, args[0], 0);
  if (width <= length) return s.value;
  TextBuilder out(&s.heap.budget());
  const std::size_t sign =
      !s.text.bytes.empty() && (s.text.bytes[0] == '-' || s.text.bytes[0] == '+') ? 1 : 0;
  out.add(s.text, 0, sign);
  out.repeat("0", static_cast<std::size_t>(width - length));
  out.add(s.text, sign, s.text.bytes.size());
  return keep_markup(s, std::move(out));
}

Value tabs_expanded(const Self& s) {
  const auto args = bind("expandtabs", s.arguments, {"tabsize"}, 0);
  const std::int64_t size = integer_argument(s, args[0], 8);
  TextBuilder out(&s.heap.budget());
  std::int64_t column = 0;
  for (std::size_t i = 0; i < s.text.bytes.size();) {
    s.heap.budget().step();
    const std::size_t n = character_size(s.text, i);
    const char c = s.text.bytes[i];
    if (c == '\t') {
      const std::int64_t spaces = size > 0 ? size - column % size : 0;
      out.repeat(" ", static_cast<std::size_t>(spaces));
      column += spaces;
    } else {
      out.add(s.text, i, i + n);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    i += n;
  }
  return keep_markup(s, std::move(out));
}

template <bool (*accepts)(char32_t)>
Value all_are(const Self& s) {
  bind("is", s.arguments, {}, 0);
  s.heap.budget().work(s.text.bytes.size());
  for (std::size_t i = 0; i < s.text.bytes.size(); i += character_size(s.text, i)) {
    if (!accepts(character(s.text, i))) return Value(false);
  }
  return Value(!s.text.bytes.empty());
}

bool is_alphanumeric(char32_t c) { return is_alphabetic(c) || is_decimal(c) || is_digit(c) || is_numeric(c); }

Value is_title(const Self& s) {
  bool any = false, in_word = false;
  for (std::size_t i = 0; i < s.text.bytes.size(); i += character_size(s.text, i)) {
    const char32_t c = character(s.text, i);
    if (is_lower(c)) {
      if (!in_word) return Value(false);
      any = true;
    } else if (is_cased(c)) {
      if (in_word) return Value(false);
      any = in_word = true;
    } else {
      in_word = false;
    }
  }
  return Value(any);
}

Value is_identifier(const Self& s) {
  for (std::size_t i = 0; i < s.text.bytes.size(); i += character_size(s.text, i)) {
    const char32_t c = character(s.text, i);
    if (!(c == '_' || is_alphabetic(c) || (i > 0 && is_word(c)))) return Value(false);
  }
  return Value(!s.text.bytes.empty());
}

Value formatted(const Self& s) { return format_string(s.in, s.text, s.arguments); }

Value format_mapped(const Self& s) {
  const auto args = bind("format_map", s.arguments, {"mapping"}, 1);
  if (!args[0]->is(Kind::dict)) fail("format_map() argument must be a mapping, not " + type_name(*args[0]));
  Arguments arguments;
  for (const auto& [key, value] : as_dict(*args[0]).entries) {
    if (key.is_string()) arguments.keywords.emplace_back(key.text().bytes, value);
  }
  return format_string(s.in, s.text, arguments);
}

template <int which>
Value unsupported(const Self&) {
  constexpr std::array<const char*, 3> names = {"encode", "maketrans", "translate"};
  fail("the str method " + quoted(names[which]) + " is not supported");
}

const Methods& string_methods() {
  static const Methods table = {
      {"capitalize", cased<Case::capitalize>},
      {"casefold", cased<Case::fold>},
      {"center", justify<0>},
      {"count", counted},
      {"encode", unsupported<0>},
      {"endswith", has_affix<false>},
      {"expandtabs", tabs_expanded},
      {"find", found_at<false, false>},
      {"format", formatted},
      {"format_map", format_mapped},
      {"index", found_at<false, true>},
      {"isalnum", all_are<is_alphanumeric>},
      {"isalpha", all_are<is_alphabetic>},
      {"isascii", [](const Self& s) { return Value(s.text.ascii); }},
      {"isdecimal", all_are<is_decimal>},
      {"isdigit", all_are<is_digit>},
      {"isidentifier", is_identifier},
      {"islower", [](const Self& s) { return Value(is_lower_text(s.text)); }},
      {"isnumeric", all_are<is_numeric>},
      {"isprintable",
       [](const Self& s) { return s.text.bytes.empty() ? Value(true) : all_are<is_printable>(s); }},
      {"isspace", all_are<is_space>},
      {"istitle", is_title},
      {"isupper", [](const Self& s) { return Value(is_upper_text(s.text)); }},
      {"join", joined},
      {"ljust", justify<-1>},
      {"lower", cased<Case::lower>},
      {"lstrip", stripped<true, false>},
      {"maketrans", unsupported<1>},
      {"partition", partition<false>},
      {"removeprefix", remove_affix<true>},
      {"removesuffix", remove_affix<false>},
      {"replace", replaced},
      {"rfind", found_at<true, false>},
      {"rindex", found_at<true, true>},
      {"rjust", justify<1>},
      {"rpartition", partition<true>},
      {"rsplit", split<true>},
      {"rstrip", stripped<false, true>},
      {"split", split<false>},
      {"splitlines", lines},
      {"startswith", has_affix<true>},
      {"strip", stripped<true, true>},
      {"swapcase", cased<Case::swap>},
      {"title", cased<Case::title>},
      {"translate", unsupported<2>},
      {"upper", cased<Case::upper>},
      {"zfill", zero_filled},
  };
  return table;
}

// list, tuple, range
// --------------------------------------------------------------------------------------------------

Value item_index(const Self& s) {
  const auto args = bind("index", s.arguments, {"value", "start", "stop"}, 1);
  const auto& items = as_sequence(s.value).items;
  const auto n = static_cast<std::int64_t>(items.size());
  const auto clamp = [&](const Value* v, std::int64_t absent) {
    const std::int64_t i = integer_argument(s, v, absent);
    return i < 0 ? (i < -n ? 0 : i + n) : std::min(i, n);
  };
  for (std::int64_t i = clamp(args[1], 0); i < clamp(args[2], n); ++i) {
    if (equal(s.heap, items[static_cast<std::size_t>(i)], *args[0])) return Value(i);
  }
  fail(repr(s.heap, *args[0]) + " is not in " + type_name(s.value));
}

Value item_count(const Self& s) {
  const auto args = bind("count", s.arguments, {"value"}, 1);
  std::int64_t n = 0;
  for (const Value& item : as_sequence(s.value).items) n += equal(s.heap, item, *args[0]) ? 1 : 0;
  return Value(n);
}

const Methods& sequence_methods() {
  static const Methods table = {
      {"index", item_index},
      {"count", item_count},
      {"copy", [](const Self& s) { return s.heap.list(iterate(s.heap, s.value)); }},
  };
  return table;
}

// dict
// ----------------------------------------------------------------------------------------------------------------

Value got(const Self& s) {
  if (s.arguments.positional.empty() && s.arguments.keywords.empty())
    fail("get expected at least 1 argument, got 0");
  const auto args = bind("get", s.arguments, {"key", "default"}, 1);
  if (!hashable(*args[0])) fail("unhashable type: " + quoted(type_name(*args[0])));
  if (const Value* item = find(s.heap, as_dict(s.value), *args[0])) return *item;
  return args[1] != nullptr ? *args[1] : Value();
}

template <SequenceType type>
Value view(const Self& s) {
  bind("items", s.arguments, {}, 0);
  std::vector<Value> items;
  const Dict& dict = as_dict(s.value);
  items.reserve(dict.entries.size());
  for (const auto& [key, value] : dict.entries) {
    s.heap.budget().step();
    items.push_back(type == SequenceType::dict_keys     ? key
                    : type == SequenceType::dict_values ? value
                                                        : s.heap.tuple({key, value}));
  }
  return s.heap.sequence(type, std::move(items));
}

Value dict_copy(const Self& s) {
  const Value out = s.heap.dict();
  for (const auto& [key, value] : as_dict(s.value).entries) store(s.heap, as_dict(out), key, value);
  return out;
}

Value from_keys(const Self& s) {
  const auto args = bind("fromkeys", s.arguments, {"iterable", "value"}, 1);
  const Value out = s.heap.dict();
  for (const Value& key : iterate(s.heap, *args[0])) {
    store(s.heap, as_dict(out), key, args[1] != nullptr ? *args[1] : Value());
  }
  return out;
}

const Methods& dict_methods() {
  static const Methods table = {
      {"get", got},
      {"items", view<SequenceType::dict_items>},
      {"keys", view<SequenceType::dict_keys>},
      {"values", view<SequenceType::dict_values>},
      {"copy", dict_copy},
      {"fromkeys", from_keys},
  };
  return table;
}

const Methods& methods_of(const Value& self) {
  static const Methods none;
  if (self.is_string()) return string_methods();
  if (self.is(Kind::dict)) return dict_methods();
  if (self.is(Kind::sequence) && as_sequence(self).subscriptable()) return sequence_methods();
  return none;
}

}  // namespace

bool is_method(const Value& self, std::string_view name) {
  if (name == "copy" && self.is(Kind::sequence) && !is_sequence(self, SequenceType::list)) return false;
  return methods_of(self).count(name) > 0;
}

bool modifies(const Value& self, std::string_view name) {
  static constexpr std::array<std::string_view, 8> of_list = {"append", "clear", "pop",    "reverse",
                                                              "insert", "sort",  "extend", "remove"};
  static constexpr std::array<std::string_view, 5> of_dict = {"clear", "pop", "popitem", "setdefault",
                                                              "update"};
  if (is_sequence(self, SequenceType::list))
    return std::find(of_list.begin(), of_list.end(), name) != of_list.end();
  return self.is(Kind::dict) && std::find(of_dict.begin(), of_dict.end(), name) != of_dict.end();
}

Value call_method(Interpreter& in, const Value& self, const std::string& name, const Arguments& arguments) {
  static const Text empty;
  const Methods& methods = methods_of(self);
  const auto found = methods.find(name);
  if (found == methods.end()) fail(quoted(type_name(self)) + " object has no attribute " + quoted(name));
  in.budget().step();
  return found->second({in, in.heap(), self, self.is_string() ? self.text() : empty, arguments});
}

}  // namespace ttt::inline v2::jinja

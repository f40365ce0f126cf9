// Values as text: Python's str and repr, markupsafe's escape, JSON.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "text/jinja_unicode.h"
#include "text/jinja_value.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

std::string real_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer{};
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), d, std::chars_format::scientific).ptr;
  const std::string_view scientific(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t e = scientific.find('e');
  int exponent = 0;
  const std::string_view exponent_digits = scientific.substr(e + (scientific[e + 1] == '+' ? 2 : 1));
  std::from_chars(exponent_digits.data(), exponent_digits.data() + exponent_digits.size(), exponent);
  std::string digits;
  for (char c : scientific.substr(0, e)) {
    if (c != '.' && c != '-') digits += c;
  }
  std::string out = scientific[0] == '-' ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (digits.size() > 1) out += "." + digits.substr(1);
    out += exponent < 0 ? "e-" : "e+";
    const std::string magnitude = std::to_string(std::abs(exponent));
    return out + (magnitude.size() < 2 ? "0" : "") + magnitude;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto point = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= point) return out + digits + std::string(point - digits.size(), '0') + ".0";
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

namespace {

void append_quoted(TextBuilder& out, const Text& text) {
  const bool double_quotes =
      text.bytes.find('\'') != std::string::npos && text.bytes.find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  TaintCursor untrusted(text);
  out.add(quote);
  std::size_t run = 0, i = 0;
  const auto flush = [&] { out.add(text, run, i); };
  while (i < text.bytes.size()) {
    const std::string_view rest = std::string_view(text.bytes).substr(i);
    const std::size_t n = std::max<std::size_t>(1, utf8::valid_length(rest));
    const char32_t c = utf8::valid_length(rest) > 0 ? utf8::decode(rest) : 0xFFFD;
    std::array<char, 16> escaped{};
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      std::snprintf(escaped.data(), escaped.size(), "\\%c", static_cast<char>(c));
    } else if (c == '\n') {
      std::memcpy(escaped.data(), "\\n", 2);
    } else if (c == '\r') {
      std::memcpy(escaped.data(), "\\r", 2);
    } else if (c == '\t') {
      std::memcpy(escaped.data(), "\\t", 2);
    } else if ((c >= 0x20 && c < 0x7F) || (c >= 0x80 && is_printable(c))) {
      i += n;
      continue;
    } else if (c < 0x100) {
      std::snprintf(escaped.data(), escaped.size(), "\\x%02x", static_cast<unsigned>(c));
    } else if (c < 0x10000) {
      std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(c));
    } else {
      std::snprintf(escaped.data(), escaped.size(), "\\U%08x", static_cast<unsigned>(c));
    }
    flush();
    out.add(escaped.data(), untrusted(i));
    i += n;
    run = i;
  }
  flush();
  out.add(quote);
}

}  // namespace

std::string quoted(std::string_view s) {
  Text text;
  text.bytes = s;
  TextBuilder out;
  append_quoted(out, text);
  return out.bytes();
}

std::string repr(Heap& heap, const Value& v) {
  TextBuilder out(&heap.budget());
  append_repr(heap, out, v);
  return out.bytes();
}

void append_str(Heap& heap, TextBuilder& out, const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return;
    case Kind::string:
      out.add(v.text());
      return;
    default:
      append_repr(heap, out, v);
  }
}

void append_repr(Heap& heap, TextBuilder& out, const Value& v, int depth) {
  Budget& budget = heap.budget();
  budget.step();
  if (depth > budget.depth_limit) budget.too_deep();
  const auto items = [&](const std::vector<Value>& values) {
    bool first = true;
    for (const Value& item : values) {
      if (!first) out.add(", ");
      first = false;
      append_repr(heap, out, item, depth + 1);
    }
  };
  switch (v.kind()) {
    case Kind::undefined:
      out.add("Undefined");
      return;
    case Kind::none:
      out.add("None");
      return;
    case Kind::boolean:
      out.add(v.boolean() ? "True" : "False");
      return;
    case Kind::integer:
      out.add(std::to_string(v.integer()));
      return;
    case Kind::big_integer:
      out.add(v.text());
      return;
    case Kind::real:
      out.add(real_repr(v.real()));
      return;
    case Kind::string:
      budget.work(v.text().bytes.size());
      if (v.text().markup) out.add("Markup(");
      append_quoted(out, v.text());
      if (v.text().markup) out.add(")");
      return;
    case Kind::sequence: {
      const Sequence& s = as_sequence(v);
      switch (s.type) {
        case SequenceType::list:
          out.add("[");
          items(s.items);
          out.add("]");
          return;
        case SequenceType::tuple:
          out.add("(");
          items(s.items);
          out.add(s.items.size() == 1 ? ",)" : ")");
          return;
        case SequenceType::range:
          out.add(s.range_repr);
          return;
        case SequenceType::dict_keys:
        case SequenceType::dict_values:
        case SequenceType::dict_items:
          out.add(type_name(v) + "([");
          items(s.items);
          out.add("])");
          return;
        case SequenceType::generator:
        case SequenceType::reverse_iterator:
          // Python prints an address; what a template can rely on is that it is no list.
          out.add("<" + type_name(v) + " object>");
          return;
      }
      return;
    }
    case Kind::dict:
    case Kind::name_space: {
      if (v.is(Kind::name_space)) out.add("<Namespace ");
      out.add("{");
      bool first = true;
      for (const auto& [key, value] : as_dict(v).entries) {
        if (!first) out.add(", ");
        first = false;
        append_repr(heap, out, key, depth + 1);
        out.add(": ");
        append_repr(heap, out, value, depth + 1);
      }
      out.add("}");
      if (v.is(Kind::name_space)) out.add(">");
      return;
    }
    case Kind::callable:
      out.add("<function>");
      return;
    case Kind::loop:
      out.add("<LoopContext>");
      return;
  }
}

Value to_string(Heap& heap, const Value& v) {
  if (v.is_string()) return v;
  TextBuilder out(&heap.budget());
  append_str(heap, out, v);
  return heap.string(std::move(out));
}

void append_escaped(Heap& heap, TextBuilder& out, const Value& v) {
  const Value string = to_string(heap, v);
  const Text& text = string.text();
  if (text.markup) {
    out.add(text);
    return;
  }
  heap.budget().work(text.bytes.size());
  TaintCursor untrusted(text);
  std::size_t run = 0;
  for (std::size_t i = 0; i < text.bytes.size(); ++i) {
    const char* entity = nullptr;
    switch (text.bytes[i]) {
      case '&':
        entity = "&amp;";
        break;
      case '<':
        entity = "&lt;";
        break;
      case '>':
        entity = "&gt;";
        break;
      case '\'':
        entity = "&#39;";
        break;
      case '"':
        entity = "&#34;";
        break;
      default:
        continue;
    }
    out.add(text, run, i);
    out.add(entity, untrusted(i));
    run = i + 1;
  }
  out.add(text, run, text.bytes.size());
}

// JSON
// ----------------------------------------------------------------------------------------------------------------

namespace {

void append_json_string(Heap& heap, TextBuilder& out, const Text& text, bool ensure_ascii) {
  heap.budget().work(text.bytes.size());
  TaintCursor untrusted(text);
  out.add('"');
  std::size_t run = 0, i = 0;
  while (i < text.bytes.size()) {
    const auto byte = static_cast<unsigned char>(text.bytes[i]);
    std::array<char, 16> escaped{};
    std::size_t n = 1;
    if (byte == '"' || byte == '\\') {
      std::snprintf(escaped.data(), escaped.size(), "\\%c", byte);
    } else if (byte < 0x20) {
      constexpr std::string_view named = "\b\f\n\r\t", letters = "bfnrt";
      const std::size_t at = named.find(static_cast<char>(byte));
      if (at != std::string_view::npos) {
        std::snprintf(escaped.data(), escaped.size(), "\\%c", letters[at]);
      } else {
        std::snprintf(escaped.data(), escaped.size(), "\\u%04x", byte);
      }
    } else if (ensure_ascii && byte >= 0x80) {
      const std::string_view rest = std::string_view(text.bytes).substr(i);
      n = std::max<std::size_t>(1, utf8::valid_length(rest));
      const char32_t c = utf8::valid_length(rest) > 0 ? utf8::decode(rest) : 0xFFFD;
      if (c < 0x10000) {
        std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(c));
      } else {
        std::snprintf(escaped.data(), escaped.size(), "\\u%04x\\u%04x",
                      static_cast<unsigned>(0xD800 + ((c - 0x10000) >> 10)),
                      static_cast<unsigned>(0xDC00 + ((c - 0x10000) & 0x3FF)));
      }
    } else {
      ++i;
      continue;
    }
    out.add(text, run, i);
    out.add(escaped.data(), untrusted(i));
    i += n;
    run = i;
  }
  out.add(text, run, text.bytes.size());
  out.add('"');
}

std::string json_real(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return real_repr(d);
}

}  // namespace

void append_json(Heap& heap, TextBuilder& out, const Value& v, const JsonStyle& style, int depth) {
  Budget& budget = heap.budget();
  budget.step();
  if (depth > budget.depth_limit) budget.too_deep();
  const auto new_line = [&](int level) {
    if (!style.pretty) return;
    out.add('\n');
    out.repeat(style.indent, static_cast<std::size_t>(level));
  };
  switch (v.kind()) {
    case Kind::none:
      out.add("null");
      return;
    case Kind::boolean:
      out.add(v.boolean() ? "true" : "false");
      return;
    case Kind::integer:
    case Kind::big_integer:
      append_str(heap, out, v);
      return;
    case Kind::real:
      out.add(json_real(v.real()));
      return;
    case Kind::string:
      append_json_string(heap, out, v.text(), style.ensure_ascii);
      return;
    case Kind::sequence: {
      const Sequence& s = as_sequence(v);
      if (s.type != SequenceType::list && s.type != SequenceType::tuple) break;
      if (s.items.empty()) {
        out.add("[]");
        return;
      }
      out.add('[');
      bool first = true;
      for (const Value& item : s.items) {
        if (!first) out.add(style.item_separator.text());
        first = false;
        new_line(depth + 1);
        append_json(heap, out, item, style, depth + 1);
      }
      new_line(depth);
      out.add(']');
      return;
    }
    case Kind::dict: {
      const Dict& d = as_dict(v);
      if (d.entries.empty()) {
        out.add("{}");
        return;
      }
      std::vector<Value> entries, keys;
      budget.memory(2 * d.entries.size() * sizeof(Value));
      for (const auto& [key, value] : d.entries) {
        keys.push_back(key);
        entries.push_back(style.sort_keys ? heap.tuple({key, value}) : Value());
      }
      if (style.sort_keys) sort_by(heap, entries, keys, false);
      out.add('{');
      for (std::size_t i = 0; i < d.entries.size(); ++i) {
        const Value& key = style.sort_keys ? as_sequence(entries[i]).items[0] : d.entries[i].first;
        const Value& value = style.sort_keys ? as_sequence(entries[i]).items[1] : d.entries[i].second;
        if (i > 0) out.add(style.item_separator.text());
        new_line(depth + 1);
        switch (key.kind()) {
          case Kind::string:
            append_json_string(heap, out, key.text(), style.ensure_ascii);
            break;
          case Kind::none:
          case Kind::boolean:
          case Kind::integer:
          case Kind::big_integer:
          case Kind::real:
            out.add('"');
            append_json(heap, out, key, style, depth + 1);
            out.add('"');
            break;
          default:
            fail("keys must be str, int, float, bool or None, not " + type_name(key));
        }
        out.add(style.key_separator.text());
        append_json(heap, out, value, style, depth + 1);
      }
      new_line(depth);
      out.add('}');
      return;
    }
    default:
      break;
  }
  fail("Object of type " + type_name(v) + " is not JSON serializable");
}

}  // namespace ttt::inline v2::jinja

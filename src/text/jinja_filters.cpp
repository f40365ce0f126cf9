// jinja2's built-in filters and tests, with transformers' tojson.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <unordered_map>

#include "text/jinja_interpreter.h"
#include "text/jinja_unicode.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

namespace {

using Filter = Value (*)(Interpreter&, const Value&, const Arguments&);
using Test = bool (*)(Interpreter&, const Value&, const Arguments&);

bool is_true(const Value* v) { return v != nullptr && truthy(*v); }

std::int64_t integer_argument(Interpreter& in, const Value* v, std::int64_t absent) {
  if (v == nullptr) return absent;
  if (v->is(Kind::undefined)) fail_undefined(in.heap(), *v);
  if (!v->is_integral()) fail(quoted(type_name(*v)) + " object cannot be interpreted as an integer");
  return v->integer();
}

// What ignore_case of jinja2 makes of a key.
Value sort_key(Interpreter& in, const Value& v, bool case_sensitive) {
  return !case_sensitive && v.is_string() ? change_case(in.heap(), v.text(), Case::lower) : v;
}

const Text& text_of(Interpreter& in, const Value& v) { return to_string(in.heap(), v).text(); }

// A str that a filter calls a method of, without converting it first.
const Text& require_text(Interpreter& in, const Value& v, const char* method) {
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (!v.is_string()) fail(quoted(type_name(v)) + " object has no attribute " + quoted(method));
  return v.text();
}

Value generator(Interpreter& in, std::vector<Value> items) {
  return in.heap().sequence(SequenceType::generator, std::move(items));
}

Value abs_filter(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (v.is(Kind::real)) return Value(std::fabs(v.real()));
  if (!v.is_integral()) fail("bad operand type for abs(): " + quoted(type_name(v)));
  return v.integer() < 0 ? negate(in.heap(), v, true) : Value(v.integer());
}

Value attr_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_attr", a, {"name"}, 1);
  const Value name = to_string(in.heap(), *args[0]);
  if (v.is(Kind::dict) && !is_method(v, name.text().bytes)) return in.heap().undefined_of(v, name);
  return in.attribute(v, name);
}

Value batch_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_batch", a, {"linecount", "fill_with"}, 1);
  const std::int64_t n = integer_argument(in, args[0], 1);
  std::vector<Value> lines, line;
  for (const Value& item : iterate(in.heap(), v)) {
    if (static_cast<std::int64_t>(line.size()) == n) lines.push_back(in.heap().list(std::exchange(line, {})));
    line.push_back(item);
  }
  if (!line.empty()) {
    if (args[1] != nullptr && !args[1]->is(Kind::none)) {
      while (static_cast<std::int64_t>(line.size()) < n) {
        in.budget().memory(sizeof(Value));
        line.push_back(*args[1]);
      }
    }
    lines.push_back(in.heap().list(std::move(line)));
  }
  return generator(in, std::move(lines));
}

Value slice_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_slice", a, {"slices", "fill_with"}, 1);
  const std::vector<Value> items = iterate(in.heap(), v);
  const std::int64_t slices = integer_argument(in, args[0], 1);
  if (slices == 0) fail("integer division or modulo by zero");
  std::vector<Value> out;
  std::size_t at = 0;
  for (std::int64_t i = 0; i < slices; ++i) {
    in.budget().step();
    const auto n = static_cast<std::int64_t>(items.size());
    const auto count = static_cast<std::size_t>(n / slices + (i < n % slices ? 1 : 0));
    std::vector<Value> part(items.begin() + static_cast<std::ptrdiff_t>(at),
                            items.begin() + static_cast<std::ptrdiff_t>(at + count));
    at += count;
    if (args[1] != nullptr && !args[1]->is(Kind::none) && i >= n % slices) part.push_back(*args[1]);
    out.push_back(in.heap().list(std::move(part)));
  }
  return generator(in, std::move(out));
}

Value center_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_center", a, {"width"}, 0);
  Arguments width;
  width.positional = {Value(integer_argument(in, args[0], 80))};
  return call_method(in, to_string(in.heap(), v), "center", width);
}

Value default_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_default", a, {"default_value", "boolean"}, 0);
  if (!v.is(Kind::undefined) && !(is_true(args[1]) && !truthy(v))) return v;
  return args[0] != nullptr ? *args[0] : in.heap().string("");
}

Value dictsort_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_dictsort", a, {"case_sensitive", "by", "reverse"}, 0);
  std::size_t position = 0;
  if (args[1] != nullptr) {
    const std::string by = args[1]->is_string() ? args[1]->text().bytes : "";
    if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
    position = by == "value" ? 1 : 0;
  }
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (!v.is(Kind::dict)) fail(quoted(type_name(v)) + " object has no attribute 'items'");
  std::vector<Value> items, keys;
  for (const auto& [key, value] : as_dict(v).entries) {
    items.push_back(in.heap().tuple({key, value}));
    keys.push_back(sort_key(in, position == 0 ? key : value, is_true(args[0])));
  }
  sort_by(in.heap(), items, keys, is_true(args[2]));
  return in.heap().list(std::move(items));
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

Value first_filter(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is(Kind::sequence)) {
    Sequence& s = as_sequence(v);
    if (s.next < s.items.size()) return s.items[s.once() ? s.next++ : 0];
  } else {
    const std::vector<Value> items = iterate(in.heap(), v);
    if (!items.empty()) return items[0];
  }
  return in.heap().undefined("No first item, sequence was empty.");
}

std::vector<Value> reversible(Interpreter& in, const Value& v) {
  if (v.is(Kind::sequence) && as_sequence(v).once()) fail(quoted(type_name(v)) + " object is not reversible");
  if (!v.is_string() && !v.is(Kind::sequence) && !v.is(Kind::dict) && !v.is(Kind::undefined)) {
    fail(quoted(type_name(v)) + " object is not reversible");
  }
  return iterate(in.heap(), v);
}

Value last_filter(Interpreter& in, const Value& v, const Arguments&) {
  const std::vector<Value> items = reversible(in, v);
  return items.empty() ? in.heap().undefined("No last item, sequence was empty.") : items.back();
}

Value float_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_float", a, {"default"}, 0);
  const Value absent = args[0] != nullptr ? *args[0] : Value(0.0);
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (v.is(Kind::real)) return v;
  if (v.is_integral()) return Value(static_cast<double>(v.integer()));
  double out = 0;
  if ((v.is_string() || v.is(Kind::big_integer)) && parse_real(v.text().bytes, out)) return Value(out);
  return absent;
}

Value integer_of_real(double d, const Value& absent, bool strict) {
  if (std::isnan(d)) return absent;
  if (std::isinf(d)) {
    if (strict) fail("cannot convert float infinity to integer");
    return absent;
  }
  if (std::fabs(d) >= 9.2e18) fail("an integer beyond 64 bits is not supported");
  return Value(static_cast<std::int64_t>(d));
}

Value int_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_int", a, {"default", "base"}, 0);
  const Value absent = args[0] != nullptr ? *args[0] : Value(std::int64_t{0});
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (v.is(Kind::big_integer)) return v;
  if (v.is_integral()) return Value(v.integer());
  if (v.is(Kind::real)) return integer_of_real(v.real(), absent, true);
  if (!v.is_string()) return absent;
  const std::int64_t base = integer_argument(in, args[1], 10);
  std::int64_t out = 0;
  if (base >= 0 && base <= 36 && base != 1 && parse_integer(v.text().bytes, static_cast<int>(base), out)) {
    return Value(out);
  }
  double real = 0;
  return parse_real(v.text().bytes, real) ? integer_of_real(real, absent, false) : absent;
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

Value groupby_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_groupby", a, {"attribute", "default", "case_sensitive"}, 1);
  std::vector<Value> items = iterate(in.heap(), v);
  const auto key_of = [&](const Value& item) { return in.path(item, *args[0], args[1]); };
  const auto keys_of = [&] {
    std::vector<Value> keys;
    keys.reserve(items.size());
    for (const Value& item : items) keys.push_back(sort_key(in, key_of(item), is_true(args[2])));
    return keys;
  };
  sort_by(in.heap(), items, keys_of(), false);
  const std::vector<Value> keys = keys_of();
  std::vector<Value> groups;
  for (std::size_t i = 0; i < items.size();) {
    std::size_t end = i + 1;
    while (end < items.size() && equal(in.heap(), keys[i], keys[end])) ++end;
    std::vector<Value> members(items.begin() + static_cast<std::ptrdiff_t>(i),
                               items.begin() + static_cast<std::ptrdiff_t>(end));
    groups.push_back(in.heap().tuple({key_of(items[i]), in.heap().list(std::move(members))}));
    i = end;
  }
  return in.heap().list(std::move(groups));
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

Value items_filter(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is(Kind::undefined)) return generator(in, {});
  if (!v.is(Kind::dict)) fail("Can only get item pairs from a mapping.");
  std::vector<Value> items;
  for (const auto& [key, value] : as_dict(v).entries) items.push_back(in.heap().tuple({key, value}));
  return generator(in, std::move(items));
}

Value join_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_join", a, {"d", "attribute"}, 0);
  std::vector<Value> items = iterate(in.heap(), v);
  if (args[1] != nullptr && !args[1]->is(Kind::none)) {
    for (Value& item : items) item = in.path(item, *args[1], nullptr);
  }
  const Value separator = args[0] != nullptr ? to_string(in.heap(), *args[0]) : in.heap().string("");
  return join(in.heap(), separator.text(), items, true);
}

Value length_filter(Interpreter& in, const Value& v, const Arguments&) {
  return Value(static_cast<std::int64_t>(length_of(in.heap(), v)));
}

Value list_filter(Interpreter& in, const Value& v, const Arguments&) {
  return in.heap().list(iterate(in.heap(), v));
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

Value map_filter(Interpreter& in, const Value& v, const Arguments& a) {
  if (!truthy(v)) return generator(in, {});  // even None
  std::vector<Value> items = iterate(in.heap(), v);
  if (a.positional.empty() && a.keyword("attribute") != nullptr) {
    for (const auto& [key, value] : a.keywords) {
      if (key != "attribute" && key != "default") fail("Unexpected keyword argument " + quoted(key));
    }
    for (Value& item : items) item = in.path(item, *a.keyword("attribute"), a.keyword("default"));
    return generator(in, std::move(items));
  }
  if (a.positional.empty()) fail("map requires a filter argument");
  const std::string& name = text_of(in, a.positional[0]).bytes;
  Arguments rest;
  rest.positional.assign(a.positional.begin() + 1, a.positional.end());
  rest.keywords = a.keywords;
  for (Value& item : items) item = in.apply_filter(name, item, rest);
  return generator(in, std::move(items));
}

template <bool by_attribute, bool keep>
Value select_filter(Interpreter& in, const Value& v, const Arguments& a) {
  constexpr std::size_t off = by_attribute ? 1 : 0;
  if (!truthy(v)) return generator(in, {});  // even None
  if (a.positional.size() < off) fail("Missing parameter for attribute name");
  Arguments rest;
  std::string_view test;
  if (a.positional.size() > off) {
    test = text_of(in, a.positional[off]).bytes;
    rest.positional.assign(a.positional.begin() + off + 1, a.positional.end());
    rest.keywords = a.keywords;
  }
  std::vector<Value> kept;
  for (const Value& item : iterate(in.heap(), v)) {
    const Value subject = by_attribute ? in.path(item, a.positional[0], nullptr) : item;
    if ((test.data() != nullptr ? in.apply_test(test, subject, rest) : truthy(subject)) == keep)
      kept.push_back(item);
  }
  return generator(in, std::move(kept));
}

template <bool largest>
Value extreme_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind(largest ? "do_max" : "do_min", a, {"case_sensitive", "attribute"}, 0);
  const std::vector<Value> items = iterate(in.heap(), v);
  if (items.empty()) return in.heap().undefined("No aggregated item, sequence was empty.");
  const auto key_of = [&](const Value& item) {
    return sort_key(in, args[1] != nullptr ? in.path(item, *args[1], nullptr) : item, is_true(args[0]));
  };
  Value best = items[0], best_key = key_of(items[0]);
  for (std::size_t i = 1; i < items.size(); ++i) {
    const Value key = key_of(items[i]);
    if (less(in.heap(), key, best_key, largest ? ">" : "<")) {
      best = items[i];
      best_key = key;
    }
  }
  return best;
}

Value replace_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_replace", a, {"old", "new", "count"}, 2);
  const std::int64_t count =
      args[2] == nullptr || args[2]->is(Kind::none) ? -1 : integer_argument(in, args[2], -1);
  return replace(in.heap(), text_of(in, v), text_of(in, *args[0]), text_of(in, *args[1]), count);
}

Value reverse_filter(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_string()) return slice(in.heap(), v, Value(), Value(), Value(std::int64_t{-1}));
  const bool list = is_sequence(v, SequenceType::list);
  if (!v.is(Kind::sequence) && !v.is(Kind::dict) && !v.is(Kind::undefined)) fail("argument must be iterable");
  std::vector<Value> items = iterate(in.heap(), v);
  std::reverse(items.begin(), items.end());
  return in.heap().sequence(list ? SequenceType::reverse_iterator : SequenceType::generator,
                            std::move(items));
}

double round_half_even(double value, std::int64_t precision) {
  if (!std::isfinite(value) || precision > 323) return value;
  if (precision < 0) {
    if (precision < -308) return std::copysign(0.0, value);
    const double unit = std::pow(10.0, static_cast<double>(-precision));
    return std::nearbyint(value / unit) * unit;
  }
  std::array<char, 700> out{};
  std::snprintf(out.data(), out.size(), "%.*f", static_cast<int>(precision), value);
  double rounded = value;
  parse_real(out.data(), rounded);
  return rounded;
}

Value round_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_round", a, {"precision", "method"}, 0);
  const std::int64_t precision = integer_argument(in, args[0], 0);
  const std::string method = args[1] != nullptr && args[1]->is_string() ? args[1]->text().bytes : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    fail("method must be common, ceil or floor");
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (!v.is_integral() && !v.is(Kind::real)) {
    fail("type " + type_name(v) + " doesn't define __round__ method");
  }
  const double value = v.is(Kind::real) ? v.real() : static_cast<double>(v.integer());
  if (method == "common") {
    if (v.is(Kind::real)) return Value(round_half_even(value, precision));
    if (precision >= 0) return Value(v.integer());
    const double rounded = round_half_even(value, precision);
    return integer_of_real(rounded, Value(std::int64_t{0}), true);
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  return Value((method == "ceil" ? std::ceil(value * unit) : std::floor(value * unit)) / unit);
}

Value sort_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_sort", a, {"reverse", "case_sensitive", "attribute"}, 0);
  std::vector<Value> items = iterate(in.heap(), v), keys;
  std::vector<Value> paths;
  if (args[2] != nullptr && args[2]->is_string()) {
    const std::string& bytes = args[2]->text().bytes;
    for (std::size_t begin = 0; begin <= bytes.size();) {
      const std::size_t end = std::min(bytes.find(',', begin), bytes.size());
      paths.push_back(in.heap().string(std::string_view(bytes).substr(begin, end - begin)));
      begin = end + 1;
    }
  } else {
    paths.push_back(args[2] != nullptr ? *args[2] : Value());
  }
  for (const Value& item : items) {
    std::vector<Value> key;
    key.reserve(paths.size());
    for (const Value& path : paths)
      key.push_back(sort_key(in, in.path(item, path, nullptr), is_true(args[1])));
    keys.push_back(in.heap().list(std::move(key)));
  }
  sort_by(in.heap(), items, keys, is_true(args[0]));
  return in.heap().list(std::move(items));
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

Value sum_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_sum", a, {"attribute", "start"}, 0);
  Value total = args[1] != nullptr ? *args[1] : Value(std::int64_t{0});
  if (total.is_string()) fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : iterate(in.heap(), v)) {
    const bool attribute = args[0] != nullptr && !args[0]->is(Kind::none);
    total = add(in.heap(), total, attribute ? in.path(item, *args[0], nullptr) : item);
  }
  return total;
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

Value unique_filter(Interpreter& in, const Value& v, const Arguments& a) {
  const auto args = bind("do_unique", a, {"case_sensitive", "attribute"}, 0);
  const Value seen = in.heap().dict();
  std::vector<Value> kept;
  for (const Value& item : iterate(in.heap(), v)) {
    const Value key =
        sort_key(in, args[1] != nullptr ? in.path(item, *args[1], nullptr) : item, is_true(args[0]));
    if (!hashable(key)) fail("unhashable type: " + quoted(type_name(key)));
    if (find(in.heap(), as_dict(seen), key) != nullptr) continue;
    store(in.heap(), as_dict(seen), key, Value(true));
    kept.push_back(item);
  }
  return generator(in, std::move(kept));
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
  const Value pairs = v.is(Kind::dict) ? items_filter(in, v, {}) : v;
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

template <int which>
Value unsupported_filter(Interpreter&, const Value&, const Arguments&) {
  constexpr std::array<const char*, 4> names = {"pprint", "random", "urlize", "wordwrap"};
  fail("the filter " + quoted(names[which]) + " is not supported");
}

const std::unordered_map<std::string_view, Filter>& filters() {
  static const std::unordered_map<std::string_view, Filter> table = {
      {"abs", abs_filter},
      {"attr", attr_filter},
      {"batch", batch_filter},
      {"capitalize", case_filter<Case::capitalize>},
      {"center", center_filter},
      {"count", length_filter},
      {"d", default_filter},
      {"default", default_filter},
      {"dictsort", dictsort_filter},
      {"e", escape_filter},
      {"escape", escape_filter},
      {"filesizeformat", filesizeformat_filter},
      {"first", first_filter},
      {"float", float_filter},
      {"forceescape", forceescape_filter},
      {"format", format_filter},
      {"groupby", groupby_filter},
      {"indent", indent_filter},
      {"int", int_filter},
      {"items", items_filter},
      {"join", join_filter},
      {"last", last_filter},
      {"length", length_filter},
      {"list", list_filter},
      {"lower", case_filter<Case::lower>},
      {"map", map_filter},
      {"max", extreme_filter<true>},
      {"min", extreme_filter<false>},
      {"pprint", unsupported_filter<0>},
      {"random", unsupported_filter<1>},
      {"reject", select_filter<false, false>},
      {"rejectattr", select_filter<true, false>},
      {"replace", replace_filter},
      {"reverse", reverse_filter},
      {"round", round_filter},
      {"safe", safe_filter},
      {"select", select_filter<false, true>},
      {"selectattr", select_filter<true, true>},
      {"slice", slice_filter},
      {"sort", sort_filter},
      {"string", string_filter},
      {"striptags", striptags_filter},
      {"sum", sum_filter},
      {"title", title_filter},
      {"tojson", tojson_filter},
      {"trim", trim_filter},
      {"truncate", truncate_filter},
      {"unique", unique_filter},
      {"upper", case_filter<Case::upper>},
      {"urlencode", urlencode_filter},
      {"urlize", unsupported_filter<2>},
      {"wordcount", wordcount_filter},
      {"wordwrap", unsupported_filter<3>},
      {"xmlattr", xmlattr_filter},
  };
  return table;
}

// Tests
// ---------------------------------------------------------------------------------------------------------------

const Value& operand(const Arguments& a) { return *bind("test", a, {"other"}, 1)[0]; }

bool parity(Interpreter& in, const Value& v, std::int64_t rest) {
  const Value remainder = modulo(in.heap(), v, Value(std::int64_t{2}));
  return equal(in.heap(), remainder, Value(rest));
}

bool test_sequence(Interpreter&, const Value& v, const Arguments&) {
  if (v.is(Kind::sequence)) return as_sequence(v).subscriptable();
  return v.is_string() || v.is(Kind::dict) || v.is(Kind::undefined);
}

bool test_iterable(Interpreter&, const Value& v, const Arguments&) {
  return v.is_string() || v.is(Kind::dict) || v.is(Kind::undefined) || v.is(Kind::sequence) ||
         v.is(Kind::loop);
}

bool test_number(Interpreter&, const Value& v, const Arguments&) {
  return v.is_integral() || v.is(Kind::big_integer) || v.is(Kind::real);
}

template <char first, bool or_equal>
bool test_order(Interpreter& in, const Value& v, const Arguments& a) {
  constexpr std::array<char, 3> op = {first, or_equal ? '=' : '\0', '\0'};
  return less(in.heap(), v, operand(a), op.data());
}

bool test_equal(Interpreter& in, const Value& v, const Arguments& a) {
  return equal(in.heap(), v, operand(a));
}
bool test_unequal(Interpreter& in, const Value& v, const Arguments& a) {
  return !equal(in.heap(), v, operand(a));
}

const std::unordered_map<std::string_view, Test>& tests() {
  using A = Arguments;
  using I = Interpreter;
  using V = Value;
  static const std::unordered_map<std::string_view, Test> table = {
      {"odd", [](I& in, const V& v, const A&) { return parity(in, v, 1); }},
      {"even", [](I& in, const V& v, const A&) { return parity(in, v, 0); }},
      {"divisibleby",
       [](I& in, const V& v, const A& a) {
         return equal(in.heap(), modulo(in.heap(), v, operand(a)), V(std::int64_t{0}));
       }},
      {"defined", [](I&, const V& v, const A&) { return !v.is(Kind::undefined); }},
      {"undefined", [](I&, const V& v, const A&) { return v.is(Kind::undefined); }},
      {"filter", [](I&, const V& v, const A&) { return v.is_string() && is_filter(v.text().bytes); }},
      {"test", [](I&, const V& v, const A&) { return v.is_string() && is_test(v.text().bytes); }},
      {"none", [](I&, const V& v, const A&) { return v.is(Kind::none); }},
      {"boolean", [](I&, const V& v, const A&) { return v.is(Kind::boolean); }},
      {"false", [](I&, const V& v, const A&) { return v.is(Kind::boolean) && !v.boolean(); }},
      {"true", [](I&, const V& v, const A&) { return v.is(Kind::boolean) && v.boolean(); }},
      {"integer", [](I&, const V& v, const A&) { return v.is(Kind::integer) || v.is(Kind::big_integer); }},
      {"float", [](I&, const V& v, const A&) { return v.is(Kind::real); }},
      {"lower", [](I& in, const V& v, const A&) { return is_lower_text(text_of(in, v)); }},
      {"upper", [](I& in, const V& v, const A&) { return is_upper_text(text_of(in, v)); }},
      {"string", [](I&, const V& v, const A&) { return v.is_string(); }},
      {"mapping", [](I&, const V& v, const A&) { return v.is(Kind::dict); }},
      {"number", test_number},
      {"sequence", test_sequence},
      {"iterable", test_iterable},
      {"callable",
       [](I&, const V& v, const A&) {
         return v.is(Kind::callable) || v.is(Kind::loop) || v.is(Kind::undefined);
       }},
      {"sameas", [](I&, const V& v, const A& a) { return v.same_as(operand(a)); }},
      {"escaped", [](I&, const V& v, const A&) { return v.is_string() && v.text().markup; }},
      {"in", [](I& in, const V& v, const A& a) { return contains(in.heap(), operand(a), v); }},
      {"==", test_equal},
      {"eq", test_equal},
      {"equalto", test_equal},
      {"!=", test_unequal},
      {"ne", test_unequal},
      {">", test_order<'>', false>},
      {"gt", test_order<'>', false>},
      {"greaterthan", test_order<'>', false>},
      {"ge", test_order<'>', true>},
      {">=", test_order<'>', true>},
      {"<", test_order<'<', false>},
      {"lt", test_order<'<', false>},
      {"lessthan", test_order<'<', false>},
      {"<=", test_order<'<', true>},
      {"le", test_order<'<', true>},
  };
  return table;
}

}  // namespace

bool is_filter(std::string_view name) { return filters().count(name) > 0; }
bool is_test(std::string_view name) { return tests().count(name) > 0; }

Value Interpreter::apply_filter(std::string_view name, const Value& value, const Arguments& arguments) {
  budget().step();
  const auto found = filters().find(name);
  if (found == filters().end()) fail("No filter named " + quoted(name) + ".");
  const Deeper deeper(*this);  // map can name itself
  return found->second(*this, value, arguments);
}

bool Interpreter::apply_test(std::string_view name, const Value& value, const Arguments& arguments) {
  budget().step();
  const auto found = tests().find(name);
  if (found == tests().end()) fail("No test named " + quoted(name) + ".");
  static constexpr std::array<std::string_view, 18> with_operand = {
      "divisibleby", "sameas",      "in", "==", "eq", "equalto", "!=",       "ne", ">",
      "gt",          "greaterthan", "ge", ">=", "<",  "lt",      "lessthan", "<=", "le"};
  const std::size_t given = arguments.positional.size() + arguments.keywords.size();
  if (given > 0 && std::find(with_operand.begin(), with_operand.end(), name) == with_operand.end()) {
    fail("test_" + std::string(name) + "() takes 1 positional argument but " + std::to_string(given + 1) +
         " were given");
  }
  return found->second(*this, value, arguments);
}

}  // namespace ttt::inline v2::jinja

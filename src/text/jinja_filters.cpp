// jinja2's built-in filters of numbers, sequences and mappings.
#include "text/jinja_filters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

namespace ttt::inline v2::jinja {

bool is_true(const Value* v) { return v != nullptr && truthy(*v); }

std::int64_t integer_argument(Interpreter& in, const Value* v, std::int64_t absent) {
  if (v == nullptr) return absent;
  if (v->is(Kind::undefined)) fail_undefined(in.heap(), *v);
  if (!v->is_integral()) fail(quoted(type_name(*v)) + " object cannot be interpreted as an integer");
  return v->integer();
}

const Text& text_of(Interpreter& in, const Value& v) { return to_string(in.heap(), v).text(); }

const Text& require_text(Interpreter& in, const Value& v, const char* method) {
  if (v.is(Kind::undefined)) fail_undefined(in.heap(), v);
  if (!v.is_string()) fail(quoted(type_name(v)) + " object has no attribute " + quoted(method));
  return v.text();
}

namespace {

// What ignore_case of jinja2 makes of a key.
Value sort_key(Interpreter& in, const Value& v, bool case_sensitive) {
  return !case_sensitive && v.is_string() ? change_case(in.heap(), v.text(), Case::lower) : v;
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

template <int which>
Value unsupported_filter(Interpreter&, const Value&, const Arguments&) {
  constexpr std::array<const char*, 4> names = {"pprint", "random", "urlize", "wordwrap"};
  fail("the filter " + quoted(names[which]) + " is not supported");
}

const std::unordered_map<std::string_view, Filter>& filters() {
  static const auto table = [] {
    std::unordered_map<std::string_view, Filter> all = {
        {"abs", abs_filter},
        {"attr", attr_filter},
        {"batch", batch_filter},
        {"count", length_filter},
        {"d", default_filter},
        {"default", default_filter},
        {"dictsort", dictsort_filter},
        {"first", first_filter},
        {"float", float_filter},
        {"groupby", groupby_filter},
        {"int", int_filter},
        {"items", items_filter},
        {"join", join_filter},
        {"last", last_filter},
        {"length", length_filter},
        {"list", list_filter},
        {"map", map_filter},
        {"max", extreme_filter<true>},
        {"min", extreme_filter<false>},
        {"pprint", unsupported_filter<0>},
        {"random", unsupported_filter<1>},
        {"reject", select_filter<false, false>},
        {"rejectattr", select_filter<true, false>},
        {"reverse", reverse_filter},
        {"round", round_filter},
        {"select", select_filter<false, true>},
        {"selectattr", select_filter<true, true>},
        {"slice", slice_filter},
        {"sort", sort_filter},
        {"sum", sum_filter},
        {"unique", unique_filter},
        {"urlize", unsupported_filter<2>},
        {"wordwrap", unsupported_filter<3>},
    };
    all.insert(text_filters().begin(), text_filters().end());
    return all;
  }();
  return table;
}

}  // namespace

bool is_filter(std::string_view name) { return filters().count(name) > 0; }

Value Interpreter::apply_filter(std::string_view name, const Value& value, const Arguments& arguments) {
  budget().step();
  const auto found = filters().find(name);
  if (found == filters().end()) fail("No filter named " + quoted(name) + ".");
  const Deeper deeper(*this);  // map can name itself
  return found->second(*this, value, arguments);
}

}  // namespace ttt::inline v2::jinja

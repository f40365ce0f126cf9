#include "text/jinja_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "text/jinja_unicode.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

void fail(std::string message) { throw Failure{std::move(message)}; }

void Budget::out_of_steps() const {
  fail("the template takes more than " + std::to_string(limits.steps) + " steps (limit: steps)");
}
void Budget::out_of_memory() const {
  fail("the template makes more than " + std::to_string(limits.memory_bytes) +
       " bytes of strings and lists (limit: memory_bytes)");
}
void Budget::too_deep() const {
  fail("values or macro calls are nested deeper than " + std::to_string(limits.depth) + " (limit: depth)");
}

namespace {

constexpr const char* integer_range = "an integer beyond 64 bits is not supported";

bool ascii_only(std::string_view s) {
  return std::none_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

}  // namespace

bool Value::same_as(const Value& other) const {
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::none:
      return true;
    case Kind::boolean:
    case Kind::integer:
      return integer_ == other.integer_;
    case Kind::real:
      return real_ == other.real_;
    default:
      return object_ == other.object_;
  }
}

// TextBuilder
// ---------------------------------------------------------------------------------------------------------

void TextBuilder::grow(std::size_t bytes) {
  if (budget_ != nullptr) budget_->memory(bytes);
  if (bytes > output_limit_ - std::min(output_limit_, bytes_.size())) {
    fail("the prompt is longer than " + std::to_string(output_limit_) + " bytes (limit: output_bytes)");
  }
}

void TextBuilder::mark(std::size_t begin, std::size_t end) {
  if (begin == end) return;
  if (!untrusted_.empty() && untrusted_.back().second == begin) {
    untrusted_.back().second = end;
  } else {
    if (budget_ != nullptr) budget_->memory(sizeof(untrusted_[0]));
    untrusted_.emplace_back(begin, end);
  }
}

void TextBuilder::add(std::string_view bytes, bool untrusted) {
  grow(bytes.size());
  if (untrusted) mark(bytes_.size(), bytes_.size() + bytes.size());
  bytes_ += bytes;
}

void TextBuilder::add(const Text& text, std::size_t begin, std::size_t end) {
  grow(end - begin);
  const std::size_t base = bytes_.size();
  auto range = std::lower_bound(text.untrusted.begin(), text.untrusted.end(), begin,
                                [](const auto& r, std::size_t b) { return r.second <= b; });
  for (; range != text.untrusted.end() && range->first < end; ++range) {
    mark(base + std::max(range->first, begin) - begin, base + std::min(range->second, end) - begin);
  }
  bytes_.append(text.bytes, begin, end - begin);
}

void TextBuilder::repeat(std::string_view bytes, std::size_t times) {
  if (bytes.empty()) return;
  if (times > std::numeric_limits<std::size_t>::max() / 2 / bytes.size()) fail("a string is too long");
  grow(bytes.size() * times);
  for (std::size_t i = 0; i < times; ++i) bytes_ += bytes;
}

// Heap
// ----------------------------------------------------------------------------------------------------------------

Value Heap::string(std::string_view trusted) { return string(trusted, false); }

Value Heap::string(std::string_view bytes, bool untrusted) {
  auto* text = make<Text>();
  budget_->memory(bytes.size());
  text->bytes = bytes;
  text->ascii = ascii_only(bytes);
  if (untrusted && !bytes.empty()) text->untrusted = {{0, bytes.size()}};
  return Value(text);
}

Value Heap::string(TextBuilder&& builder, bool markup) {  // the builder has paid for the bytes
  auto* text = make<Text>();
  text->bytes = std::move(builder.bytes_);
  text->untrusted = std::move(builder.untrusted_);
  text->ascii = ascii_only(text->bytes);
  text->markup = markup;
  return Value(text);
}

Value Heap::slice(const Text& text, std::size_t begin, std::size_t end) {
  if (begin == 0 && end == text.bytes.size()) return Value(&text);
  TextBuilder builder(budget_);
  builder.add(text, begin, end);
  return string(std::move(builder), text.markup);
}

Value Heap::sequence(SequenceType type, std::vector<Value> items) {
  auto* sequence = make<Sequence>();
  budget_->memory(items.size() * sizeof(Value));
  sequence->type = type;
  sequence->items = std::move(items);
  return Value(Kind::sequence, sequence);
}

Value Heap::dict() { return Value(Kind::dict, make<Dict>()); }

Value Heap::undefined(std::string hint) {
  auto* undefined = make<Undefined>();
  budget_->memory(hint.size());
  undefined->hint = std::move(hint);
  return Value(Kind::undefined, undefined);
}

Value Heap::undefined_name(std::string_view name) { return undefined(quoted(name) + " is undefined"); }

Value Heap::undefined_of(Value owner, Value name) {
  auto* undefined = make<Undefined>();
  undefined->owner = owner;
  undefined->has_owner = true;
  undefined->name = name;
  return Value(Kind::undefined, undefined);
}

// What a value is
// -----------------------------------------------------------------------------------------------------

std::string type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
    case Kind::big_integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return v.text().markup ? "Markup" : "str";
    case Kind::sequence:
      switch (as_sequence(v).type) {
        case SequenceType::list:
          return "list";
        case SequenceType::tuple:
          return "tuple";
        case SequenceType::range:
          return "range";
        case SequenceType::dict_keys:
          return "dict_keys";
        case SequenceType::dict_values:
          return "dict_values";
        case SequenceType::dict_items:
          return "dict_items";
        case SequenceType::generator:
          return "generator";
        case SequenceType::reverse_iterator:
          return "list_reverseiterator";
      }
      return "list";
    case Kind::dict:
      return "dict";
    case Kind::name_space:
      return "TemplateNamespace";
    case Kind::callable:
      return "function";
    case Kind::loop:
      return "LoopContext";
  }
  return "object";
}

std::string undefined_message(Heap& heap, const Value& v) {
  const Undefined& undefined = as_undefined(v);
  if (!undefined.has_owner) return undefined.hint;
  std::string owner;
  switch (undefined.owner.kind()) {
    case Kind::none:
      owner = "None";
      break;
    case Kind::name_space:
      owner = "transformers.utils.chat_template_utils.TemplateNamespace object";
      break;
    case Kind::callable:
      owner = "callable object";
      break;
    case Kind::loop:
      owner = "jinja2.runtime.LoopContext object";
      break;
    case Kind::string:
      owner = undefined.owner.text().markup ? "markupsafe.Markup object" : "str object";
      break;
    default:
      owner = type_name(undefined.owner) + " object";
  }
  if (!undefined.name.is_string()) return owner + " has no element " + repr(heap, undefined.name);
  return quoted(owner) + " has no attribute " + repr(heap, undefined.name);
}

void fail_undefined(Heap& heap, const Value& v) { fail(undefined_message(heap, v)); }

bool truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return v.integer() != 0;
    case Kind::real:
      return v.real() != 0;
    case Kind::string:
      return !v.text().bytes.empty();
    case Kind::sequence:
      return as_sequence(v).once() || !as_sequence(v).items.empty();
    case Kind::dict:
      return !as_dict(v).entries.empty();
    default:
      return true;
  }
}

bool hashable(const Value& v) {
  if (v.is(Kind::dict)) return false;
  if (!v.is(Kind::sequence)) return true;
  const Sequence& s = as_sequence(v);
  if (s.type == SequenceType::list || s.type == SequenceType::dict_keys ||
      s.type == SequenceType::dict_items) {
    return false;
  }
  return s.type != SequenceType::tuple || std::all_of(s.items.begin(), s.items.end(), hashable);
}

std::size_t code_points(Heap& heap, const Text& text) {
  if (text.ascii) return text.bytes.size();
  heap.budget().work(text.bytes.size());
  return static_cast<std::size_t>(std::count_if(text.bytes.begin(), text.bytes.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::vector<std::size_t> character_offsets(Heap& heap, const Text& text) {
  heap.budget().step(1 + text.bytes.size() / 8);
  heap.budget().memory(text.bytes.size());
  std::vector<std::size_t> offsets;
  offsets.reserve(text.bytes.size() + 1);
  for (std::size_t i = 0; i < text.bytes.size(); ++i) {
    if ((static_cast<unsigned char>(text.bytes[i]) & 0xC0) != 0x80) offsets.push_back(i);
  }
  offsets.push_back(text.bytes.size());
  return offsets;
}

std::size_t length_of(Heap& heap, const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      return code_points(heap, v.text());
    case Kind::sequence:
      if (!as_sequence(v).once()) return as_sequence(v).items.size();
      break;
    case Kind::dict:
      return as_dict(v).entries.size();
    default:
      break;
  }
  fail("object of type " + quoted(type_name(v)) + " has no len()");
}

std::vector<Value> iterate(Heap& heap, const Value& v) {
  std::vector<Value> items;
  switch (v.kind()) {
    case Kind::undefined:
      return items;
    case Kind::string: {
      const auto offsets = character_offsets(heap, v.text());
      items.reserve(offsets.size());
      for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        items.push_back(heap.slice(v.text(), offsets[i], offsets[i + 1]));
      }
      return items;
    }
    case Kind::sequence: {
      Sequence& s = as_sequence(v);
      heap.budget().step(s.items.size() - s.next);
      heap.budget().memory((s.items.size() - s.next) * sizeof(Value));
      items.assign(s.items.begin() + static_cast<std::ptrdiff_t>(s.next), s.items.end());
      if (s.once()) s.next = s.items.size();
      return items;
    }
    case Kind::dict: {
      const Dict& d = as_dict(v);
      heap.budget().step(d.entries.size());
      heap.budget().memory(d.entries.size() * sizeof(Value));
      items.reserve(d.entries.size());
      for (const auto& entry : d.entries) items.push_back(entry.first);
      return items;
    }
    default:
      fail(quoted(type_name(v)) + " object is not iterable");
  }
}

// Dictionaries
// --------------------------------------------------------------------------------------------------------

namespace {
constexpr std::size_t indexed_from = 12;

std::size_t position(Heap& heap, const Dict& dict, const Value& key) {
  if (key.is_string() && !dict.index.empty()) {
    const auto found = dict.index.find(key.text().bytes);
    if (found != dict.index.end()) return found->second;
    return dict.entries.size();
  }
  heap.budget().step(1 + dict.entries.size() / 4);
  for (std::size_t i = 0; i < dict.entries.size(); ++i) {
    if (equal(heap, dict.entries[i].first, key)) return i;
  }
  return dict.entries.size();
}
}  // namespace

const Value* find(Heap& heap, const Dict& dict, const Value& key) {
  const std::size_t i = position(heap, dict, key);
  return i < dict.entries.size() ? &dict.entries[i].second : nullptr;
}

const Value* find(const Dict& dict, std::string_view key) {
  for (const auto& entry : dict.entries) {
    if (entry.first.is_string() && entry.first.text().bytes == key) return &entry.second;
  }
  return nullptr;
}

void store(Heap& heap, Dict& dict, const Value& key, const Value& value) {
  if (!hashable(key)) fail("unhashable type: " + quoted(type_name(key)));
  const std::size_t i = position(heap, dict, key);
  if (i < dict.entries.size()) {
    dict.entries[i].second = value;
    return;
  }
  heap.budget().memory(sizeof(dict.entries[0]) + 48);
  dict.entries.emplace_back(key, value);
  if (!dict.index.empty()) {
    if (key.is_string()) dict.index.emplace(key.text().bytes, i);
  } else if (dict.entries.size() > indexed_from) {
    for (std::size_t j = 0; j < dict.entries.size(); ++j) {
      if (dict.entries[j].first.is_string()) dict.index.emplace(dict.entries[j].first.text().bytes, j);
    }
  }
}

// Comparison
// ----------------------------------------------------------------------------------------------------------

bool equal(Heap& heap, const Value& a, const Value& b, int depth) {
  Budget& budget = heap.budget();
  budget.step();
  if (depth > budget.depth_limit) budget.too_deep();
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is(Kind::real) && b.is(Kind::real)) return a.real() == b.real();
  if (a.is(Kind::real) && b.is_integral()) return a.real() == static_cast<double>(b.integer());
  if (a.is_integral() && b.is(Kind::real)) return static_cast<double>(a.integer()) == b.real();
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
    case Kind::big_integer:
      budget.work(std::min(a.text().bytes.size(), b.text().bytes.size()));
      return a.text().bytes == b.text().bytes;
    case Kind::sequence: {
      if (a.object() == b.object()) return true;
      const Sequence &x = as_sequence(a), &y = as_sequence(b);
      if (x.type != y.type || x.once() || x.type == SequenceType::dict_values ||
          x.items.size() != y.items.size()) {
        return false;
      }
      for (std::size_t i = 0; i < x.items.size(); ++i) {
        if (!equal(heap, x.items[i], y.items[i], depth + 1)) return false;
      }
      return true;
    }
    case Kind::dict: {
      if (a.object() == b.object()) return true;
      const Dict &x = as_dict(a), &y = as_dict(b);
      if (x.entries.size() != y.entries.size()) return false;
      for (const auto& [key, value] : x.entries) {
        const Value* other = find(heap, y, key);
        if (other == nullptr || !equal(heap, value, *other, depth + 1)) return false;
      }
      return true;
    }
    default:
      return a.object() == b.object();
  }
}

bool less(Heap& heap, const Value& a, const Value& b, const char* op, int depth) {
  Budget& budget = heap.budget();
  budget.step();
  if (depth > budget.depth_limit) budget.too_deep();
  if (a.is(Kind::undefined)) fail_undefined(heap, a);
  if (b.is(Kind::undefined)) fail_undefined(heap, b);
  const bool greater = op[0] == '>', or_equal = op[1] == '=';
  const auto decide = [&](const auto& x, const auto& y) {
    return or_equal ? (greater ? x >= y : x <= y) : (greater ? x > y : x < y);
  };
  const auto number = [](const Value& v) {
    return v.is(Kind::real) ? v.real() : static_cast<double>(v.integer());
  };
  if (a.is_integral() && b.is_integral()) return decide(a.integer(), b.integer());
  if ((a.is_integral() || a.is(Kind::real)) && (b.is_integral() || b.is(Kind::real)))
    return decide(number(a), number(b));
  if (a.is_string() && b.is_string()) {  // UTF-8 keeps the order of code points
    budget.work(std::min(a.text().bytes.size(), b.text().bytes.size()));
    return decide(a.text().bytes.compare(b.text().bytes), 0);
  }
  if (a.is(Kind::sequence) && b.is(Kind::sequence)) {
    const Sequence &x = as_sequence(a), &y = as_sequence(b);
    if (x.type == y.type && (x.type == SequenceType::list || x.type == SequenceType::tuple)) {
      const std::size_t n = std::min(x.items.size(), y.items.size());
      for (std::size_t i = 0; i < n; ++i) {
        if (!equal(heap, x.items[i], y.items[i], depth + 1))
          return less(heap, x.items[i], y.items[i], op, depth + 1);
      }
      return decide(x.items.size(), y.items.size());
    }
  }
  fail(quoted(op) + " not supported between instances of " + quoted(type_name(a)) + " and " +
       quoted(type_name(b)));
}

bool contains(Heap& heap, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::undefined:
      return false;
    case Kind::string: {
      if (item.is(Kind::undefined) || !item.is_string()) {
        fail("'in <string>' requires string as left operand, not " + type_name(item));
      }
      heap.budget().work(container.text().bytes.size());
      return container.text().bytes.find(item.text().bytes) != std::string::npos;
    }
    case Kind::dict:
      if (!hashable(item)) fail("unhashable type: " + quoted(type_name(item)));
      return find(heap, as_dict(container), item) != nullptr;
    case Kind::sequence: {
      Sequence& s = as_sequence(container);
      for (std::size_t i = s.next; i < s.items.size(); ++i) {
        if (s.once()) s.next = i + 1;
        if (s.items[i].same_as(item) || equal(heap, s.items[i], item)) return true;
      }
      return false;
    }
    default:
      fail("argument of type " + quoted(type_name(container)) + " is not iterable");
  }
}

void sort_by(Heap& heap, std::vector<Value>& items, std::vector<Value> keys, bool reverse) {
  // A merge sort of our own: comparisons may throw, and NaN makes them inconsistent, which std::sort may not
  // see.
  const std::size_t n = items.size();
  std::vector<std::size_t> order(n), merged(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = i;
  heap.budget().memory(2 * n * sizeof(std::size_t));
  const auto before = [&](std::size_t a, std::size_t b) {
    return reverse ? less(heap, keys[b], keys[a]) : less(heap, keys[a], keys[b]);
  };
  for (std::size_t width = 1; width < n; width *= 2) {
    for (std::size_t low = 0; low < n; low += 2 * width) {
      const std::size_t middle = std::min(low + width, n), high = std::min(low + 2 * width, n);
      std::size_t left = low, right = middle, out = low;
      while (left < middle && right < high) {
        merged[out++] = before(order[right], order[left]) ? order[right++] : order[left++];
      }
      while (left < middle) merged[out++] = order[left++];
      while (right < high) merged[out++] = order[right++];
    }
    order.swap(merged);
  }
  std::vector<Value> sorted;
  sorted.reserve(n);
  for (std::size_t i : order) sorted.push_back(items[i]);
  items = std::move(sorted);
}

// Text of values
// ------------------------------------------------------------------------------------------------------

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

// Operators
// -----------------------------------------------------------------------------------------------------------

namespace {

bool numeric(const Value& v) { return v.is_integral() || v.is(Kind::real); }
double as_real(const Value& v) { return v.is(Kind::real) ? v.real() : static_cast<double>(v.integer()); }

void check_operands(Heap& heap, const Value& a, const Value& b) {
  if (a.is(Kind::undefined)) fail_undefined(heap, a);
  if (b.is(Kind::undefined)) fail_undefined(heap, b);
  if (a.is(Kind::big_integer) || b.is(Kind::big_integer)) fail(integer_range);
}

[[noreturn]] void fail_operands(const char* op, const Value& a, const Value& b) {
  fail("unsupported operand type(s) for " + std::string(op) + ": " + quoted(type_name(a)) + " and " +
       quoted(type_name(b)));
}

bool is_list_or_tuple(const Value& v) {
  return is_sequence(v, SequenceType::list) || is_sequence(v, SequenceType::tuple);
}

Value repeated(Heap& heap, const Value& v, std::int64_t count) {
  const auto times = static_cast<std::size_t>(std::max<std::int64_t>(0, count));
  if (v.is_string()) {
    const Text& text = v.text();
    TextBuilder out(&heap.budget());
    if (text.untrusted.empty()) {
      out.repeat(text.bytes, times);
    } else {
      for (std::size_t i = 0; i < times; ++i) {
        heap.budget().step();
        out.add(text);
      }
    }
    return heap.string(std::move(out), text.markup);
  }
  const Sequence& s = as_sequence(v);
  if (!s.items.empty() && times > heap.budget().memory_left / sizeof(Value) / s.items.size()) {
    heap.budget().out_of_memory();
  }
  std::vector<Value> items;
  items.reserve(s.items.size() * times);
  for (std::size_t i = 0; i < (s.items.empty() ? 0 : times); ++i) {
    items.insert(items.end(), s.items.begin(), s.items.end());
  }
  return heap.sequence(s.type, std::move(items));
}

// Floor of a / b for b != 0.
double floor_real(double a, double b, double& remainder) {
  remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0 && (b < 0) != (remainder < 0)) {
    remainder += b;
    quotient -= 1;
  }
  if (remainder == 0) remainder = std::copysign(0.0, b);
  if (quotient == 0) return std::copysign(0.0, a / b);
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return floored;
}

}  // namespace

Value add(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_string() && b.is_string()) {
    const bool markup = a.text().markup || b.text().markup;
    TextBuilder out(&heap.budget());
    out.bytes_.reserve(markup ? 0 : a.text().bytes.size() + b.text().bytes.size());
    for (const Value* side : {&a, &b}) {
      if (markup) {
        append_escaped(heap, out, *side);
      } else {
        out.add(side->text());
      }
    }
    return heap.string(std::move(out), markup);
  }
  if (a.is_integral() && b.is_integral()) {
    std::int64_t sum = 0;
    if (__builtin_add_overflow(a.integer(), b.integer(), &sum)) fail(integer_range);
    return Value(sum);
  }
  if (numeric(a) && numeric(b)) return Value(as_real(a) + as_real(b));
  if (is_list_or_tuple(a) && b.is(Kind::sequence) && as_sequence(a).type == as_sequence(b).type) {
    const auto &x = as_sequence(a).items, &y = as_sequence(b).items;
    std::vector<Value> items;
    heap.budget().memory((x.size() + y.size()) * sizeof(Value));
    items.reserve(x.size() + y.size());
    items.insert(items.end(), x.begin(), x.end());
    items.insert(items.end(), y.begin(), y.end());
    return heap.sequence(as_sequence(a).type, std::move(items));
  }
  if (a.is_string()) fail("can only concatenate str (not \"" + type_name(b) + "\") to str");
  if (is_list_or_tuple(a)) {
    fail("can only concatenate " + type_name(a) + " (not \"" + type_name(b) + "\") to " + type_name(a));
  }
  fail_operands("+", a, b);
}

Value subtract(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    std::int64_t difference = 0;
    if (__builtin_sub_overflow(a.integer(), b.integer(), &difference)) fail(integer_range);
    return Value(difference);
  }
  if (numeric(a) && numeric(b)) return Value(as_real(a) - as_real(b));
  fail_operands("-", a, b);
}

Value multiply(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    std::int64_t product = 0;
    if (__builtin_mul_overflow(a.integer(), b.integer(), &product)) fail(integer_range);
    return Value(product);
  }
  if (numeric(a) && numeric(b)) return Value(as_real(a) * as_real(b));
  if ((a.is_string() || is_list_or_tuple(a)) && b.is_integral()) return repeated(heap, a, b.integer());
  if ((b.is_string() || is_list_or_tuple(b)) && a.is_integral()) return repeated(heap, b, a.integer());
  if (a.is_string() || is_list_or_tuple(a))
    fail("can't multiply sequence by non-int of type " + quoted(type_name(b)));
  if (b.is_string() || is_list_or_tuple(b))
    fail("can't multiply sequence by non-int of type " + quoted(type_name(a)));
  fail_operands("*", a, b);
}

Value divide(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (!numeric(a) || !numeric(b)) fail_operands("/", a, b);
  if (as_real(b) == 0)
    fail(a.is(Kind::real) || b.is(Kind::real) ? "float division by zero" : "division by zero");
  return Value(as_real(a) / as_real(b));
}

Value floor_divide(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    const std::int64_t x = a.integer(), y = b.integer();
    if (y == 0) fail("integer division or modulo by zero");
    if (x == std::numeric_limits<std::int64_t>::min() && y == -1) fail(integer_range);
    return Value(x / y - (x % y != 0 && (x < 0) != (y < 0) ? 1 : 0));
  }
  if (!numeric(a) || !numeric(b)) fail_operands("//", a, b);
  if (as_real(b) == 0) fail("float floor division by zero");
  double remainder = 0;
  return Value(floor_real(as_real(a), as_real(b), remainder));
}

Value modulo(Heap& heap, const Value& a, const Value& b) {
  if (a.is_string()) return percent_format(heap, a.text(), b);
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    const std::int64_t x = a.integer(), y = b.integer();
    if (y == 0) fail("integer modulo by zero");
    if (y == -1) return Value(std::int64_t{0});
    const std::int64_t r = x % y;
    return Value(r != 0 && (r < 0) != (y < 0) ? r + y : r);
  }
  if (!numeric(a) || !numeric(b)) fail_operands("%", a, b);
  if (as_real(b) == 0) fail("float modulo");
  double remainder = 0;
  floor_real(as_real(a), as_real(b), remainder);
  return Value(remainder);
}

Value power(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (!numeric(a) || !numeric(b)) fail_operands("** or pow()", a, b);
  if (a.is_integral() && b.is_integral() && b.integer() >= 0) {
    std::int64_t base = a.integer(), result = 1;
    for (std::int64_t n = b.integer(); n > 0; n >>= 1) {
      if ((n & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail(integer_range);
      if (n > 1 && __builtin_mul_overflow(base, base, &base)) fail(integer_range);
    }
    return Value(result);
  }
  if (as_real(a) == 0 && as_real(b) < 0) fail("0.0 cannot be raised to a negative power");
  const double result = std::pow(as_real(a), as_real(b));
  if (std::isnan(result) && !std::isnan(as_real(a)) && !std::isnan(as_real(b))) {
    fail("a complex number is not supported");
  }
  if (std::isinf(result) && std::isfinite(as_real(a)) && std::isfinite(as_real(b))) {
    fail("(34, 'Numerical result out of range')");
  }
  return Value(result);
}

Value negate(Heap& heap, const Value& a, bool minus) {
  if (a.is(Kind::undefined)) fail_undefined(heap, a);
  if (a.is(Kind::big_integer)) fail(integer_range);
  if (a.is(Kind::real)) return Value(minus ? -a.real() : a.real());
  if (!a.is_integral())
    fail("bad operand type for unary " + std::string(minus ? "-" : "+") + ": " + quoted(type_name(a)));
  if (!minus) return Value(a.integer());
  if (a.integer() == std::numeric_limits<std::int64_t>::min()) fail(integer_range);
  return Value(-a.integer());
}

Value slice(Heap& heap, const Value& v, const Value& start, const Value& stop, const Value& step) {
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->is(Kind::none) && !bound->is_integral()) {
      if (v.is_string() || is_list_or_tuple(v) || is_sequence(v, SequenceType::range)) {
        fail("slice indices must be integers or None or have an __index__ method");
      }
    }
  }
  std::vector<std::size_t> offsets;
  std::int64_t n = 0;
  if (v.is_string()) {
    if (v.text().ascii) {
      n = static_cast<std::int64_t>(v.text().bytes.size());
    } else {
      offsets = character_offsets(heap, v.text());
      n = static_cast<std::int64_t>(offsets.size()) - 1;
    }
  } else {
    n = static_cast<std::int64_t>(as_sequence(v).items.size());
  }
  const std::int64_t by = step.is(Kind::none) ? 1 : step.integer();
  if (by == 0) fail("slice step cannot be zero");
  const std::int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
  const auto clamp = [&](const Value& bound, std::int64_t absent) {
    if (bound.is(Kind::none)) return absent;
    std::int64_t i = bound.integer();
    if (i < 0) i = i < -n ? low : i + n;
    return std::clamp(i, low, high);
  };
  const std::int64_t first = clamp(start, by > 0 ? 0 : n - 1), last = clamp(stop, by > 0 ? n : -1);
  const auto offset = [&](std::int64_t i) {
    return v.text().ascii ? static_cast<std::size_t>(i) : offsets[static_cast<std::size_t>(i)];
  };
  if (v.is_string() && by == 1) {
    if (first >= last) return heap.slice(v.text(), 0, 0);
    return heap.slice(v.text(), offset(first), offset(last));
  }
  TextBuilder out(&heap.budget());
  std::vector<Value> items;
  for (std::int64_t i = first; by > 0 ? i < last : i > last;) {
    heap.budget().step();
    if (v.is_string()) {
      out.add(v.text(), offset(i), offset(i + 1));
    } else {
      items.push_back(as_sequence(v).items[static_cast<std::size_t>(i)]);
    }
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  if (v.is_string()) return heap.string(std::move(out), v.text().markup);
  return heap.sequence(is_sequence(v, SequenceType::range) ? SequenceType::list : as_sequence(v).type,
                       std::move(items));
}

bool parse_integer(std::string_view text, int base, std::int64_t& out) {
  text.remove_prefix(leading_space(text));
  text.remove_suffix(trailing_space(text));
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  bool prefixed = false;
  if (text.size() > 1 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix != 0 && (base == prefix || base == 0)) {
      base = prefix;
      prefixed = true;
      text.remove_prefix(2);
    } else if (base == 0 && text.find_first_not_of("0_") != std::string_view::npos) {
      return false;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return false;
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_') {
      const bool between = (i > 0 || prefixed) && i + 1 < text.size() && text[i + 1] != '_';
      if (!between) return false;
    } else {
      digits += text[i];
    }
  }
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return false;
  std::uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
  if (end != digits.data() + digits.size()) return false;
  const auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (error != std::errc() || magnitude > limit) fail(integer_range);
  out = negative ? -static_cast<std::int64_t>(magnitude) : static_cast<std::int64_t>(magnitude);
  return true;
}

bool parse_real(std::string_view text, double& out) {
  text.remove_prefix(leading_space(text));
  text.remove_suffix(trailing_space(text));
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] != '_') {
      plain += text[i];
    } else if (i == 0 || !digit(i - 1) || !digit(i + 1)) {
      return false;
    }
  }
  std::string_view rest = plain;
  bool negative = false;
  if (!rest.empty() && (rest[0] == '+' || rest[0] == '-')) {
    negative = rest[0] == '-';
    rest.remove_prefix(1);
  }
  if (rest.empty() || rest[0] == '-' || rest[0] == '+') return false;
  double value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (end != rest.data() + rest.size()) return false;
  if (rest.find('(') != std::string_view::npos) return false;  // nan(...)
  if (error == std::errc::result_out_of_range) {
    const std::size_t e = rest.find_first_of("eE");
    value = e != std::string_view::npos && e + 1 < rest.size() && rest[e + 1] == '-'
                ? 0.0
                : std::numeric_limits<double>::infinity();
  } else if (error != std::errc()) {
    return false;
  }
  out = negative ? -value : value;
  return true;
}

}  // namespace ttt::inline v2::jinja

#include "text/jinja_value.h"

#include <algorithm>
#include <cstring>
#include <limits>

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

}  // namespace ttt::inline v2::jinja

// Values of the template language: Python's, as far as a template can see them. Objects live in a Heap until
// the render ends, so that a value is two words and cycles (a namespace that holds itself) need no care.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ttt/text/chat_template.h"

namespace ttt::inline v2::jinja {

// What a template or its data did wrong, in jinja2's or Python's words; the interpreter adds the line.
struct Failure {
  std::string message;
};
[[noreturn]] void fail(std::string message);

struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
};

// A str with the byte ranges that came from outside of the template.
struct Text : Object {
  std::string bytes;  // valid UTF-8
  ByteRanges untrusted;
  bool ascii = true;
  bool markup = false;  // markupsafe's Markup, made by the "safe" and "escape" filters
};

enum class Kind : std::uint8_t {
  undefined,
  none,
  boolean,
  integer,
  big_integer,  // beyond 64 bits, from JSON only: kept as its digits
  real,
  string,
  sequence,
  dict,
  name_space,
  callable,
  loop,
};

class Value {
 public:
  Value() : kind_(Kind::none), integer_(0) {}
  explicit Value(bool b) : kind_(Kind::boolean), integer_(b) {}
  explicit Value(std::int64_t i) : kind_(Kind::integer), integer_(i) {}
  explicit Value(double d) : kind_(Kind::real), real_(d) {}
  Value(Kind kind, Object* object) : kind_(kind), object_(object) {}
  explicit Value(const Text* text) : kind_(Kind::string), object_(const_cast<Text*>(text)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_integral() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  std::int64_t integer() const { return integer_; }  // of a boolean too
  bool boolean() const { return integer_ != 0; }
  double real() const { return real_; }
  const Text& text() const { return *static_cast<const Text*>(object_); }
  Object* object() const { return object_; }
  bool same_as(const Value& other) const;

 private:
  Kind kind_;
  union {
    std::int64_t integer_;
    double real_;
    Object* object_;
  };
};

enum class SequenceType : std::uint8_t {
  list,
  tuple,
  range,
  dict_keys,
  dict_values,
  dict_items,
  generator,         // can be walked once: what map, select, items ... return
  reverse_iterator,  // likewise
};

struct Sequence : Object {
  SequenceType type = SequenceType::list;
  std::vector<Value> items;
  std::size_t next = 0;    // generators: the first item that nobody has taken yet
  std::string range_repr;  // of a range
  bool once() const { return type == SequenceType::generator || type == SequenceType::reverse_iterator; }
  bool subscriptable() const { return type <= SequenceType::range; }
};

// Insertion ordered, as Python's dict.
struct Dict : Object {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string_view, std::size_t> index;  // of string keys, once there are many
  // Of a namespace object, which templates can change; its entries are its attributes.
};

struct Undefined : Object {
  std::string hint;  // the whole message, where not empty
  Value owner;       // whose attribute or item `name` is missing
  bool has_owner = false;
  Value name;
};

struct Budget {
  std::uint64_t steps_left = 0;
  std::size_t memory_left = 0;
  std::size_t output_limit = 0;
  int depth_limit = 0;
  RenderLimits limits;

  void step(std::uint64_t n = 1) {
    if (n > steps_left) out_of_steps();
    steps_left -= n;
  }
  void work(std::size_t bytes) { step(1 + bytes / 32); }  // for walks over strings
  void memory(std::size_t bytes) {
    if (bytes > memory_left) out_of_memory();
    memory_left -= bytes;
  }
  [[noreturn]] void out_of_steps() const;
  [[noreturn]] void out_of_memory() const;
  [[noreturn]] void too_deep() const;
};

// Builds a Text from pieces, carrying over which bytes are untrusted.
class TextBuilder {
 public:
  explicit TextBuilder(Budget* budget = nullptr) : budget_(budget) {}
  void add(std::string_view trusted) { add(trusted, false); }
  void add(char c) { add(std::string_view(&c, 1), false); }
  void add(std::string_view bytes, bool untrusted);
  void add(const Text& text) { add(text, 0, text.bytes.size()); }
  void add(const Text& text, std::size_t begin, std::size_t end);
  void repeat(std::string_view bytes, std::size_t times);
  std::size_t size() const { return bytes_.size(); }
  const std::string& bytes() const { return bytes_; }
  void limit_output(std::size_t bytes) { output_limit_ = bytes; }

  std::string bytes_;
  ByteRanges untrusted_;

 private:
  void grow(std::size_t bytes);
  void mark(std::size_t begin, std::size_t end);
  Budget* budget_;
  std::size_t output_limit_ = static_cast<std::size_t>(-1);
};

// Walks the bytes of a text from left to right and says which are untrusted.
class TaintCursor {
 public:
  explicit TaintCursor(const Text& text) : ranges_(text.untrusted) {}
  bool operator()(std::size_t position) {
    while (next_ < ranges_.size() && ranges_[next_].second <= position) ++next_;
    return next_ < ranges_.size() && ranges_[next_].first <= position;
  }

 private:
  const ByteRanges& ranges_;
  std::size_t next_ = 0;
};

class Heap {
 public:
  explicit Heap(Budget* budget) : budget_(budget) {}
  Budget& budget() { return *budget_; }

  template <class T>
  T* make() {
    budget_->memory(sizeof(T) + 2 * sizeof(void*));
    auto object = std::make_unique<T>();
    T* raw = object.get();
    objects_.push_back(std::move(object));
    return raw;
  }
  Value string(std::string_view trusted);
  Value string(std::string_view bytes, bool untrusted);
  Value string(TextBuilder&& builder, bool markup = false);
  Value slice(const Text& text, std::size_t begin, std::size_t end);  // bytes [begin, end)
  Value sequence(SequenceType type, std::vector<Value> items);
  Value list(std::vector<Value> items) { return sequence(SequenceType::list, std::move(items)); }
  Value tuple(std::vector<Value> items) { return sequence(SequenceType::tuple, std::move(items)); }
  Value dict();
  Value undefined(std::string hint);
  Value undefined_name(std::string_view name);
  Value undefined_of(Value owner, Value name);

 private:
  Budget* budget_;
  std::vector<std::unique_ptr<Object>> objects_;
};

inline Sequence& as_sequence(const Value& v) { return *static_cast<Sequence*>(v.object()); }
inline Dict& as_dict(const Value& v) { return *static_cast<Dict*>(v.object()); }
inline const Undefined& as_undefined(const Value& v) { return *static_cast<const Undefined*>(v.object()); }
inline bool is_sequence(const Value& v, SequenceType type) {
  return v.is(Kind::sequence) && as_sequence(v).type == type;
}

bool same_type_of_object(const Value& a, const Value& b);

// Python's view of a value. All may throw Failure.
std::string type_name(const Value& v);                      // type(v).__name__
std::string undefined_message(Heap& heap, const Value& v);  // what using an undefined value says
[[noreturn]] void fail_undefined(Heap& heap, const Value& v);
bool truthy(const Value& v);
bool equal(Heap& heap, const Value& a, const Value& b, int depth = 0);
bool less(Heap& heap, const Value& a, const Value& b, const char* op = "<",
          int depth = 0);                                                       // a op b for op < and >
void append_str(Heap& heap, TextBuilder& out, const Value& v);                  // str(v)
void append_repr(Heap& heap, TextBuilder& out, const Value& v, int depth = 0);  // repr(v)
Value to_string(Heap& heap, const Value& v);                                    // str(v); a str as it is
std::string repr(Heap& heap, const Value& v);
std::string quoted(std::string_view s);  // repr of a str
std::string real_repr(double d);
bool hashable(const Value& v);
std::size_t length_of(Heap& heap, const Value& v);      // len(v)
std::size_t code_points(Heap& heap, const Text& text);  // len of a str
// The bytes at which code points [0, n] of `text` begin, so that character i is [offsets[i], offsets[i + 1]).
std::vector<std::size_t> character_offsets(Heap& heap, const Text& text);
// The items of what a "for" can walk; takes them from a generator.
std::vector<Value> iterate(Heap& heap, const Value& v);
bool contains(Heap& heap, const Value& container, const Value& item);

const Value* find(Heap& heap, const Dict& dict, const Value& key);
const Value* find(const Dict& dict, std::string_view key);
void store(Heap& heap, Dict& dict, const Value& key, const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;
  std::string indent;
  Value item_separator, key_separator;  // strings
};
void append_json(Heap& heap, TextBuilder& out, const Value& v, const JsonStyle& style, int depth = 0);

// Stable, as Python's sorted(); `keys` are compared, `items` move with them.
void sort_by(Heap& heap, std::vector<Value>& items, std::vector<Value> keys, bool reverse);

// Operators.
Value add(Heap& heap, const Value& a, const Value& b);
Value subtract(Heap& heap, const Value& a, const Value& b);
Value multiply(Heap& heap, const Value& a, const Value& b);
Value divide(Heap& heap, const Value& a, const Value& b);
Value floor_divide(Heap& heap, const Value& a, const Value& b);
Value modulo(Heap& heap, const Value& a, const Value& b);
Value power(Heap& heap, const Value& a, const Value& b);
Value negate(Heap& heap, const Value& a, bool minus);
Value slice(Heap& heap, const Value& v, const Value& start, const Value& stop, const Value& step);

// markupsafe.escape
void append_escaped(Heap& heap, TextBuilder& out, const Value& v);

// str % args
Value percent_format(Heap& heap, const Text& format, const Value& args);

// format(v, spec), the part of str.format after the colon
void append_formatted(Heap& heap, TextBuilder& out, const Value& v, const Text& spec);

// int(text, base) and float(text); false where Python raises ValueError.
bool parse_integer(std::string_view text, int base, std::int64_t& out);
bool parse_real(std::string_view text, double& out);

}  // namespace ttt::inline v2::jinja

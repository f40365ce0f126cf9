// Runs a parsed template: jinja2's scoping and its immutable sandbox, within the limits of one render.
#pragma once

#include <ctime>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_parser.h"
#include "text/jinja_value.h"

namespace ttt::inline v2::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> keywords;

  const Value* keyword(std::string_view name) const;
};

// The arguments of a built-in in the order of `names`; null where absent. Throws Failure in Python's words.
std::vector<const Value*> bind(std::string_view function, const Arguments& arguments,
                               std::initializer_list<std::string_view> names, std::size_t required);

struct Scope : Object {
  Scope* parent = nullptr;
  std::vector<std::pair<NameId, Value>> variables;
  bool captured = false;  // a macro of this scope may outlive it
};

struct Loop : Object {
  std::vector<Value> source, items;  // items: those that passed the condition so far
  std::size_t next_source = 0;
  std::size_t index0 = 0;
  int depth0 = 0;
  const Node* node = nullptr;
  Scope* scope = nullptr;  // around the loop
  std::optional<std::vector<Value>> last_changed;
};

enum class CallableType : std::uint8_t {
  macro,
  method,
  global,
  loop,
  loop_cycle,
  loop_changed,
  cycler,
  cycler_next,
  cycler_reset,
  joiner
};

struct Callable : Object {
  CallableType type = CallableType::global;
  const Macro* macro = nullptr;
  Scope* scope = nullptr;  // of a macro's definition
  Value self;              // of a method
  std::string name;        // of a method or global
  Loop* loop = nullptr;
  Callable* owner = nullptr;  // of cycler_next and cycler_reset
  std::vector<Value> items;   // cycler, joiner
  std::size_t position = 0;
};

class Interpreter {
 public:
  Interpreter(const Template& source, Heap& heap, std::optional<std::tm> now);

  void define(std::string_view name, Value value);
  // Throws Error, with the line.
  void run(TextBuilder& out, ByteRanges* generated);

  Heap& heap() { return heap_; }
  Budget& budget() { return heap_.budget(); }

  // What filters, tests and methods need of the environment.
  Value attribute(const Value& object, const Value& name);                  // object.name
  Value subscript(const Value& object, const Value& key);                   // object[key]
  Value path(Value object, const Value& attribute, const Value* fallback);  // "a.b.0" of sort, map, join ...
  Value call(const Value& callee, const Arguments& arguments);
  Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments);
  bool apply_test(std::string_view name, const Value& value, const Arguments& arguments);
  std::string strftime_now(const std::string& format) const;

 private:
  enum class Flow : std::uint8_t { normal, break_, continue_ };
  struct Deeper {  // bounds the stack that evaluation takes
    explicit Deeper(Interpreter& interpreter);
    ~Deeper() { --in.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Interpreter& in;
  };

  Flow run_body(const Body& body, Scope& scope, TextBuilder& out);
  Flow run_node(const Node& node, Scope& scope, TextBuilder& out);
  Flow run_if(const Node& node, Scope& scope, TextBuilder& out);
  Flow run_for(const Node& node, Scope& scope, TextBuilder& out);
  void run_loop(const Node& node, Scope& scope, std::vector<Value> source, int depth0, TextBuilder& out);
  bool pull(Loop& loop);
  Value run_captured(const Body& body, Scope& parent);
  void assign(const Expr& target, const Value& value, Scope& scope);

  Value evaluate(const Expr& expr, Scope& scope);
  Value evaluate_binary(const Expr& expr, Scope& scope);
  Value evaluate_compare(const Expr& expr, Scope& scope);
  Value evaluate_slice(const Expr& expr, Scope& scope);
  Value evaluate_container(const Expr& expr, Scope& scope);
  Value evaluate_call(const Expr& expr, Scope& scope, const Value* caller);
  Value evaluate_filter(const Expr& expr, Value value, Scope& scope);
  Value evaluate_concat(const Expr& expr, Scope& scope);
  void evaluate_arguments(const Call& call, Scope& scope, Arguments& out);
  Value lookup(NameId name, Scope& scope);

  Value method(const Value& self, const Value& name, bool& found);
  Value loop_attribute(const Value& loop, const std::string& name, bool& found);
  Value call_macro(const Callable& callable, const Arguments& arguments);
  Value call_global(const std::string& name, const Arguments& arguments);
  Scope* make_scope(Scope* parent);
  void set(Scope& scope, NameId name, const Value& value);

  const Template& template_;
  Heap& heap_;
  std::optional<std::tm> now_;
  Scope* context_;  // what the caller and jinja2 define
  int line_ = 1;
  int depth_ = 0, macro_depth_ = 0;
  TextBuilder* main_output_ = nullptr;
  ByteRanges* generated_ = nullptr;
  NameId loop_name_, caller_name_, varargs_name_, kwargs_name_;
};

// str, list, tuple and dict methods. `is_method` knows those that exist; `modifies` those that the sandbox
// refuses.
bool is_method(const Value& self, std::string_view name);
bool modifies(const Value& self, std::string_view name);
Value call_method(Interpreter& in, const Value& self, const std::string& name, const Arguments& arguments);

// str.format
Value format_string(Interpreter& in, const Text& format, const Arguments& arguments);

// Case mappings and searches shared by methods and filters.
enum class Case : std::uint8_t { upper, lower, title, capitalize, swap, fold };
Value change_case(Heap& heap, const Text& text, Case to);
Value strip(Heap& heap, const Text& text, const Value* characters, bool left, bool right);
Value replace(Heap& heap, const Text& text, const Text& old, const Text& by, std::int64_t count);
std::vector<Value> split_lines(Heap& heap, const Text& text, bool keep_ends);
bool is_lower_text(const Text& text);
bool is_upper_text(const Text& text);
Value join(Heap& heap, const Text& separator, const std::vector<Value>& items, bool convert);

}  // namespace ttt::inline v2::jinja

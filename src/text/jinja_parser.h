// Template source to a syntax tree, by jinja2's grammar with trim_blocks and lstrip_blocks.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace ttt::inline v2::jinja {

using NameId = int;  // of a variable, small and dense, so that scopes compare integers

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class Op : std::uint8_t {
  constant,             // value
  name,                 // name
  namespace_attribute,  // name, text: the target "ns.x" of a set
  tuple,                // args
  list,                 // args
  dict,                 // args: key, value, key, value ...
  attribute,            // args[0], text
  subscript,            // args[0], args[1]
  slice,                // args: start, stop, step; null where absent
  call,                 // args[0] called with call
  filter,               // args[0] (null in a filter block), text, call
  test,                 // args[0], text, call
  negation,             // not args[0]
  logical_and,
  logical_or,
  conditional,  // args: condition, then, else (null: undefined)
  compare,      // args[0] operators[0] args[1] operators[1] args[2] ...
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  concat,  // args
  minus,
  plus,
};

enum class Comparison : std::uint8_t { eq, ne, lt, le, gt, ge, in, not_in };

struct Call {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  ExprPtr star, star_star;  // *args, **kwargs
};

struct Expr {
  Op op = Op::constant;
  int line = 0;
  int depth = 1;  // of the tree below
  NameId name = 0;
  Value value;
  std::string text;
  std::vector<ExprPtr> args;
  std::vector<Comparison> operators;
  std::unique_ptr<Call> call;
};

struct Node;
using Body = std::vector<Node>;

struct Parameter {
  NameId name = 0;
  ExprPtr default_value;  // null: none
};

struct Macro {
  std::string name;
  NameId id = 0;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};

enum class Tag : std::uint8_t {
  data,        // value
  output,      // exprs
  set,         // target = exprs[0]
  set_block,   // target, exprs[0]: filter or null, body
  if_,         // branches: (exprs[i], bodies[i]); one more body: else
  for_,        // target in exprs[0] if exprs[1] (or null), recursive; bodies[0], bodies[1]: else
  with,        // targets[i] = exprs[i], bodies[0]
  macro,       // macro
  call,        // exprs[0]: a call; macro: the caller
  filter,      // exprs[0], bodies[0]
  generation,  // bodies[0]
  break_,
  continue_,
};

struct Node {
  Tag tag = Tag::data;
  int line = 0;
  Value value;
  std::vector<ExprPtr> exprs;
  std::vector<ExprPtr> targets;
  std::vector<Body> bodies;
  std::unique_ptr<Macro> macro;
  bool recursive = false;
};

struct Template {
  Body body;
  std::vector<std::string> names;  // by NameId
  std::unordered_map<std::string, NameId> ids;
  std::set<std::string> loaded;       // variables that are read
  std::vector<const Text*> literals;  // the template's own text and string constants
  std::unique_ptr<Budget> budget;     // of the constants
  std::unique_ptr<Heap> constants;
  NameId id(std::string_view name) const;  // -1: the template never mentions it
};

// Throws Error with the line.
Template parse(std::string_view source);

// By jinja2's tables of built-in filters and tests, with transformers' additions.
bool is_filter(std::string_view name);
bool is_test(std::string_view name);

}  // namespace ttt::inline v2::jinja

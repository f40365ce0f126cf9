#include "text/jinja_interpreter.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "ttt/base/error.h"

namespace ttt::inline v2::jinja {

namespace {

constexpr int max_evaluation_depth = 2500;  // of evaluate and run_node together: bounds the stack
constexpr std::int64_t max_range = 100000;  // jinja2's sandbox

constexpr std::array<std::string_view, 7> globals = {"range",  "dict",   "namespace",   "raise_exception",
                                                     "cycler", "joiner", "strftime_now"};

std::string plural(std::size_t n) { return n == 1 ? "" : "s"; }

}  // namespace

const Value* Arguments::keyword(std::string_view name) const {
  for (const auto& [key, value] : keywords) {
    if (key == name) return &value;
  }
  return nullptr;
}

std::vector<const Value*> bind(std::string_view function, const Arguments& arguments,
                               std::initializer_list<std::string_view> names, std::size_t required) {
  const std::string call = std::string(function) + "()";
  if (arguments.positional.size() > names.size()) {
    fail(call + " takes at most " + std::to_string(names.size()) + " argument" + plural(names.size()) + " (" +
         std::to_string(arguments.positional.size()) + " given)");
  }
  std::vector<const Value*> bound(names.size(), nullptr);
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [key, value] : arguments.keywords) {
    const auto* at = std::find(names.begin(), names.end(), key);
    if (at == names.end()) fail(call + " got an unexpected keyword argument " + quoted(key));
    const Value*& slot = bound[static_cast<std::size_t>(at - names.begin())];
    if (slot != nullptr) fail(call + " got multiple values for argument " + quoted(key));
    slot = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (bound[i] == nullptr) fail(call + " missing required argument " + quoted(names.begin()[i]));
  }
  return bound;
}

Interpreter::Deeper::Deeper(Interpreter& interpreter) : in(interpreter) {
  if (++in.depth_ > max_evaluation_depth) {
    --in.depth_;
    in.budget().too_deep();
  }
}

Interpreter::Interpreter(const Template& source, Heap& heap, std::optional<std::tm> now)
    : template_(source),
      heap_(heap),
      now_(now),
      context_(heap.make<Scope>()),
      loop_name_(source.id("loop")),
      caller_name_(source.id("caller")),
      varargs_name_(source.id("varargs")),
      kwargs_name_(source.id("kwargs")) {
  for (std::string_view name : globals) {
    auto* callable = heap.make<Callable>();
    callable->name = name;
    define(name, Value(Kind::callable, callable));
  }
}

void Interpreter::define(std::string_view name, Value value) {
  const NameId id = template_.id(name);
  if (id >= 0) set(*context_, id, value);
}

void Interpreter::run(TextBuilder& out, ByteRanges* generated) {
  main_output_ = &out;
  generated_ = generated;
  try {
    run_body(template_.body, *make_scope(context_), out);
  } catch (const Failure& failure) {
    throw Error(printable(failure.message, 4000), "chat template line " + std::to_string(line_));
  }
}

Scope* Interpreter::make_scope(Scope* parent) {
  auto* scope = heap_.make<Scope>();
  scope->parent = parent;
  return scope;
}

void Interpreter::set(Scope& scope, NameId name, const Value& value) {
  budget().step(scope.variables.size() / 16);
  for (auto& [id, stored] : scope.variables) {
    if (id == name) {
      stored = value;
      return;
    }
  }
  budget().memory(sizeof(scope.variables[0]));
  scope.variables.emplace_back(name, value);
}

Value Interpreter::lookup(NameId name, Scope& scope) {
  for (const Scope* s = &scope; s != nullptr; s = s->parent) {
    budget().step(1 + s->variables.size() / 16);
    for (const auto& [id, value] : s->variables) {
      if (id == name) return value;
    }
  }
  return heap_.undefined_name(template_.names[static_cast<std::size_t>(name)]);
}

// Statements
// ----------------------------------------------------------------------------------------------------------

Interpreter::Flow Interpreter::run_body(const Body& body, Scope& scope, TextBuilder& out) {
  for (const Node& node : body) {
    const Flow flow = run_node(node, scope, out);
    if (flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_node(const Node& node, Scope& scope, TextBuilder& out) {
  budget().step();
  const Deeper deeper(*this);
  line_ = node.line;
  switch (node.tag) {
    case Tag::data:
      out.add(node.value.text());
      return Flow::normal;
    case Tag::output:
      for (const ExprPtr& expr : node.exprs) {
        const Value value = evaluate(*expr, scope);
        line_ = node.line;
        append_str(heap_, out, value);
      }
      return Flow::normal;
    case Tag::set:
      assign(*node.targets[0], evaluate(*node.exprs[0], scope), scope);
      return Flow::normal;
    case Tag::set_block: {
      Value value = run_captured(node.bodies[0], scope);
      if (node.exprs[0] != nullptr) value = evaluate_filter(*node.exprs[0], value, scope);
      assign(*node.targets[0], value, scope);
      return Flow::normal;
    }
    case Tag::if_:
      return run_if(node, scope, out);
    case Tag::for_:
      return run_for(node, scope, out);
    case Tag::with: {
      Scope* inner = make_scope(&scope);
      for (std::size_t i = 0; i < node.targets.size(); ++i) {
        assign(*node.targets[i], evaluate(*node.exprs[i], scope), *inner);
      }
      return run_body(node.bodies[0], *inner, out);
    }
    case Tag::macro: {
      auto* callable = heap_.make<Callable>();
      callable->type = CallableType::macro;
      callable->macro = node.macro.get();
      callable->scope = &scope;
      for (Scope* s = &scope; s != nullptr; s = s->parent) s->captured = true;
      set(scope, node.macro->id, Value(Kind::callable, callable));
      return Flow::normal;
    }
    case Tag::call: {
      auto* caller = heap_.make<Callable>();
      caller->type = CallableType::macro;
      caller->macro = node.macro.get();
      caller->scope = &scope;
      for (Scope* s = &scope; s != nullptr; s = s->parent) s->captured = true;
      const Value function(Kind::callable, caller);
      append_str(heap_, out, evaluate_call(*node.exprs[0], scope, &function));
      return Flow::normal;
    }
    case Tag::filter:
      append_str(heap_, out, evaluate_filter(*node.exprs[0], run_captured(node.bodies[0], scope), scope));
      return Flow::normal;
    case Tag::generation: {
      const std::size_t begin = out.size();
      run_body(node.bodies[0], *make_scope(&scope), out);
      if (&out == main_output_ && generated_ != nullptr && out.size() > begin) {
        if (!generated_->empty() && generated_->back().second == begin) {
          generated_->back().second = out.size();
        } else if (generated_->empty() || generated_->back().second < begin) {
          generated_->emplace_back(begin, out.size());
        }
      }
      return Flow::normal;
    }
    case Tag::break_:
      return Flow::break_;
    case Tag::continue_:
      return Flow::continue_;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_if(const Node& node, Scope& scope, TextBuilder& out) {
  for (std::size_t i = 0; i < node.exprs.size(); ++i) {
    if (truthy(evaluate(*node.exprs[i], scope))) return run_body(node.bodies[i], scope, out);
  }
  if (node.bodies.size() > node.exprs.size()) return run_body(node.bodies.back(), scope, out);
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_for(const Node& node, Scope& scope, TextBuilder& out) {
  const Value iterable = evaluate(*node.exprs[0], scope);
  line_ = node.line;
  run_loop(node, scope, iterate(heap_, iterable), 0, out);
  return Flow::normal;
}

// Accepts one more item of the loop's source; false at its end. A condition is evaluated as late as in
// jinja2, because the body may change what it reads.
bool Interpreter::pull(Loop& loop) {
  const Expr* condition = loop.node->exprs[1].get();
  while (loop.next_source < loop.source.size()) {
    budget().step();
    const Value item = loop.source[loop.next_source++];
    if (condition != nullptr) {
      Scope* inner = make_scope(loop.scope);
      if (loop_name_ >= 0) { set(*inner, loop_name_, heap_.undefined_name("loop")); }
      assign(*loop.node->targets[0], item, *inner);
      if (!truthy(evaluate(*condition, *inner))) continue;
    }
    loop.items.push_back(item);
    return true;
  }
  return false;
}

void Interpreter::run_loop(const Node& node, Scope& scope, std::vector<Value> source, int depth0,
                           TextBuilder& out) {
  auto* loop = heap_.make<Loop>();
  budget().memory(source.size() * sizeof(Value));
  loop->source = std::move(source);
  loop->node = &node;
  loop->scope = &scope;
  loop->depth0 = depth0;
  Scope* inner = nullptr;
  bool any = false;
  for (std::size_t i = 0; loop->items.size() > i || pull(*loop); ++i) {
    any = true;
    budget().step();
    loop->index0 = i;
    if (inner == nullptr || inner->captured) {
      inner = make_scope(&scope);
    } else {
      inner->variables.clear();
    }
    if (loop_name_ >= 0) set(*inner, loop_name_, Value(Kind::loop, loop));
    line_ = node.line;
    assign(*node.targets[0], loop->items[i], *inner);
    if (run_body(node.bodies[0], *inner, out) == Flow::break_) return;
  }
  if (!any && node.bodies.size() > 1) run_body(node.bodies[1], *make_scope(&scope), out);
}

Value Interpreter::run_captured(const Body& body, Scope& parent) {
  TextBuilder out(&budget());
  run_body(body, *make_scope(&parent), out);
  return heap_.string(std::move(out));
}

void Interpreter::assign(const Expr& target, const Value& value, Scope& scope) {
  if (target.op == Op::name) {
    set(scope, target.name, value);
    return;
  }
  line_ = target.line;
  if (target.op == Op::namespace_attribute) {
    const Value object = lookup(target.name, scope);
    if (!object.is(Kind::name_space)) fail("cannot assign attribute on non-namespace object");
    if (target.text[0] == '_') {
      fail("Chat templates cannot store underscore-prefixed attributes on a namespace, but got " +
           quoted(target.text) + ". Please rename the attribute.");
    }
    store(heap_, as_dict(object), heap_.string(target.text), value);
    return;
  }
  const std::size_t n = target.args.size();
  if (!value.is_string() && !value.is(Kind::sequence) && !value.is(Kind::dict) &&
      !value.is(Kind::undefined)) {
    fail("cannot unpack non-iterable " + type_name(value) + " object");
  }
  const std::vector<Value> items = iterate(heap_, value);
  if (items.size() > n) fail("too many values to unpack (expected " + std::to_string(n) + ")");
  if (items.size() < n) {
    fail("not enough values to unpack (expected " + std::to_string(n) + ", got " +
         std::to_string(items.size()) + ")");
  }
  for (std::size_t i = 0; i < n; ++i) assign(*target.args[i], items[i], scope);
}

// Expressions
// ---------------------------------------------------------------------------------------------------------

Value Interpreter::evaluate(const Expr& expr, Scope& scope) {
  if (expr.op == Op::constant) return expr.value;
  budget().step();
  if (expr.op == Op::name) {
    line_ = expr.line;
    return lookup(expr.name, scope);
  }
  const Deeper deeper(*this);
  switch (expr.op) {
    case Op::tuple:
    case Op::list:
    case Op::dict:
      return evaluate_container(expr, scope);
    case Op::attribute: {
      const Value object = evaluate(*expr.args[0], scope);
      line_ = expr.line;
      return attribute(object, expr.value);
    }
    case Op::subscript: {
      if (expr.args[1]->op == Op::slice) return evaluate_slice(expr, scope);
      const Value object = evaluate(*expr.args[0], scope);
      const Value key = evaluate(*expr.args[1], scope);
      line_ = expr.line;
      return subscript(object, key);
    }
    case Op::call:
      return evaluate_call(expr, scope, nullptr);
    case Op::filter:
      return evaluate_filter(expr, Value(), scope);
    case Op::test: {
      const Value value = evaluate(*expr.args[0], scope);
      Arguments arguments;
      evaluate_arguments(*expr.call, scope, arguments);
      line_ = expr.line;
      if (!is_test(expr.text)) fail("No test named " + quoted(expr.text) + " found.");
      return Value(apply_test(expr.text, value, arguments));
    }
    case Op::negation:
      return Value(!truthy(evaluate(*expr.args[0], scope)));
    case Op::logical_and: {
      const Value left = evaluate(*expr.args[0], scope);
      return truthy(left) ? evaluate(*expr.args[1], scope) : left;
    }
    case Op::logical_or: {
      const Value left = evaluate(*expr.args[0], scope);
      return truthy(left) ? left : evaluate(*expr.args[1], scope);
    }
    case Op::conditional:
      if (truthy(evaluate(*expr.args[0], scope))) return evaluate(*expr.args[1], scope);
      if (expr.args[2] != nullptr) return evaluate(*expr.args[2], scope);
      return heap_.undefined("the inline if-expression on line " + std::to_string(expr.line) +
                             " evaluated to false and no else section was defined.");
    case Op::compare:
      return evaluate_compare(expr, scope);
    case Op::concat:
      return evaluate_concat(expr, scope);
    case Op::minus:
    case Op::plus: {
      const Value value = evaluate(*expr.args[0], scope);
      line_ = expr.line;
      return negate(heap_, value, expr.op == Op::minus);
    }
    default:
      return evaluate_binary(expr, scope);
  }
}

Value Interpreter::evaluate_binary(const Expr& expr, Scope& scope) {
  const Value left = evaluate(*expr.args[0], scope);
  const Value right = evaluate(*expr.args[1], scope);
  line_ = expr.line;
  switch (expr.op) {
    case Op::add:
      return add(heap_, left, right);
    case Op::subtract:
      return subtract(heap_, left, right);
    case Op::multiply:
      return multiply(heap_, left, right);
    case Op::divide:
      return divide(heap_, left, right);
    case Op::floor_divide:
      return floor_divide(heap_, left, right);
    case Op::modulo:
      return modulo(heap_, left, right);
    default:
      return power(heap_, left, right);
  }
}

Value Interpreter::evaluate_compare(const Expr& expr, Scope& scope) {
  Value left = evaluate(*expr.args[0], scope);
  for (std::size_t i = 0; i < expr.operators.size(); ++i) {
    const Value right = evaluate(*expr.args[i + 1], scope);
    line_ = expr.line;
    bool holds = false;
    switch (expr.operators[i]) {
      case Comparison::eq:
        holds = equal(heap_, left, right);
        break;
      case Comparison::ne:
        holds = !equal(heap_, left, right);
        break;
      case Comparison::lt:
        holds = less(heap_, left, right, "<");
        break;
      case Comparison::le:
        holds = less(heap_, left, right, "<=");
        break;
      case Comparison::gt:
        holds = less(heap_, left, right, ">");
        break;
      case Comparison::ge:
        holds = less(heap_, left, right, ">=");
        break;
      case Comparison::in:
        holds = contains(heap_, right, left);
        break;
      case Comparison::not_in:
        holds = !contains(heap_, right, left);
        break;
    }
    if (!holds) return Value(false);
    left = right;
  }
  return Value(true);
}

Value Interpreter::evaluate_slice(const Expr& expr, Scope& scope) {
  const Value object = evaluate(*expr.args[0], scope);
  std::array<Value, 3> bounds;
  for (std::size_t i = 0; i < 3; ++i) {
    const ExprPtr& bound = expr.args[1]->args[i];
    if (bound != nullptr) bounds[i] = evaluate(*bound, scope);
  }
  line_ = expr.line;
  if (object.is(Kind::undefined)) fail_undefined(heap_, object);
  if (object.is(Kind::dict)) fail("unhashable type: 'slice'");
  if (!object.is_string() && !(object.is(Kind::sequence) && as_sequence(object).subscriptable())) {
    fail(quoted(type_name(object)) + " object is not subscriptable");
  }
  return slice(heap_, object, bounds[0], bounds[1], bounds[2]);
}

Value Interpreter::evaluate_container(const Expr& expr, Scope& scope) {
  if (expr.op == Op::dict) {
    const Value dict = heap_.dict();
    for (std::size_t i = 0; i < expr.args.size(); i += 2) {
      const Value key = evaluate(*expr.args[i], scope);
      const Value value = evaluate(*expr.args[i + 1], scope);
      line_ = expr.line;
      store(heap_, as_dict(dict), key, value);
    }
    return dict;
  }
  std::vector<Value> items;
  items.reserve(expr.args.size());
  for (const ExprPtr& arg : expr.args) items.push_back(evaluate(*arg, scope));
  return heap_.sequence(expr.op == Op::list ? SequenceType::list : SequenceType::tuple, std::move(items));
}

Value Interpreter::evaluate_concat(const Expr& expr, Scope& scope) {
  std::vector<Value> parts;
  parts.reserve(expr.args.size());
  for (const ExprPtr& arg : expr.args) parts.push_back(evaluate(*arg, scope));
  line_ = expr.line;
  TextBuilder out(&budget());
  for (const Value& part : parts) append_str(heap_, out, part);
  return heap_.string(std::move(out));
}

void Interpreter::evaluate_arguments(const Call& call, Scope& scope, Arguments& out) {
  out.positional.reserve(call.positional.size());
  for (const ExprPtr& arg : call.positional) out.positional.push_back(evaluate(*arg, scope));
  for (const auto& [key, value] : call.keywords) out.keywords.emplace_back(key, evaluate(*value, scope));
  if (call.star != nullptr) {
    const std::vector<Value> items = iterate(heap_, evaluate(*call.star, scope));
    out.positional.insert(out.positional.end(), items.begin(), items.end());
  }
  if (call.star_star != nullptr) {
    const Value mapping = evaluate(*call.star_star, scope);
    if (!mapping.is(Kind::dict)) fail("argument after ** must be a mapping, not " + type_name(mapping));
    for (const auto& [key, value] : as_dict(mapping).entries) {
      if (!key.is_string()) fail("keywords must be strings");
      if (out.keyword(key.text().bytes) != nullptr)
        fail("got multiple values for keyword argument " + quoted(key.text().bytes));
      budget().step(1 + out.keywords.size() / 8);
      out.keywords.emplace_back(key.text().bytes, value);
    }
  }
}

Value Interpreter::evaluate_call(const Expr& expr, Scope& scope, const Value* caller) {
  const Value callee = evaluate(*expr.args[0], scope);
  Arguments arguments;
  evaluate_arguments(*expr.call, scope, arguments);
  line_ = expr.line;
  if (caller != nullptr) arguments.keywords.emplace_back("caller", *caller);
  return call(callee, arguments);
}

Value Interpreter::evaluate_filter(const Expr& expr, Value value, Scope& scope) {
  // The chain of a filter block or a block set ends in a missing operand, for which `value` stands.
  if (expr.args[0] != nullptr) {
    const bool chained = expr.args[0]->op == Op::filter;
    const Deeper deeper(*this);
    value = chained ? evaluate_filter(*expr.args[0], value, scope) : evaluate(*expr.args[0], scope);
  }
  Arguments arguments;
  evaluate_arguments(*expr.call, scope, arguments);
  line_ = expr.line;
  if (!is_filter(expr.text)) fail("No filter named " + quoted(expr.text) + " found.");
  return apply_filter(expr.text, value, arguments);
}

// Attributes and items
// ------------------------------------------------------------------------------------------------

Value Interpreter::method(const Value& self, const Value& name, bool& found) {
  const std::string& bytes = name.text().bytes;
  found = true;
  if (modifies(self, bytes) || (bytes.size() > 4 && bytes.substr(0, 2) == "__" &&
                                (bytes == "__class__" || bytes == "__init__" || bytes == "__dict__" ||
                                 bytes == "__doc__" || bytes == "__getitem__" || bytes == "__len__"))) {
    return heap_.undefined("access to attribute " + quoted(bytes) + " of " + quoted(type_name(self)) +
                           " object is unsafe.");
  }
  if (is_method(self, bytes)) {
    auto* callable = heap_.make<Callable>();
    callable->type = CallableType::method;
    callable->self = self;
    callable->name = bytes;
    return Value(Kind::callable, callable);
  }
  found = false;
  return {};
}

Value Interpreter::loop_attribute(const Value& value, const std::string& name, bool& found) {
  Loop& loop = *static_cast<Loop*>(value.object());
  const auto integer = [](std::size_t i) { return Value(static_cast<std::int64_t>(i)); };
  const auto length = [&] {
    while (pull(loop)) {}
    return loop.items.size();
  };
  found = true;
  if (name == "index") return integer(loop.index0 + 1);
  if (name == "index0") return integer(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 + 1 >= loop.items.size() && !pull(loop));
  if (name == "length") return integer(length());
  if (name == "revindex") return integer(length() - loop.index0);
  if (name == "revindex0") return integer(length() - loop.index0 - 1);
  if (name == "depth") return Value(static_cast<std::int64_t>(loop.depth0) + 1);
  if (name == "depth0") return Value(static_cast<std::int64_t>(loop.depth0));
  if (name == "previtem") {
    return loop.index0 > 0 ? loop.items[loop.index0 - 1] : heap_.undefined("there is no previous item");
  }
  if (name == "nextitem") {
    const bool more = loop.index0 + 1 < loop.items.size() || pull(loop);
    return more ? loop.items[loop.index0 + 1] : heap_.undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") {
    auto* callable = heap_.make<Callable>();
    callable->type = name == "cycle" ? CallableType::loop_cycle : CallableType::loop_changed;
    callable->loop = &loop;
    return Value(Kind::callable, callable);
  }
  found = false;
  return {};
}

Value Interpreter::attribute(const Value& object, const Value& name) {
  bool found = false;
  Value value;
  switch (object.kind()) {
    case Kind::undefined:
      value = method(object, name, found);  // what every Python object has
      if (!found) fail_undefined(heap_, object);
      break;
    case Kind::name_space:
      if (const Value* item = find(as_dict(object), name.text().bytes)) return *item;
      break;
    case Kind::loop:
      value = loop_attribute(object, name.text().bytes, found);
      break;
    case Kind::callable: {
      auto& callable = *static_cast<Callable*>(object.object());
      const std::string& bytes = name.text().bytes;
      if (callable.type == CallableType::cycler) {
        if (bytes == "current") return callable.items[callable.position];
        if (bytes == "next" || bytes == "reset") {
          auto* method = heap_.make<Callable>();
          method->type = bytes == "next" ? CallableType::cycler_next : CallableType::cycler_reset;
          method->owner = &callable;
          return Value(Kind::callable, method);
        }
      }
      if (callable.type == CallableType::global && callable.name == "dict" && bytes == "fromkeys") {
        auto* from_keys = heap_.make<Callable>();
        from_keys->type = CallableType::method;
        from_keys->self = heap_.dict();
        from_keys->name = bytes;
        return Value(Kind::callable, from_keys);
      }
      if (callable.type == CallableType::macro && bytes == "name") return heap_.string(callable.macro->name);
      break;
    }
    default:
      value = method(object, name, found);
      if (!found && object.is(Kind::dict)) {
        if (const Value* item = find(heap_, as_dict(object), name)) return *item;
      }
  }
  return found ? value : heap_.undefined_of(object, name);
}

Value Interpreter::subscript(const Value& object, const Value& key) {
  switch (object.kind()) {
    case Kind::undefined:
      fail_undefined(heap_, object);
    case Kind::string:
      if (key.is_integral()) {
        const Text& text = object.text();
        const std::vector<std::size_t> offsets =
            text.ascii ? std::vector<std::size_t>() : character_offsets(heap_, text);
        const auto n = static_cast<std::int64_t>(text.ascii ? text.bytes.size() : offsets.size() - 1);
        const std::int64_t i = key.integer() < 0 ? key.integer() + n : key.integer();
        if (i < 0 || i >= n) break;
        const auto at = static_cast<std::size_t>(i);
        return text.ascii ? heap_.slice(text, at, at + 1) : heap_.slice(text, offsets[at], offsets[at + 1]);
      }
      break;
    case Kind::sequence:
      if (key.is_integral() && as_sequence(object).subscriptable()) {
        const Sequence& s = as_sequence(object);
        const auto n = static_cast<std::int64_t>(s.items.size());
        const std::int64_t i = key.integer() < 0 ? key.integer() + n : key.integer();
        if (i >= 0 && i < n) return s.items[static_cast<std::size_t>(i)];
      }
      break;
    case Kind::dict:
      if (hashable(key)) {
        if (const Value* item = find(heap_, as_dict(object), key)) return *item;
      }
      break;
    default:
      break;
  }
  if (key.is_string()) {
    if (object.is(Kind::loop) || object.is(Kind::name_space) || object.is(Kind::callable))
      return attribute(object, key);
    bool found = false;
    const Value value = method(object, key, found);
    if (found) return value;
  }
  return heap_.undefined_of(object, key);
}

Value Interpreter::path(Value object, const Value& attribute, const Value* fallback) {
  const auto look = [&](const Value& key) {
    object = subscript(object, key);
    if (fallback != nullptr && !fallback->is(Kind::none) && object.is(Kind::undefined)) object = *fallback;
  };
  if (attribute.is(Kind::none)) return object;
  if (!attribute.is_string()) {
    look(attribute);
    return object;
  }
  const std::string& bytes = attribute.text().bytes;
  for (std::size_t begin = 0; begin <= bytes.size();) {
    const std::size_t end = std::min(bytes.find('.', begin), bytes.size());
    const std::string part = bytes.substr(begin, end - begin);
    std::int64_t index = 0;
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    look(digits && parse_integer(part, 10, index) ? Value(index) : heap_.string(part));
    begin = end + 1;
  }
  return object;
}

// Calls
// ---------------------------------------------------------------------------------------------------------------

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is(Kind::undefined)) fail_undefined(heap_, callee);
  if (callee.is(Kind::loop)) {
    Loop& loop = *static_cast<Loop*>(callee.object());
    if (!loop.node->recursive) {
      fail("The loop must have the 'recursive' marker to be called recursively.");
    }
    const auto bound = bind("loop", arguments, {"iterable"}, 1);
    if (macro_depth_ >= budget().depth_limit) budget().too_deep();
    ++macro_depth_;
    TextBuilder out(&budget());
    run_loop(*loop.node, *loop.scope, iterate(heap_, *bound[0]), loop.depth0 + 1, out);
    --macro_depth_;
    return heap_.string(std::move(out));
  }
  if (!callee.is(Kind::callable)) fail(quoted(type_name(callee)) + " object is not callable");
  auto& callable = *static_cast<Callable*>(callee.object());
  switch (callable.type) {
    case CallableType::macro:
      return call_macro(callable, arguments);
    case CallableType::method:
      return call_method(*this, callable.self, callable.name, arguments);
    case CallableType::global:
      return call_global(callable.name, arguments);
    case CallableType::loop_cycle:
      if (arguments.positional.empty()) fail("no items for cycling given");
      return arguments.positional[callable.loop->index0 % arguments.positional.size()];
    case CallableType::loop_changed: {
      std::optional<std::vector<Value>>& last = callable.loop->last_changed;
      bool same = last.has_value() && last->size() == arguments.positional.size();
      for (std::size_t i = 0; same && i < last->size(); ++i)
        same = equal(heap_, (*last)[i], arguments.positional[i]);
      if (!same) last = arguments.positional;
      return Value(!same);
    }
    case CallableType::cycler_next: {
      Callable& cycler = *callable.owner;
      const Value current = cycler.items[cycler.position];
      cycler.position = (cycler.position + 1) % cycler.items.size();
      return current;
    }
    case CallableType::cycler_reset:
      callable.owner->position = 0;
      return {};
    case CallableType::joiner:
      if (callable.position++ == 0) return heap_.string("");
      return callable.items[0];
    case CallableType::cycler:
    case CallableType::loop:
      break;
  }
  fail("object is not callable");
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& arguments) {
  const Macro& macro = *callable.macro;
  if (macro_depth_ >= budget().depth_limit) budget().too_deep();
  ++macro_depth_;
  const Deeper deeper(*this);
  Scope* scope = make_scope(callable.scope);
  const std::size_t given = std::min(arguments.positional.size(), macro.parameters.size());
  std::vector<bool> used(arguments.keywords.size(), false);
  const auto take = [&](std::string_view name) -> const Value* {
    for (std::size_t i = 0; i < arguments.keywords.size(); ++i) {
      if (!used[i] && arguments.keywords[i].first == name) {
        used[i] = true;
        return &arguments.keywords[i].second;
      }
    }
    return nullptr;
  };
  bool explicit_caller = false;
  std::vector<std::size_t> missing;
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    const std::string& name = template_.names[static_cast<std::size_t>(parameter.name)];
    explicit_caller |= parameter.name == caller_name_;
    const Value* value = i < given ? &arguments.positional[i] : take(name);
    if (value != nullptr) {
      set(*scope, parameter.name, *value);
    } else {
      set(*scope, parameter.name, heap_.undefined("parameter " + quoted(name) + " was not provided"));
      missing.push_back(i);
    }
  }
  if (macro.uses_caller && !explicit_caller) {
    const Value* caller = take("caller");
    set(*scope, caller_name_, caller != nullptr ? *caller : heap_.undefined("No caller defined"));
  }
  const auto unused = std::find(used.begin(), used.end(), false);
  if (macro.uses_kwargs) {
    const Value kwargs = heap_.dict();
    for (std::size_t i = 0; i < used.size(); ++i) {
      if (!used[i]) {
        store(heap_, as_dict(kwargs), heap_.string(arguments.keywords[i].first),
              arguments.keywords[i].second);
      }
    }
    set(*scope, kwargs_name_, kwargs);
  } else if (unused != used.end()) {
    for (std::size_t i = 0; i < used.size(); ++i) {
      if (!used[i] && arguments.keywords[i].first == "caller") {
        fail("macro " + quoted(macro.name) +
             " was invoked with two values for the special caller argument. This is most likely a bug.");
      }
    }
    fail("macro " + quoted(macro.name) + " takes no keyword argument " +
         quoted(arguments.keywords[static_cast<std::size_t>(unused - used.begin())].first));
  }
  if (macro.uses_varargs) {
    set(*scope, varargs_name_,
        heap_.tuple(
            {arguments.positional.begin() + static_cast<std::ptrdiff_t>(given), arguments.positional.end()}));
  } else if (arguments.positional.size() > macro.parameters.size()) {
    fail("macro " + quoted(macro.name) + " takes not more than " + std::to_string(macro.parameters.size()) +
         " argument(s)");
  }
  for (std::size_t i : missing) {  // a default may read the parameters before it
    const Parameter& parameter = macro.parameters[i];
    if (parameter.default_value != nullptr)
      set(*scope, parameter.name, evaluate(*parameter.default_value, *scope));
  }
  TextBuilder out(&budget());
  run_body(macro.body, *scope, out);
  --macro_depth_;
  return heap_.string(std::move(out));
}

Value Interpreter::call_global(const std::string& name, const Arguments& arguments) {
  if (name == "range") {
    const auto bound = bind("range", arguments, {"start", "stop", "step"}, 1);
    std::array<std::int64_t, 3> numbers = {0, 0, 1};
    for (std::size_t i = 0; i < 3; ++i) {
      if (bound[i] == nullptr) continue;
      if (bound[i]->is(Kind::undefined)) fail_undefined(heap_, *bound[i]);
      if (!bound[i]->is_integral()) {
        fail(quoted(type_name(*bound[i])) + " object cannot be interpreted as an integer");
      }
      numbers[i] = bound[i]->integer();
    }
    if (bound[1] == nullptr) {
      numbers[1] = numbers[0];
      numbers[0] = 0;
    }
    const auto [start, stop, step] = numbers;
    if (step == 0) fail("range() arg 3 must not be zero");
    std::vector<Value> items;
    for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
      if (items.size() >= static_cast<std::size_t>(max_range)) {
        fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (" + std::to_string(max_range) +
             ").");
      }
      budget().step();
      items.push_back(Value(i));
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    const Value range = heap_.sequence(SequenceType::range, std::move(items));
    std::string text = "range(" + std::to_string(start) + ", " + std::to_string(stop);
    if (step != 1) text += ", " + std::to_string(step);
    as_sequence(range).range_repr = text + ")";
    return range;
  }
  if (name == "dict" || name == "namespace") {
    const bool is_namespace = name == "namespace";
    const Value out = is_namespace ? Value(Kind::name_space, heap_.make<Dict>()) : heap_.dict();
    Dict& dict = as_dict(out);
    const auto put = [&](const Value& key, const Value& value) {
      if (is_namespace && key.is_string() && !key.text().bytes.empty() && key.text().bytes[0] == '_') {
        fail("Chat templates cannot store underscore-prefixed attributes on a namespace, but got " +
             quoted(key.text().bytes) + ". Please rename the attribute.");
      }
      store(heap_, dict, key, value);
    };
    if (arguments.positional.size() > 1) {
      fail("dict expected at most 1 argument, got " + std::to_string(arguments.positional.size()));
    }
    if (!arguments.positional.empty()) {
      const Value& from = arguments.positional[0];
      if (from.is(Kind::undefined)) fail_undefined(heap_, from);
      if (from.is(Kind::dict)) {
        for (const auto& [key, value] : as_dict(from).entries) put(key, value);
      } else {
        std::size_t i = 0;
        for (const Value& pair : iterate(heap_, from)) {
          if (!pair.is_string() && !pair.is(Kind::sequence)) {
            fail("cannot convert dictionary update sequence element #" + std::to_string(i) +
                 " to a sequence");
          }
          const std::vector<Value> items = iterate(heap_, pair);
          if (items.size() != 2) {
            fail("dictionary update sequence element #" + std::to_string(i) + " has length " +
                 std::to_string(items.size()) + "; 2 is required");
          }
          put(items[0], items[1]);
          ++i;
        }
      }
    }
    for (const auto& [key, value] : arguments.keywords) put(heap_.string(key), value);
    return out;
  }
  if (name == "raise_exception") {
    const auto bound = bind("raise_exception", arguments, {"message"}, 1);
    fail(to_string(heap_, *bound[0]).text().bytes);
  }
  if (name == "strftime_now") {
    const auto bound = bind("strftime_now", arguments, {"format"}, 1);
    if (!bound[0]->is_string()) fail("strftime() argument 1 must be str, not " + type_name(*bound[0]));
    return heap_.string(strftime_now(bound[0]->text().bytes));
  }
  auto* callable = heap_.make<Callable>();
  if (name == "cycler") {
    if (arguments.positional.empty()) fail("at least one item has to be provided");
    callable->type = CallableType::cycler;
    callable->items = arguments.positional;
  } else {
    const auto bound = bind("joiner", arguments, {"sep"}, 0);
    callable->type = CallableType::joiner;
    callable->items = {bound[0] != nullptr ? *bound[0] : heap_.string(", ")};
  }
  return Value(Kind::callable, callable);
}

std::string Interpreter::strftime_now(const std::string& format) const {
  if (format.size() > 1000) fail("a date format is longer than 1000 bytes");
  std::tm when{};
  if (now_.has_value()) {
    when = *now_;
  } else {
    const std::time_t seconds = std::time(nullptr);
    localtime_r(&seconds, &when);
  }
  // What Python adds to, or leaves out of, C's strftime for a time without a zone.
  std::string plain;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      plain += format[i];
      continue;
    }
    ++i;
    if (format[i] == 'f') {
      plain += "000000";
    } else if (format[i] != 'z' && format[i] != 'Z') {
      plain += '%';
      plain += format[i];
    }
  }
  plain += ' ';  // tells an empty result from a buffer that is too small
  std::array<char, 8192> buffer{};
  const std::size_t n = std::strftime(buffer.data(), buffer.size(), plain.c_str(), &when);
  if (n == 0) fail("a date is longer than " + std::to_string(buffer.size()) + " bytes");
  return {buffer.data(), n - 1};
}

}  // namespace ttt::inline v2::jinja

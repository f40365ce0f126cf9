#include "text/jinja_interpreter.h"

#include <array>

#include "ttt/base/error.h"

namespace ttt::inline v2::jinja {

namespace {

constexpr int max_evaluation_depth = 2500;  // of evaluate and run_node together: bounds the stack

constexpr std::array<std::string_view, 7> globals = {"range",  "dict",   "namespace",   "raise_exception",
                                                     "cycler", "joiner", "strftime_now"};

}  // namespace

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

}  // namespace ttt::inline v2::jinja

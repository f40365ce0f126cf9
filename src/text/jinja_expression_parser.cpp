#include "text/jinja_expression_parser.h"

#include <array>

#include "text/jinja_unicode.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

void ExpressionParser::assignable(const Token& name) const {
  static constexpr std::array<std::string_view, 6> constants = {"true", "false", "none",
                                                                "True", "False", "None"};
  if (std::find(constants.begin(), constants.end(), name.text) != constants.end()) {
    syntax_error("can't assign to 'const'", name.line);
  }
}

ExprPtr ExpressionParser::parse_target(std::string_view end, bool with_namespace) {
  const int line = current().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_op(",");
    if (tuple_ends(end)) break;
    if (is_op("(")) {
      const Deeper deeper(expression_depth_, max_expression_depth, line);
      next();
      ExprPtr inner = parse_target({}, with_namespace);
      expect_op(")");
      items.push_back(std::move(inner));
    } else {
      const Type type = current().type;
      if (type == Type::string || type == Type::integer || type == Type::real) {
        syntax_error("can't assign to 'const'", line);
      }
      if (type != Type::name) syntax_error("unexpected '" + describe(current()) + "'", current().line);
      const Token name = next();
      assignable(name);
      ExprPtr item = make(Op::name, name.line);
      item->name = intern(name.text);
      if (with_namespace && skip_op(".")) {
        item->op = Op::namespace_attribute;
        item->text = expect(Type::name, "name").text;
        mention(name.text);
      }
      items.push_back(std::move(item));
    }
    if (!is_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (items.empty()) syntax_error("Expected an expression, got '" + describe(current()) + "'", line);
    return std::move(items[0]);
  }
  ExprPtr tuple = make(Op::tuple, line);
  for (ExprPtr& item : items) adopt(*tuple, std::move(item));
  return tuple;
}

bool ExpressionParser::tuple_ends(std::string_view end) const {
  if (current().type == Type::variable_end || current().type == Type::block_end || is_op(")")) return true;
  return !end.empty() && is_name(current(), end);
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end, bool parentheses) {
  const int line = current().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_op(",");
    if (tuple_ends(end)) break;
    items.push_back(parse_expression(with_conditional));
    if (!is_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!parentheses)
      syntax_error("Expected an expression, got '" + describe(current()) + "'", current().line);
  }
  ExprPtr tuple = make(Op::tuple, line);
  for (ExprPtr& item : items) adopt(*tuple, std::move(item));
  return tuple;
}

ExprPtr ExpressionParser::parse_expression(bool with_conditional) {
  const Deeper deeper(expression_depth_, max_expression_depth, current().line);
  if (!with_conditional) return parse_or();
  int line = current().line;
  ExprPtr then = parse_or();
  while (skip_name("if")) {
    ExprPtr conditional = make(Op::conditional, line);
    adopt(*conditional, parse_or());
    adopt(*conditional, std::move(then));
    adopt(*conditional, skip_name("else") ? parse_expression() : nullptr);
    then = std::move(conditional);
    line = current().line;
  }
  return then;
}

ExprPtr ExpressionParser::parse_binary(Operand operand, std::initializer_list<BinaryOperator> operators) {
  int line = current().line;
  ExprPtr left = (this->*operand)();
  while (true) {
    const auto* found = std::find_if(operators.begin(), operators.end(), [&](const BinaryOperator& o) {
      return is_op(o.text) || is_name(current(), o.text);
    });
    if (found == operators.end()) return left;
    next();
    ExprPtr right = (this->*operand)();
    ExprPtr expr = make(found->op, line);
    adopt(*expr, std::move(left));
    adopt(*expr, std::move(right));
    left = std::move(expr);
    line = current().line;
  }
}

ExprPtr ExpressionParser::parse_or() {
  return parse_binary(&ExpressionParser::parse_and, {{"or", Op::logical_or}});
}

ExprPtr ExpressionParser::parse_and() {
  return parse_binary(&ExpressionParser::parse_not, {{"and", Op::logical_and}});
}

ExprPtr ExpressionParser::parse_sum() {
  return parse_binary(&ExpressionParser::parse_concat, {{"+", Op::add}, {"-", Op::subtract}});
}

ExprPtr ExpressionParser::parse_product() {
  return parse_binary(&ExpressionParser::parse_power,
                      {{"*", Op::multiply}, {"/", Op::divide}, {"//", Op::floor_divide}, {"%", Op::modulo}});
}

ExprPtr ExpressionParser::parse_power() {
  return parse_binary(&ExpressionParser::parse_operand, {{"**", Op::power}});
}

ExprPtr ExpressionParser::parse_operand() { return parse_filter_expression(parse_unary()); }

ExprPtr ExpressionParser::parse_not() {
  if (!is_name(current(), "not")) return parse_compare();
  const Deeper deeper(expression_depth_, max_expression_depth, current().line);
  ExprPtr expr = make(Op::negation, next().line);
  adopt(*expr, parse_not());
  return expr;
}

ExprPtr ExpressionParser::parse_compare() {
  const int line = current().line;
  ExprPtr first = parse_sum();
  ExprPtr compare;
  while (true) {
    Comparison comparison{};
    static constexpr std::array<std::pair<std::string_view, Comparison>, 6> operators = {
        {{"==", Comparison::eq},
         {"!=", Comparison::ne},
         {"<", Comparison::lt},
         {"<=", Comparison::le},
         {">", Comparison::gt},
         {">=", Comparison::ge}}};
    const auto* found =
        std::find_if(operators.begin(), operators.end(), [&](const auto& o) { return is_op(o.first); });
    if (found != operators.end()) {
      comparison = found->second;
      next();
    } else if (skip_name("in")) {
      comparison = Comparison::in;
    } else if (is_name(current(), "not") && is_name(look(), "in")) {
      next();
      next();
      comparison = Comparison::not_in;
    } else {
      break;
    }
    if (compare == nullptr) {
      compare = make(Op::compare, line);
      adopt(*compare, std::move(first));
    }
    compare->operators.push_back(comparison);
    adopt(*compare, parse_sum());
  }
  return compare != nullptr ? std::move(compare) : std::move(first);
}

ExprPtr ExpressionParser::parse_concat() {
  const int line = current().line;
  ExprPtr first = parse_product();
  if (!is_op("~")) return first;
  ExprPtr concat = make(Op::concat, line);
  adopt(*concat, std::move(first));
  while (skip_op("~")) adopt(*concat, parse_product());
  return concat;
}

ExprPtr ExpressionParser::parse_unary() {
  const Deeper deeper(expression_depth_, max_expression_depth, current().line);
  ExprPtr node;
  if (is_op("-") || is_op("+")) {
    node = make(is_op("-") ? Op::minus : Op::plus, current().line);
    next();
    adopt(*node, parse_unary());
  } else {
    node = parse_primary();
  }
  return parse_postfix(std::move(node));
}

void ExpressionParser::mention(const std::string& name) {
  mentioned_.insert(name);
  out_.loaded.insert(name);
}

ExprPtr ExpressionParser::parse_primary() {
  const Token token = current();
  ExprPtr node = make(Op::constant, token.line);
  switch (token.type) {
    case Type::name:
      next();
      if (token.text == "true" || token.text == "True") {
        node->value = Value(true);
      } else if (token.text == "false" || token.text == "False") {
        node->value = Value(false);
      } else if (token.text == "none" || token.text == "None") {
        node->value = Value();
      } else {
        const char32_t first = utf8::decode(token.text);
        if (!(first == '_' || is_alphabetic(first)))
          syntax_error("Invalid character in identifier", token.line);
        node->op = Op::name;
        node->name = intern(token.text);
        mention(token.text);
      }
      return node;
    case Type::string: {
      std::string text;
      while (current().type == Type::string) text += next().text;
      node->value = constant_string(text);
      return node;
    }
    case Type::integer:
      next();
      node->value = Value(token.integer);
      return node;
    case Type::real:
      next();
      node->value = Value(token.real);
      return node;
    default:
      break;
  }
  if (skip_op("(")) {
    node = parse_tuple(true, {}, true);
    expect_op(")");
    return node;
  }
  if (skip_op("[")) {
    node->op = Op::list;
    while (!is_op("]")) {
      if (!node->args.empty()) expect_op(",");
      if (is_op("]")) break;
      adopt(*node, parse_expression());
    }
    expect_op("]");
    return node;
  }
  if (skip_op("{")) {
    node->op = Op::dict;
    while (!is_op("}")) {
      if (!node->args.empty()) expect_op(",");
      if (is_op("}")) break;
      adopt(*node, parse_expression());
      expect_op(":");
      adopt(*node, parse_expression());
    }
    expect_op("}");
    return node;
  }
  syntax_error("unexpected '" + describe(token) + "'", token.line);
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr node) {
  while (true) {
    if (is_op(".") || is_op("[")) {
      node = parse_subscript(std::move(node));
    } else if (is_op("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_filter_expression(ExprPtr node) {
  while (true) {
    if (is_op("|")) {
      node = parse_filter(std::move(node), false);
    } else if (is_name(current(), "is")) {
      node = parse_test(std::move(node));
    } else if (is_op("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr object) {
  const Token token = next();
  ExprPtr node = make(Op::subscript, token.line);
  adopt(*node, std::move(object));
  if (token.text == ".") {
    const Token name = next();
    if (name.type == Type::name) {
      node->op = Op::attribute;
      node->text = name.text;
      node->value = out_.constants->string(name.text);
      return node;
    }
    if (name.type != Type::integer) syntax_error("expected name or number", name.line);
    ExprPtr index = make(Op::constant, name.line);
    index->value = Value(name.integer);
    adopt(*node, std::move(index));
    return node;
  }
  std::vector<ExprPtr> items;
  while (!is_op("]")) {
    if (!items.empty()) expect_op(",");
    items.push_back(parse_subscripted());
  }
  expect_op("]");
  if (items.size() == 1) {
    adopt(*node, std::move(items[0]));
  } else {
    ExprPtr tuple = make(Op::tuple, token.line);
    for (ExprPtr& item : items) {
      if (item->op == Op::slice) syntax_error("a slice inside of a tuple is not supported", token.line);
      adopt(*tuple, std::move(item));
    }
    adopt(*node, std::move(tuple));
  }
  return node;
}

ExprPtr ExpressionParser::parse_subscripted() {
  ExprPtr slice = make(Op::slice, current().line);
  if (skip_op(":")) {
    adopt(*slice, nullptr);
  } else {
    ExprPtr start = parse_expression();
    if (!skip_op(":")) return start;
    adopt(*slice, std::move(start));
  }
  const auto absent = [&] { return is_op("]") || is_op(","); };
  adopt(*slice, is_op(":") || absent() ? nullptr : parse_expression());
  adopt(*slice, skip_op(":") && !absent() ? parse_expression() : nullptr);
  return slice;
}

std::unique_ptr<Call> ExpressionParser::parse_arguments(Expr& owner) {
  const int line = current().line;
  expect_op("(");
  auto call = std::make_unique<Call>();
  bool comma = false;
  const auto ensure = [&](bool valid) {
    if (!valid) syntax_error("invalid syntax for function call expression", line);
  };
  const auto deepen = [&](const ExprPtr& expr) {
    owner.depth = std::max(owner.depth, expr->depth + 1);
    if (owner.depth > max_expression_depth) {
      syntax_error("an expression is nested deeper than " + std::to_string(max_expression_depth), line);
    }
  };
  while (!is_op(")")) {
    if (comma) {
      expect_op(",");
      if (is_op(")")) break;
    }
    if (skip_op("*")) {
      ensure(call->star == nullptr && call->star_star == nullptr);
      call->star = parse_expression();
      deepen(call->star);
    } else if (skip_op("**")) {
      ensure(call->star_star == nullptr);
      call->star_star = parse_expression();
      deepen(call->star_star);
    } else if (current().type == Type::name && look().type == Type::op && look().text == "=") {
      ensure(call->star_star == nullptr);
      const std::string key = next().text;
      next();
      for (const auto& keyword : call->keywords) {
        if (keyword.first == key) syntax_error("keyword argument repeated: " + key, line);
      }
      call->keywords.emplace_back(key, parse_expression());
      deepen(call->keywords.back().second);
    } else {
      ensure(call->star == nullptr && call->star_star == nullptr && call->keywords.empty());
      call->positional.push_back(parse_expression());
      deepen(call->positional.back());
    }
    comma = true;
  }
  expect_op(")");
  return call;
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  ExprPtr node = make(Op::call, current().line);
  adopt(*node, std::move(callee));
  node->call = parse_arguments(*node);
  return node;
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect(Type::name, "name").text;
  while (skip_op(".")) name += "." + expect(Type::name, "name").text;
  return name;
}

ExprPtr ExpressionParser::parse_filter(ExprPtr node, bool start_inline) {
  while (is_op("|") || start_inline) {
    if (!start_inline) next();
    start_inline = false;
    ExprPtr filter = make(Op::filter, current().line);
    filter->text = dotted_name();
    adopt(*filter, std::move(node));
    filter->call = is_op("(") ? parse_arguments(*filter) : std::make_unique<Call>();
    node = std::move(filter);
  }
  return node;
}

ExprPtr ExpressionParser::parse_test(ExprPtr operand) {
  ExprPtr node = make(Op::test, next().line);
  const bool negated = skip_name("not");
  node->text = dotted_name();
  adopt(*node, std::move(operand));
  const Token& token = current();
  if (is_op("(")) {
    node->call = parse_arguments(*node);
  } else {
    node->call = std::make_unique<Call>();
    const bool operand_follows = token.type == Type::name || token.type == Type::string ||
                                 token.type == Type::integer || token.type == Type::real || is_op("[") ||
                                 is_op("{");
    if (operand_follows && !is_name(token, "else") && !is_name(token, "or") && !is_name(token, "and")) {
      if (is_name(token, "is")) syntax_error("You cannot chain multiple tests with is", token.line);
      ExprPtr argument = parse_postfix(parse_primary());
      node->depth = std::max(node->depth, argument->depth + 1);
      node->call->positional.push_back(std::move(argument));
    }
  }
  if (!negated) return node;
  ExprPtr negation = make(Op::negation, node->line);
  adopt(*negation, std::move(node));
  return negation;
}

}  // namespace ttt::inline v2::jinja

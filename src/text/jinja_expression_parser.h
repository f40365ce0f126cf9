// jinja2's expressions by recursive descent over the tokens of a template.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_lexer.h"
#include "text/jinja_parser.h"

namespace ttt::inline v2::jinja {

class ExpressionParser {
 protected:
  ExpressionParser(std::vector<Token> tokens, Template& out) : out_(out), tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  static bool is_name(const Token& token, std::string_view name) {
    return token.type == Type::name && token.text == name;
  }
  bool is_op(std::string_view op) const { return current().type == Type::op && current().text == op; }
  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    next();
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!is_name(current(), name)) return false;
    next();
    return true;
  }
  [[noreturn]] void expected(std::string_view what) const {
    if (current().type == Type::eof) {
      syntax_error("unexpected end of template, expected '" + std::string(what) + "'.", current().line);
    }
    syntax_error("expected token '" + std::string(what) + "', got '" + describe(current()) + "'",
                 current().line);
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) expected(op);
  }
  const Token& expect(Type type, std::string_view what) {
    if (current().type != type) expected(what);
    return next();
  }

  NameId intern(const std::string& name) {
    const auto [entry, added] = out_.ids.emplace(name, static_cast<NameId>(out_.names.size()));
    if (added) out_.names.push_back(name);
    return entry->second;
  }

  Value constant_string(std::string_view text) {
    const Value value = out_.constants->string(text);
    out_.literals.push_back(&value.text());
    return value;
  }

  ExprPtr make(Op op, int line) const {
    auto expr = std::make_unique<Expr>();
    expr->op = op;
    expr->line = line;
    return expr;
  }

  void adopt(Expr& parent, ExprPtr child) {
    if (child != nullptr) {
      parent.depth = std::max(parent.depth, child->depth + 1);
      if (parent.depth > max_expression_depth) {
        syntax_error("an expression is nested deeper than " + std::to_string(max_expression_depth),
                     parent.line);
      }
    }
    parent.args.push_back(std::move(child));
  }

  struct Deeper {  // bounds the recursion of the parser itself
    Deeper(int& depth, int limit, int line) : depth_(depth) {
      if (++depth_ > limit) syntax_error("the template is nested deeper than " + std::to_string(limit), line);
    }
    ~Deeper() { --depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    int& depth_;
  };

  void assignable(const Token& name) const;
  // A name, "ns.name" where allowed, or a tuple of them.
  ExprPtr parse_target(std::string_view end, bool with_namespace);
  ExprPtr parse_tuple(bool with_conditional, std::string_view end, bool parentheses);
  ExprPtr parse_expression(bool with_conditional = true);
  ExprPtr parse_filter(ExprPtr node, bool start_inline);

  static constexpr int max_expression_depth = 200;
  Template& out_;
  std::set<std::string> mentioned_;  // names read in the macro being parsed

 private:
  bool tuple_ends(std::string_view end) const;

  // One level of left-associative operators; its operands are of the next tighter level.
  struct BinaryOperator {
    std::string_view text;
    Op op;
  };
  using Operand = ExprPtr (ExpressionParser::*)();
  ExprPtr parse_binary(Operand operand, std::initializer_list<BinaryOperator> operators);
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_operand();
  ExprPtr parse_unary();
  void mention(const std::string& name);
  ExprPtr parse_primary();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filter_expression(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_subscripted();
  std::unique_ptr<Call> parse_arguments(Expr& owner);
  ExprPtr parse_call(ExprPtr callee);
  std::string dotted_name();
  ExprPtr parse_test(ExprPtr operand);

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int expression_depth_ = 0;
};

}  // namespace ttt::inline v2::jinja

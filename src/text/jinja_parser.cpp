#include "text/jinja_parser.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "text/jinja_expression_parser.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

namespace {

constexpr std::size_t max_source_bytes = std::size_t{1} << 20;
constexpr int max_statement_depth = 100;

// jinja2 looks filters and tests up when it compiles; those under a condition only when they are reached.
void check_names(const Expr& expr, bool soft) {
  if (!soft && expr.op == Op::filter && !is_filter(expr.text)) {
    syntax_error("No filter named " + quoted(expr.text) + ".", expr.line);
  }
  if (!soft && expr.op == Op::test && !is_test(expr.text)) {
    syntax_error("No test named " + quoted(expr.text) + ".", expr.line);
  }
  const bool inner = soft || expr.op == Op::conditional;
  for (const ExprPtr& arg : expr.args) {
    if (arg != nullptr) check_names(*arg, inner);
  }
  if (expr.call == nullptr) return;
  for (const ExprPtr& arg : expr.call->positional) check_names(*arg, inner);
  for (const auto& keyword : expr.call->keywords) check_names(*keyword.second, inner);
  if (expr.call->star != nullptr) check_names(*expr.call->star, inner);
  if (expr.call->star_star != nullptr) check_names(*expr.call->star_star, inner);
}

void check_names(const Node& node, bool soft) {
  const bool inner = node.tag == Tag::if_;
  for (std::size_t i = 0; i < node.exprs.size(); ++i) {
    if (node.exprs[i] != nullptr) check_names(*node.exprs[i], soft || inner);
  }
  if (node.macro != nullptr) {
    for (const Parameter& parameter : node.macro->parameters) {
      if (parameter.default_value != nullptr) check_names(*parameter.default_value, false);
    }
    for (const Node& child : node.macro->body) check_names(child, false);
  }
  for (const Body& body : node.bodies) {
    for (const Node& child : body) check_names(child, inner);
  }
}

using EndTags = std::span<const std::string_view>;

class Parser : private ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, Template& out) : ExpressionParser(std::move(tokens), out) {}

  void run() {
    out_.body = subparse({});
    for (const Node& node : out_.body) check_names(node, false);
  }

 private:
  Body subparse(EndTags end_tags) {
    Body body;
    while (current().type != Type::eof) {
      const Token& token = current();
      switch (token.type) {
        case Type::data: {
          Node node;
          node.tag = Tag::data;
          node.line = token.line;
          node.value = constant_string(token.text);
          body.push_back(std::move(node));
          next();
          break;
        }
        case Type::variable_begin: {
          Node node;
          node.tag = Tag::output;
          node.line = next().line;
          node.exprs.push_back(parse_tuple(true, {}, false));
          expect(Type::variable_end, "end of print statement");
          body.push_back(std::move(node));
          break;
        }
        default:
          next();  // block_begin
          if (current().type == Type::name &&
              std::find(end_tags.begin(), end_tags.end(), current().text) != end_tags.end()) {
            return body;
          }
          body.push_back(parse_statement());
          expect(Type::block_end, "end of statement block");
      }
    }
    return body;
  }

  Body parse_statements(EndTags end_tags, bool drop) {
    skip_op(":");
    expect(Type::block_end, "end of statement block");
    end_tags_.push_back(end_tags);
    Body body = subparse(end_tags);
    if (current().type == Type::eof) unknown_tag(nullptr);
    end_tags_.pop_back();
    if (drop) next();
    return body;
  }

  [[noreturn]] void unknown_tag(const Token* token) const {
    std::string looking;
    bool known = false;
    if (!end_tags_.empty()) {
      for (std::string_view tag : end_tags_.back())
        looking += (looking.empty() ? "'" : " or '") + std::string(tag) + "'";
      for (EndTags tags : end_tags_) {
        known |= token != nullptr && std::find(tags.begin(), tags.end(), token->text) != tags.end();
      }
    }
    std::string message =
        token == nullptr ? "Unexpected end of template." : "Encountered unknown tag '" + token->text + "'.";
    if (!looking.empty()) {
      message += known ? " You probably made a nesting mistake. Jinja is expecting this tag, but currently "
                         "looking for " +
                             looking + "."
                       : " Jinja was looking for the following tags: " + looking + ".";
    }
    if (!tag_stack_.empty())
      message += " The innermost block that needs to be closed is '" + tag_stack_.back() + "'.";
    syntax_error(message, current().line);
  }

  Node parse_statement() {
    const Token token = current();
    if (token.type != Type::name) syntax_error("tag name expected", token.line);
    const Deeper deeper(statement_depth_, max_statement_depth, token.line);
    tag_stack_.push_back(token.text);
    Node node;
    node.line = token.line;
    if (token.text == "if") {
      parse_if(node);
    } else if (token.text == "for") {
      parse_for(node);
    } else if (token.text == "set") {
      parse_set(node);
    } else if (token.text == "macro") {
      parse_macro(node);
    } else if (token.text == "call") {
      parse_call_block(node);
    } else if (token.text == "filter") {
      next();
      node.tag = Tag::filter;
      node.exprs.push_back(parse_filter(nullptr, true));
      static constexpr std::array<std::string_view, 1> end = {"endfilter"};
      node.bodies.push_back(parse_isolated(end));
    } else if (token.text == "with") {
      parse_with(node);
    } else if (token.text == "generation") {
      next();
      node.tag = Tag::generation;
      static constexpr std::array<std::string_view, 1> end = {"endgeneration"};
      node.bodies.push_back(parse_isolated(end));
    } else if (token.text == "print") {
      next();
      node.tag = Tag::output;
      while (current().type != Type::block_end) {
        if (!node.exprs.empty()) expect_op(",");
        node.exprs.push_back(parse_expression());
      }
    } else if (token.text == "break" || token.text == "continue") {
      next();
      if (loops_ == 0) syntax_error("'" + token.text + "' outside loop", token.line);
      node.tag = token.text == "break" ? Tag::break_ : Tag::continue_;
    } else if (token.text == "include" || token.text == "import" || token.text == "from" ||
               token.text == "extends" || token.text == "block" || token.text == "autoescape") {
      syntax_error("the tag '" + token.text + "' is not supported", token.line,
                   "a chat template stands alone");
    } else {
      tag_stack_.pop_back();
      unknown_tag(&token);
    }
    tag_stack_.pop_back();
    return node;
  }

  Body parse_isolated(EndTags end) {  // a body from which no break leads out
    const int loops = std::exchange(loops_, 0);
    Body body = parse_statements(end, true);
    loops_ = loops;
    return body;
  }

  void parse_if(Node& node) {
    node.tag = Tag::if_;
    next();
    while (true) {
      static constexpr std::array<std::string_view, 3> ends = {"elif", "else", "endif"};
      node.exprs.push_back(parse_tuple(false, {}, false));
      node.bodies.push_back(parse_statements(ends, false));
      const Token& token = next();
      if (token.text == "elif") continue;
      if (token.text == "else") {
        static constexpr std::array<std::string_view, 1> end = {"endif"};
        node.bodies.push_back(parse_statements(end, true));
      }
      return;
    }
  }

  void parse_for(Node& node) {
    node.tag = Tag::for_;
    next();
    node.targets.push_back(parse_target("in", false));
    if (!skip_name("in")) expected("in");
    node.exprs.push_back(parse_tuple(false, "recursive", false));
    node.exprs.push_back(skip_name("if") ? parse_expression() : nullptr);
    node.recursive = skip_name("recursive");
    static constexpr std::array<std::string_view, 2> ends = {"endfor", "else"};
    const int loops = loops_;
    ++loops_;
    node.bodies.push_back(parse_statements(ends, false));
    loops_ = loops;
    if (next().text == "else") {
      static constexpr std::array<std::string_view, 1> end = {"endfor"};
      node.bodies.push_back(parse_statements(end, true));
    }
  }

  void parse_set(Node& node) {
    next();
    node.targets.push_back(parse_target({}, true));
    if (skip_op("=")) {
      node.tag = Tag::set;
      node.exprs.push_back(parse_tuple(true, {}, false));
      return;
    }
    node.tag = Tag::set_block;
    node.exprs.push_back(is_op("|") ? parse_filter(nullptr, false) : nullptr);
    static constexpr std::array<std::string_view, 1> end = {"endset"};
    node.bodies.push_back(parse_isolated(end));
  }

  void parse_with(Node& node) {
    node.tag = Tag::with;
    next();
    while (current().type != Type::block_end) {
      if (!node.targets.empty()) expect_op(",");
      node.targets.push_back(parse_target({}, false));
      expect_op("=");
      node.exprs.push_back(parse_expression());
    }
    static constexpr std::array<std::string_view, 1> end = {"endwith"};
    node.bodies.push_back(parse_statements(end, true));
  }

  void parse_signature(Macro& macro) {
    expect_op("(");
    while (!is_op(")")) {
      if (!macro.parameters.empty()) expect_op(",");
      const Token& name = expect(Type::name, "name");
      Parameter parameter;
      assignable(name);
      parameter.name = intern(name.text);
      for (const Parameter& other : macro.parameters) {
        if (other.name == parameter.name) {
          syntax_error("duplicate argument " + quoted(name.text) + " in function definition", name.line);
        }
      }
      if (skip_op("=")) {
        parameter.default_value = parse_expression();
      } else if (!macro.parameters.empty() && macro.parameters.back().default_value != nullptr) {
        syntax_error("non-default argument follows default argument", current().line);
      }
      macro.parameters.push_back(std::move(parameter));
    }
    expect_op(")");
  }

  void parse_macro_body(Macro& macro, EndTags end) {
    std::set<std::string> outer;
    outer.swap(mentioned_);
    macro.body = parse_isolated(end);
    for (const Parameter& parameter : macro.parameters) {
      if (parameter.name == intern("caller")) mentioned_.erase("caller");
    }
    macro.uses_varargs = mentioned_.count("varargs") > 0;
    macro.uses_kwargs = mentioned_.count("kwargs") > 0;
    macro.uses_caller = mentioned_.count("caller") > 0;
    mentioned_.merge(outer);
  }

  void parse_macro(Node& node) {
    node.tag = Tag::macro;
    next();
    node.macro = std::make_unique<Macro>();
    const Token& name = expect(Type::name, "name");
    assignable(name);
    node.macro->name = name.text;
    node.macro->id = intern(name.text);
    parse_signature(*node.macro);
    static constexpr std::array<std::string_view, 1> end = {"endmacro"};
    parse_macro_body(*node.macro, end);
  }

  void parse_call_block(Node& node) {
    node.tag = Tag::call;
    next();
    node.macro = std::make_unique<Macro>();
    node.macro->name = "caller";
    if (is_op("(")) parse_signature(*node.macro);
    node.exprs.push_back(parse_expression());
    if (node.exprs[0]->op != Op::call) syntax_error("expected call", node.line);
    static constexpr std::array<std::string_view, 1> end = {"endcall"};
    parse_macro_body(*node.macro, end);
  }

  int statement_depth_ = 0, loops_ = 0;
  std::vector<EndTags> end_tags_;
  std::vector<std::string> tag_stack_;
};

}  // namespace

NameId Template::id(std::string_view name) const {
  const auto found = ids.find(std::string(name));
  return found == ids.end() ? -1 : found->second;
}

Template parse(std::string_view source) {
  if (source.size() > max_source_bytes) {
    throw Error("a chat template of " + std::to_string(source.size()) +
                    " bytes (limit: " + std::to_string(max_source_bytes) + ")",
                "chat template");
  }
  Template out;
  out.budget = std::make_unique<Budget>();
  out.budget->memory_left = 64 * max_source_bytes;
  out.budget->steps_left = std::numeric_limits<std::uint64_t>::max();
  out.constants = std::make_unique<Heap>(out.budget.get());
  try {
    Parser(tokenize(utf8::repair(source)), out).run();
  } catch (const Failure& failure) { throw Error(printable(failure.message, 400), "chat template"); }
  return out;
}

}  // namespace ttt::inline v2::jinja

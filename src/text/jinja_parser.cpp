#include "text/jinja_parser.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "text/jinja_unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

namespace {

constexpr std::size_t max_source_bytes = std::size_t{1} << 20;
constexpr int max_expression_depth = 200;
constexpr int max_statement_depth = 100;

[[noreturn]] void syntax_error(const std::string& message, int line, std::string_view fix = {}) {
  throw Error(printable(message, 400), "chat template line " + std::to_string(line), fix);
}

enum class Type : std::uint8_t {
  data,
  block_begin,
  block_end,
  variable_begin,
  variable_end,
  name,
  string,
  integer,
  real,
  op,
  eof
};

struct Token {
  Type type = Type::eof;
  int line = 1;
  std::string text;  // data, name, decoded string, operator
  std::int64_t integer = 0;
  double real = 0;
};

std::string describe(const Token& token) {
  switch (token.type) {
    case Type::data:
      return "template data / text";
    case Type::block_begin:
      return "begin of statement block";
    case Type::block_end:
      return "end of statement block";
    case Type::variable_begin:
      return "begin of print statement";
    case Type::variable_end:
      return "end of print statement";
    case Type::name:
    case Type::op:
      return token.text;
    case Type::string:
      return "string";
    case Type::integer:
      return "integer";
    case Type::real:
      return "float";
    case Type::eof:
      return "end of template";
  }
  return "";
}

// Lexer
// ---------------------------------------------------------------------------------------------------------------

class Lexer {
 public:
  explicit Lexer(std::string_view source) {
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r') {
        source_ += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        source_ += source[i];
      }
    }
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();
  }

  std::vector<Token> run() {
    while (position_ < source_.size()) root();
    emit(Type::eof, {});
    return std::move(tokens_);
  }

 private:
  std::string_view rest(std::size_t at) const {
    return std::string_view(source_).substr(std::min(at, source_.size()));
  }
  bool starts(std::size_t at, std::string_view what) const { return rest(at).substr(0, what.size()) == what; }
  std::size_t skip_space(std::size_t at) const { return at + leading_space(rest(at)); }

  void count_lines(std::size_t begin, std::size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(begin),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
  }

  void emit(Type type, std::string_view text) {
    Token token;
    token.type = type;
    token.line = line_;
    token.text = text;
    tokens_.push_back(std::move(token));
  }

  void emit_data(std::size_t begin, std::size_t end) {
    if (end > begin) emit(Type::data, rest(begin).substr(0, end - begin));
  }

  // Where "raw" or "endraw" stands alone in the tag that begins at `at`: the end of the word and the spaces
  // after it.
  std::size_t bare_tag(std::size_t at, std::string_view word) const {
    std::size_t i = at + 2;
    if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
    i = skip_space(i);
    return starts(i, word) ? skip_space(i + word.size()) : 0;
  }

  // The template text before a tag at [begin, tag), by the whitespace control that the tag asks for.
  std::size_t strip_before(std::size_t begin, std::size_t tag, bool variable) const {
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const std::string_view text = rest(begin).substr(0, tag - begin);
    if (sign == '-') return begin + text.size() - trailing_space(text);
    if (sign == '+' || variable) return tag;
    const std::size_t newline = text.rfind('\n');
    const std::size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_begin == 0 && !line_starting_) return tag;
    const std::string_view indent = text.substr(line_begin);
    return leading_space(indent) == indent.size() ? begin + line_begin : tag;
  }

  void root() {
    std::size_t tag = position_;
    while (tag < source_.size() &&
           !(source_[tag] == '{' && tag + 1 < source_.size() &&
             (source_[tag + 1] == '{' || source_[tag + 1] == '%' || source_[tag + 1] == '#'))) {
      ++tag;
    }
    if (tag >= source_.size()) {
      emit_data(position_, source_.size());
      count_lines(position_, source_.size());
      position_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1];
    emit_data(position_, strip_before(position_, tag, kind == '{'));
    count_lines(position_, tag);
    std::size_t after = tag + 2;
    if (after < source_.size() && (source_[after] == '-' || source_[after] == '+')) ++after;
    position_ = after;
    line_starting_ = false;
    if (kind == '%') {
      const std::size_t raw = bare_tag(tag, "raw");
      if (raw != 0 && (starts(raw, "%}") || starts(raw, "-%}"))) {
        raw_block(tag, raw);
        return;
      }
      emit(Type::block_begin, {});
      inside(false);
    } else if (kind == '{') {
      emit(Type::variable_begin, {});
      inside(true);
    } else {
      comment(after);
    }
  }

  void finish_tag(std::size_t end) {  // `end`: after the tag and what it swallows
    count_lines(position_, end);
    line_starting_ = end > 0 && source_[end - 1] == '\n';
    position_ = end;
  }

  void comment(std::size_t begin) {
    const std::size_t end = source_.find("#}", begin);
    if (end == std::string::npos) syntax_error("Missing end of comment tag", line_);
    const char sign = end > begin ? source_[end - 1] : '\0';
    std::size_t after = end + 2;
    if (sign == '-') {
      after = skip_space(after);
    } else if (sign != '+' && after < source_.size() && source_[after] == '\n') {
      ++after;
    }
    finish_tag(after);
  }

  void raw_block(std::size_t tag, std::size_t end) {
    const bool strip = source_[end] == '-';
    std::size_t begin = end + (strip ? 3 : 2);
    if (strip) begin = skip_space(begin);
    count_lines(tag, begin);
    line_starting_ = source_[begin - 1] == '\n';
    for (std::size_t close = source_.find("{%", begin); close != std::string::npos;
         close = source_.find("{%", close + 1)) {
      const std::size_t at = bare_tag(close, "endraw");
      if (at == 0) continue;
      std::size_t after = 0;
      if (starts(at, "+%}")) {
        after = at + 3;
      } else if (starts(at, "-%}")) {
        after = skip_space(at + 3);
      } else if (starts(at, "%}")) {
        after = at + 2;
        if (after < source_.size() && source_[after] == '\n') ++after;
      } else {
        continue;
      }
      emit_data(begin, strip_before(begin, close, false));
      position_ = begin;
      finish_tag(after);
      return;
    }
    syntax_error("Missing end of raw directive", line_);
  }

  void inside(bool variable) {
    std::string closers;  // of the brackets that are open
    while (true) {
      const std::size_t at = position_;
      if (at >= source_.size()) return;  // the parser says what is missing
      if (closers.empty()) {
        std::size_t end = 0;
        if (variable) {
          if (starts(at, "-}}")) {
            end = skip_space(at + 3);
          } else if (starts(at, "}}")) {
            end = at + 2;
          }
        } else if (starts(at, "+%}")) {
          end = at + 3;
        } else if (starts(at, "-%}")) {
          end = skip_space(at + 3);
        } else if (starts(at, "%}")) {
          end = at + 2;
          if (end < source_.size() && source_[end] == '\n') ++end;
        }
        if (end != 0) {
          emit(variable ? Type::variable_end : Type::block_end, {});
          finish_tag(end);
          return;
        }
      }
      const std::size_t space = leading_space(rest(at));
      if (space > 0) {
        finish_tag(at + space);
        continue;
      }
      token(closers);
    }
  }

  static bool is_digit_at(std::string_view text, std::size_t i) {
    return i < text.size() && text[i] >= '0' && text[i] <= '9';
  }

  // (\d+_)*\d+ from `i`; `i` itself where nothing matches.
  static std::size_t digits(std::string_view text, std::size_t i) {
    std::size_t end = i;
    while (is_digit_at(text, end) ||
           (end > i && end < text.size() && text[end] == '_' && is_digit_at(text, end + 1)))
      ++end;
    return end;
  }

  bool number() {
    const std::string_view text = rest(position_);
    if (!is_digit_at(text, 0)) return false;
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    const std::size_t whole = digits(text, 0);
    std::size_t end = whole;
    if (!after_dot) {
      if (end < text.size() && text[end] == '.' && is_digit_at(text, end + 1)) end = digits(text, end + 1);
      if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
        std::size_t exponent = end + 1;
        if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
        if (is_digit_at(text, exponent)) end = digits(text, exponent);
      }
    }
    Token token;
    token.line = line_;
    if (end > whole) {
      token.type = Type::real;
      std::string plain(text.substr(0, end));
      std::erase(plain, '_');
      if (!parse_real(plain, token.real)) syntax_error("invalid number " + quoted(plain), line_);
    } else {
      // 0x, 0o and 0b, decimal without leading zeros, or zeros alone.
      end = 0;
      if (text[0] == '0' && text.size() > 1) {
        const char letter = static_cast<char>(text[1] | 0x20);
        const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
        const auto fits = [&](std::size_t i) {
          if (i >= text.size()) return false;
          const char c = static_cast<char>(text[i] | 0x20);
          const int d = text[i] >= '0' && text[i] <= '9' ? text[i] - '0'
                        : c >= 'a' && c <= 'f'           ? c - 'a' + 10
                                                         : 99;
          return d < base;
        };
        if (base != 0) {
          std::size_t i = 2;
          while (fits(i) || (i < text.size() && text[i] == '_' && fits(i + 1))) ++i;
          if (i > 2) end = i;
        }
      }
      if (end == 0) {
        const bool zero = text[0] == '0';
        end = 1;
        const auto fits = [&](std::size_t i) { return is_digit_at(text, i) && (!zero || text[i] == '0'); };
        while (fits(end) || (end < text.size() && text[end] == '_' && fits(end + 1))) ++end;
      }
      token.type = Type::integer;
      std::string plain(text.substr(0, end));
      std::erase(plain, '_');
      try {
        if (!parse_integer(plain, 0, token.integer)) syntax_error("invalid number " + quoted(plain), line_);
      } catch (const Failure& failure) { syntax_error(failure.message, line_); }
    }
    token.text = std::string(text.substr(0, end));
    tokens_.push_back(std::move(token));
    position_ += end;
    return true;
  }

  void token(std::string& closers) {
    if (number()) return;
    const std::string_view text = rest(position_);
    // Names.
    std::size_t end = 0;
    while (end < text.size()) {
      const std::size_t n = utf8::valid_length(text.substr(end));
      if (n == 0 || !is_word(utf8::decode(text.substr(end)))) break;
      end += n;
    }
    if (end > 0) {
      emit(Type::name, text.substr(0, end));
      position_ += end;
      return;
    }
    // Strings.
    if (text[0] == '\'' || text[0] == '"') {
      std::size_t close = 1;
      while (close < text.size() && text[close] != text[0]) close += text[close] == '\\' ? 2 : 1;
      if (close < text.size()) {
        Token token;
        token.type = Type::string;
        token.line = line_;
        token.text = unescape(text.substr(1, close - 1));
        tokens_.push_back(std::move(token));
        finish_tag(position_ + close + 1);
        return;
      }
    }
    // Operators, the longer ones first.
    static constexpr std::array<std::string_view, 28> operators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
        "(",  ")",  "{",  "}",  ">",  "<",  "=", ".", ":", "|", ",", ";", "",  ""};
    for (std::string_view op : operators) {
      if (op.empty() || text.substr(0, op.size()) != op) continue;
      if (op == "(") closers += ')';
      if (op == "[") closers += ']';
      if (op == "{") closers += '}';
      if (op == ")" || op == "]" || op == "}") {
        if (closers.empty()) syntax_error("unexpected '" + std::string(op) + "'", line_);
        if (closers.back() != op[0]) {
          syntax_error("unexpected '" + std::string(op) + "', expected '" + closers.back() + "'", line_);
        }
        closers.pop_back();
      }
      emit(Type::op, op);
      position_ += op.size();
      return;
    }
    const std::size_t n = std::max<std::size_t>(1, utf8::valid_length(text));
    syntax_error("unexpected char " + quoted(text.substr(0, n)) + " at " + std::to_string(position_), line_);
  }

  // Python's "unicode-escape".
  std::string unescape(std::string_view text) const {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 >= text.size()) {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      const auto hexadecimal = [&](std::size_t count, const char* name) {
        char32_t value = 0;
        for (std::size_t k = 1; k <= count; ++k) {
          const char h = i + k < text.size() ? text[i + k] : '\0';
          const char low = static_cast<char>(h | 0x20);
          if (h >= '0' && h <= '9') {
            value = value * 16 + static_cast<char32_t>(h - '0');
          } else if (low >= 'a' && low <= 'f') {
            value = value * 16 + static_cast<char32_t>(low - 'a' + 10);
          } else {
            syntax_error("truncated " + std::string(name) + " escape", line_);
          }
        }
        if (value > 0x10FFFF) syntax_error("illegal Unicode character", line_);
        utf8::append(out, value);
        i += count;
      };
      switch (c) {
        case '\n':
          break;
        case '\\':
        case '\'':
        case '"':
          out += c;
          break;
        case 'a':
          out += '\a';
          break;
        case 'b':
          out += '\b';
          break;
        case 'f':
          out += '\f';
          break;
        case 'n':
          out += '\n';
          break;
        case 'r':
          out += '\r';
          break;
        case 't':
          out += '\t';
          break;
        case 'v':
          out += '\v';
          break;
        case 'x':
          hexadecimal(2, "\\xXX");
          break;
        case 'u':
          hexadecimal(4, "\\uXXXX");
          break;
        case 'U':
          hexadecimal(8, "\\UXXXXXXXX");
          break;
        case 'N':
          syntax_error("character names (\\N{...}) are not supported", line_,
                       "write the character or \\uXXXX");
        default:
          if (c >= '0' && c <= '7') {
            char32_t value = 0;
            std::size_t k = 0;
            while (k < 3 && i + k < text.size() && text[i + k] >= '0' && text[i + k] <= '7') {
              value = value * 8 + static_cast<char32_t>(text[i + k] - '0');
              ++k;
            }
            utf8::append(out, value);
            i += k - 1;
          } else {
            out += '\\';
            out += c;
          }
      }
    }
    return out;
  }

  std::string source_;
  std::size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

// Parser
// --------------------------------------------------------------------------------------------------------------

using EndTags = std::span<const std::string_view>;

class Parser {
 public:
  Parser(std::vector<Token> tokens, Template& out) : tokens_(std::move(tokens)), out_(out) {}

  void run() {
    out_.body = subparse({});
    for (const Node& node : out_.body) check_names(node, false);
  }

 private:
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

  // Statements.

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

  void assignable(const Token& name) const {
    static constexpr std::array<std::string_view, 6> constants = {"true", "false", "none",
                                                                  "True", "False", "None"};
    if (std::find(constants.begin(), constants.end(), name.text) != constants.end()) {
      syntax_error("can't assign to 'const'", name.line);
    }
  }

  // A name, "ns.name" where allowed, or a tuple of them.
  ExprPtr parse_target(std::string_view end, bool with_namespace) {
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

  // Expressions.

  bool tuple_ends(std::string_view end) const {
    if (current().type == Type::variable_end || current().type == Type::block_end || is_op(")")) return true;
    return !end.empty() && is_name(current(), end);
  }

  ExprPtr parse_tuple(bool with_conditional, std::string_view end, bool parentheses) {
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

  ExprPtr parse_expression(bool with_conditional = true) {
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

  ExprPtr binary(Op op, int line, ExprPtr left, ExprPtr right) {
    ExprPtr expr = make(op, line);
    adopt(*expr, std::move(left));
    adopt(*expr, std::move(right));
    return expr;
  }

  ExprPtr parse_or() {
    int line = current().line;
    ExprPtr left = parse_and();
    while (skip_name("or")) {
      ExprPtr right = parse_and();
      left = binary(Op::logical_or, line, std::move(left), std::move(right));
      line = current().line;
    }
    return left;
  }

  ExprPtr parse_and() {
    int line = current().line;
    ExprPtr left = parse_not();
    while (skip_name("and")) {
      ExprPtr right = parse_not();
      left = binary(Op::logical_and, line, std::move(left), std::move(right));
      line = current().line;
    }
    return left;
  }

  ExprPtr parse_not() {
    if (!is_name(current(), "not")) return parse_compare();
    const Deeper deeper(expression_depth_, max_expression_depth, current().line);
    ExprPtr expr = make(Op::negation, next().line);
    adopt(*expr, parse_not());
    return expr;
  }

  ExprPtr parse_compare() {
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

  ExprPtr parse_sum() {
    int line = current().line;
    ExprPtr left = parse_concat();
    while (is_op("+") || is_op("-")) {
      const Op op = next().text == "+" ? Op::add : Op::subtract;
      ExprPtr right = parse_concat();
      left = binary(op, line, std::move(left), std::move(right));
      line = current().line;
    }
    return left;
  }

  ExprPtr parse_concat() {
    const int line = current().line;
    ExprPtr first = parse_product();
    if (!is_op("~")) return first;
    ExprPtr concat = make(Op::concat, line);
    adopt(*concat, std::move(first));
    while (skip_op("~")) adopt(*concat, parse_product());
    return concat;
  }

  ExprPtr parse_product() {
    int line = current().line;
    ExprPtr left = parse_power();
    while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
      const std::string& text = next().text;
      const Op op = text == "*"    ? Op::multiply
                    : text == "/"  ? Op::divide
                    : text == "//" ? Op::floor_divide
                                   : Op::modulo;
      ExprPtr right = parse_power();
      left = binary(op, line, std::move(left), std::move(right));
      line = current().line;
    }
    return left;
  }

  ExprPtr parse_power() {
    int line = current().line;
    ExprPtr left = parse_unary(true);
    while (skip_op("**")) {
      ExprPtr right = parse_unary(true);
      left = binary(Op::power, line, std::move(left), std::move(right));
      line = current().line;
    }
    return left;
  }

  ExprPtr parse_unary(bool with_filter) {
    const Deeper deeper(expression_depth_, max_expression_depth, current().line);
    ExprPtr node;
    if (is_op("-") || is_op("+")) {
      node = make(is_op("-") ? Op::minus : Op::plus, current().line);
      next();
      adopt(*node, parse_unary(false));
    } else {
      node = parse_primary();
    }
    node = parse_postfix(std::move(node));
    return with_filter ? parse_filter_expression(std::move(node)) : std::move(node);
  }

  void mention(const std::string& name) {
    mentioned_.insert(name);
    out_.loaded.insert(name);
  }

  ExprPtr parse_primary() {
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

  ExprPtr parse_postfix(ExprPtr node) {
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

  ExprPtr parse_filter_expression(ExprPtr node) {
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

  ExprPtr parse_subscript(ExprPtr object) {
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

  ExprPtr parse_subscripted() {
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

  std::unique_ptr<Call> parse_arguments(Expr& owner) {
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

  ExprPtr parse_call(ExprPtr callee) {
    ExprPtr node = make(Op::call, current().line);
    adopt(*node, std::move(callee));
    node->call = parse_arguments(*node);
    return node;
  }

  std::string dotted_name() {
    std::string name = expect(Type::name, "name").text;
    while (skip_op(".")) name += "." + expect(Type::name, "name").text;
    return name;
  }

  ExprPtr parse_filter(ExprPtr node, bool start_inline) {
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

  ExprPtr parse_test(ExprPtr operand) {
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

  // jinja2 looks filters and tests up when it compiles; those under a condition only when they are reached.

  void check_names(const Node& node, bool soft) const {
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

  void check_names(const Expr& expr, bool soft) const {
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

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  Template& out_;
  int expression_depth_ = 0, statement_depth_ = 0, loops_ = 0;
  std::vector<EndTags> end_tags_;
  std::vector<std::string> tag_stack_;
  std::set<std::string> mentioned_;  // names read in the macro being parsed
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
    Parser(Lexer(utf8::repair(source)).run(), out).run();
  } catch (const Failure& failure) { throw Error(printable(failure.message, 400), "chat template"); }
  return out;
}

}  // namespace ttt::inline v2::jinja

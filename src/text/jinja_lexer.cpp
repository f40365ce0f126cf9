#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "text/jinja_unicode.h"
#include "text/jinja_value.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

void syntax_error(const std::string& message, int line, std::string_view fix) {
  throw Error(printable(message, 400), "chat template line " + std::to_string(line), fix);
}

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

namespace {

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

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace ttt::inline v2::jinja

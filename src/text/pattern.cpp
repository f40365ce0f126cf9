#include "text/pattern.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <map>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

class Pattern::Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;
  virtual void find_all(std::string_view text, std::vector<Span>& matches) const = 0;
  virtual bool hand_written() const { return true; }
};

namespace {

// --- hand-written scanners
// -------------------------------------------------------------------------------------

// The patterns of one family differ in these points.
struct WordRules {
  enum class Style {
    plain,      // contractions | ?L+ | ?N+ | ?[^sLN]+ | s+(?!S) | s+
    joined,     // contractions | [^rnLN]?L+ | N{1,k} | ?[^sLN]+[rn]* | s*[rn]+ | s+(?!S) | s+
    cased,      // [^rnLN]?upper*lower+contraction? | [^rnLN]?upper+lower*contraction? | the rest as in joined
    delimited,  // [ascii punctuation][A-Za-z]+ | [^rnLPS]?[LM]+ | ?[PS]+[rn]* | s*[rn]+ | s+(?!S) | s+
  };
  enum class Contractions { none, lower, any_case, any_case_unicode };
  Style style = Style::plain;
  Contractions contractions = Contractions::lower;
  bool marks = false;        // marks count as letters
  int digits = 0;            // most digits of a word; 0: any number
  bool slash = false;        // punctuation swallows '/' as it does line breaks
  bool final_space = false;  // s+$ goes before s*[rn]
};

class WordScanner final : public Pattern::Engine {
 public:
  explicit WordScanner(const WordRules& rules)
      : rules_(rules),
        letter_(class_letter | (rules.marks ? class_mark : 0)),
        other_stop_(class_letter | class_number | class_space | (rules.marks ? class_mark : 0)) {}

  void find_all(std::string_view text, std::vector<Span>& matches) const override {
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t end = match(text, i);
      if (end > i) {
        matches.push_back({i, end});
        i = end;
      } else {
        next_char(text, i);
      }
    }
  }

 private:
  std::uint8_t classes(std::string_view text, std::size_t& i) const {
    return table_.classes(next_char(text, i));
  }

  // End of the longest run from `i` of characters with a bit of `bits`.
  std::size_t run(std::string_view text, std::size_t i, std::uint8_t bits) const {
    while (i < text.size()) {
      std::size_t next = i;
      if (!(classes(text, next) & bits)) break;
      i = next;
    }
    return i;
  }
  std::size_t run_without(std::string_view text, std::size_t i, std::uint8_t bits) const {
    while (i < text.size()) {
      std::size_t next = i;
      if (classes(text, next) & bits) break;
      i = next;
    }
    return i;
  }

  // End of a contraction ('s 't 're 've 'm 'll 'd) at `i`, or `i`.
  std::size_t contraction(std::string_view text, std::size_t i) const {
    using Contractions = WordRules::Contractions;
    if (rules_.contractions == Contractions::none || i + 1 >= text.size() || text[i] != '\'') return i;
    const bool any_case = rules_.contractions != Contractions::lower;
    const auto at = [&](std::size_t k) {
      if (k >= text.size()) return '\0';
      const char c = text[k];
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    switch (at(i + 1)) {
      case 's':
      case 't':
      case 'm':
      case 'd':
        return i + 2;
      case 'r':
      case 'v':
        return at(i + 2) == 'e' ? i + 3 : i;
      case 'l':
        return at(i + 2) == 'l' ? i + 3 : i;
      case '\xC5':  // U+017F, the other lower case of S
        return rules_.contractions == Contractions::any_case_unicode && i + 2 < text.size() &&
                       text[i + 2] == '\xBF'
                   ? i + 3
                   : i;
      default:
        return i;
    }
  }

  static bool is_line_break(char c) { return c == '\r' || c == '\n'; }

  std::size_t whitespace(std::string_view text, std::size_t i, bool line_breaks) const {
    std::size_t end = i, last = i, after_break = i;
    while (end < text.size()) {
      std::size_t next = end;
      if (!(classes(text, next) & class_space)) break;
      if (is_line_break(text[end])) after_break = next;
      last = end;
      end = next;
    }
    const bool final_space = end == text.size() && rules_.final_space;
    if (line_breaks && after_break > i && !final_space) return after_break;
    return end == text.size() || last == i ? end : last;  // leave one to the word that follows
  }

  // [^\r\n\p{L}\p{N}]?, a prefix that any of the word alternatives may take.
  bool is_word_prefix(char32_t c, std::uint8_t bits) const {
    return c != '\r' && c != '\n' && !(bits & (class_letter | class_number));
  }

  static constexpr std::uint8_t upper_ = class_upper | class_other_letter | class_mark;
  static constexpr std::uint8_t lower_ = class_lower | class_other_letter | class_mark;

  // upper* lower+ from `i`; `i` when it does not match.
  std::size_t lower_word(std::string_view text, std::size_t i) const {
    std::size_t end = i, after_both = i;
    while (end < text.size()) {
      std::size_t next = end;
      const std::uint8_t bits = classes(text, next);
      if (!(bits & upper_)) break;
      end = next;
      if (bits & lower_) after_both = end;
    }
    const std::size_t after = run(text, end, lower_);
    return after > end ? after : after_both;  // backtracks to the last character that is of both kinds
  }
  std::size_t upper_word(std::string_view text, std::size_t i) const {
    const std::size_t end = run(text, i, upper_);
    return end > i ? run(text, end, lower_) : i;
  }

  std::size_t cased_word(std::string_view text, std::size_t i, std::size_t after_prefix) const {
    if (after_prefix > i) {
      if (const std::size_t end = lower_word(text, after_prefix); end > after_prefix)
        return contraction(text, end);
    }
    if (const std::size_t end = lower_word(text, i); end > i) return contraction(text, end);
    if (after_prefix > i) {
      if (const std::size_t end = upper_word(text, after_prefix); end > after_prefix)
        return contraction(text, end);
    }
    if (const std::size_t end = upper_word(text, i); end > i) return contraction(text, end);
    return i;
  }

  std::size_t number(std::string_view text, std::size_t i) const {
    if (rules_.digits == 0) return run(text, i, class_number);
    std::size_t end = i;
    for (int n = 0; n < rules_.digits && end < text.size(); ++n) {
      std::size_t next = end;
      if (!(classes(text, next) & class_number)) break;
      end = next;
    }
    return end;
  }

  std::size_t line_tail(std::string_view text, std::size_t i) const {
    while (i < text.size() && (is_line_break(text[i]) || (rules_.slash && text[i] == '/'))) ++i;
    return i;
  }

  // End of the match at `i`, or `i`.
  std::size_t match(std::string_view text, std::size_t i) const {
    using Style = WordRules::Style;
    std::size_t next = i;
    const char32_t c = next_char(text, next);
    const std::uint8_t bits = table_.classes(c);

    if (rules_.style == Style::plain) {
      if (c == '\'') {
        if (const std::size_t end = contraction(text, i); end > i) return end;
      }
      if (bits & letter_) return run(text, next, letter_);
      if (bits & class_number) return run(text, next, class_number);
      if (c == ' ' && next < text.size()) {
        std::size_t after = next;
        const std::uint8_t second = classes(text, after);
        if (second & letter_) return run(text, after, letter_);
        if (second & class_number) return run(text, after, class_number);
        if (!(second & class_space)) return run_without(text, after, other_stop_);
      }
      return bits & class_space ? whitespace(text, i, false) : run_without(text, next, other_stop_);
    }

    if (rules_.style == Style::delimited) {
      constexpr std::uint8_t word = class_letter | class_mark, sign = class_punctuation | class_symbol;
      if (bits & word) {
        // A mark may also be the optional prefix, with the same end.
        return run(text, next, word);
      }
      if (c < 0x80 && (bits & sign)) {
        std::size_t end = next;
        while (end < text.size() &&
               ((text[end] >= 'A' && text[end] <= 'Z') || (text[end] >= 'a' && text[end] <= 'z')))
          ++end;
        if (end > next) return end;
      }
      if (!(bits & sign) && c != '\r' && c != '\n') {
        if (const std::size_t end = run(text, next, word); end > next) return end;
      }
      if (bits & sign) return line_tail(text, run(text, next, sign));
      if (c == ' ') {
        if (const std::size_t end = run(text, next, sign); end > next) return line_tail(text, end);
      }
      return bits & class_space ? whitespace(text, i, true) : i;
    }

    if (rules_.style == Style::joined) {
      if (c == '\'') {
        if (const std::size_t end = contraction(text, i); end > i) return end;
      }
      if (bits & class_letter) return run(text, next, letter_);
      if (is_word_prefix(c, bits)) {
        if (const std::size_t end = run(text, next, letter_); end > next) return end;
      }
      if (bits & letter_) return next;  // a mark on its own
    } else {
      const std::size_t after_prefix = is_word_prefix(c, bits) ? next : i;
      if (const std::size_t end = cased_word(text, i, after_prefix); end > i) return end;
    }
    if (bits & class_number) return number(text, i);
    if (!(bits & class_space)) return line_tail(text, run_without(text, next, other_stop_));
    if (c == ' ') {
      if (const std::size_t end = run_without(text, next, other_stop_); end > next)
        return line_tail(text, end);
    }
    return whitespace(text, i, true);
  }

  WordRules rules_;
  std::uint8_t letter_, other_stop_;
  const CharTable& table_ = CharTable::instance();
};

// \p{N}, \p{N}{1,3} and \p{N}+
class NumberScanner final : public Pattern::Engine {
 public:
  explicit NumberScanner(int digits) : digits_(digits) {}
  void find_all(std::string_view text, std::vector<Span>& matches) const override {
    for (std::size_t i = 0; i < text.size();) {
      std::size_t end = i;
      for (int n = 0; (digits_ == 0 || n < digits_) && end < text.size(); ++n) {
        std::size_t next = end;
        if (!(table_.classes(next_char(text, next)) & class_number)) break;
        end = next;
      }
      if (end > i) {
        matches.push_back({i, end});
        i = end;
      } else {
        next_char(text, i);
      }
    }
  }

 private:
  int digits_;
  const CharTable& table_ = CharTable::instance();
};

class LiteralEngine final : public Pattern::Engine {
 public:
  explicit LiteralEngine(std::string_view literal) : literal_(literal) {}
  void find_all(std::string_view text, std::vector<Span>& matches) const override {
    if (literal_.empty()) return;
    for (std::size_t at = text.find(literal_); at != text.npos;
         at = text.find(literal_, at + literal_.size())) {
      matches.push_back({at, at + literal_.size()});
    }
  }

 private:
  std::string literal_;
};

// The spellings of the patterns above, generated from their variation points.
const std::map<std::string, WordRules, std::less<>>& known_patterns() {
  static const auto table = [] {
    std::map<std::string, WordRules, std::less<>> known;
    using Style = WordRules::Style;
    using Contractions = WordRules::Contractions;
    const std::string gap = R"(\s+(?!\S)|\s+)";
    const std::string lower = "'s|'t|'re|'ve|'m|'ll|'d";
    for (const std::string& contractions : {lower, std::string("'(?:[sdmt]|ll|ve|re)")}) {
      known[contractions + R"(| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|)" + gap] = WordRules{};
      known[contractions + R"(| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))"] = WordRules{};
    }
    known[R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)"] = WordRules{};

    const std::pair<std::string, Contractions> any_case[] = {
        {"(?i:" + lower + ")", Contractions::any_case_unicode},
        {"'(?i:[sdmt]|ll|ve|re)", Contractions::any_case_unicode},
        {"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", Contractions::any_case},
        {"", Contractions::none},
    };
    const std::pair<std::string, int> numbers[] = {
        {R"(\p{N})", 1}, {R"(\p{N}{1})", 1}, {R"(\p{N}{1,3})", 3}, {R"(\p{N}+)", 0}};
    for (const auto& [contraction, kind] : any_case) {
      const std::string before = contraction.empty() ? "" : contraction + "|";
      const std::string after = contraction.empty() ? "" : contraction + "?";
      for (const auto& [number, digits] : numbers) {
        for (const std::string line : {R"([\r\n]*|\s*[\r\n]+|)", R"([\r\n]*|\s*[\r\n]|)"}) {
          known[before + R"([^\r\n\p{L}\p{N}]?\p{L}+|)" + number + R"(| ?[^\s\p{L}\p{N}]+)" + line + gap] =
              WordRules{Style::joined, kind, false, digits, false};
          known[before + R"([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|)" + number + R"(| ?[^\s\p{L}\p{M}\p{N}]+)" +
                line + gap] = WordRules{Style::joined, kind, true, digits, false};
        }
        const std::string prefix = R"([^\r\n\p{L}\p{N}]?)";
        const std::string upper_set = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])",
                          lower_set = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
        for (const bool slash : {false, true}) {
          known[prefix + upper_set + "*" + lower_set + "+" + after + "|" + prefix + upper_set + "+" +
                lower_set + "*" + after + "|" + number + R"(| ?[^\s\p{L}\p{N}]+)" +
                (slash ? R"([\r\n/]*)" : R"([\r\n]*)") + R"(|\s*[\r\n]+|)" + gap] =
              WordRules{Style::cased, kind, false, digits, slash};
        }
      }
    }
    known
        [R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)"] =
            WordRules{Style::joined, Contractions::any_case_unicode, false, 3, false, true};
    known
        [R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"] =
            WordRules{Style::joined, Contractions::any_case_unicode, false, 3, false};
    known
        [R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"] =
            WordRules{Style::joined, Contractions::any_case_unicode, false, 1, false};
    for (const std::string breaks : {"\\r\\n", "\r\n"}) {
      known[R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)" + breaks +
            R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)" + breaks + R"(]*|\s*[)" + breaks + "]+|" +
            gap] = WordRules{Style::delimited, Contractions::none, true, 0, false};
    }
    return known;
  }();
  return table;
}

// --- PCRE2
// -----------------------------------------------------------------------------------------------------

// Translates the syntax of the reference engines to PCRE2 where the two read it differently.
class Translator {
 public:
  Translator(std::string_view in, Pattern::Syntax syntax, const std::string& where)
      : in_(in), ruby_(syntax == Pattern::Syntax::oniguruma), where_(where) {}

  std::string run() {
    std::string out;
    while (i_ < in_.size()) {
      const char c = in_[i_];
      if (c == '\\') {
        out += escape(false);
      } else if (c == '[') {
        ++i_;
        out += char_class(0);
      } else if (c == '(' && ruby_ && in_.substr(i_).starts_with("(?") &&
                 !in_.substr(i_).starts_with("(?<")) {
        out += group_options();
      } else {
        out += c;
        ++i_;
      }
    }
    return out;
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error("split pattern " + printable(in_) + ": " + std::string(what), where_,
                "this construct is not supported in split patterns");
  }

  // (?m...) means "dot matches line breaks" in Ruby, which PCRE2 spells (?s...).
  std::string group_options() {
    std::string out = "(?";
    i_ += 2;
    while (i_ < in_.size() && ((in_[i_] >= 'a' && in_[i_] <= 'z') || in_[i_] == '-')) {
      out += in_[i_] == 'm' ? 's' : in_[i_];
      ++i_;
    }
    return out;
  }

  static constexpr std::string_view space_ =
      R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  static constexpr std::string_view not_space_ =
      R"(\x00-\x08\x0e-\x1f\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e})"
      R"(\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{d7ff}\x{e000}-\x{10ffff})";
  std::string word() const {
    std::string set =
        R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
    set += ruby_ ? R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})" : R"(\x{200c}\x{200d})";
    return set;
  }

  std::string escape(bool in_class) {
    if (i_ + 1 >= in_.size()) fail("ends with a backslash");
    const char c = in_[i_ + 1];
    i_ += 2;
    const auto set = [&](std::string_view text, bool negated) {
      if (in_class) {
        if (negated) fail("\\W or \\H inside of [...]");
        return std::string(text);
      }
      return (negated ? "[^" : "[") + std::string(text) + "]";
    };
    switch (c) {
      case 's':
        return set(space_, false);
      case 'S':
        return set(not_space_, false);
      case 'w':
        return set(word(), false);
      case 'W':
        return set(word(), true);
      case 'b':
      case 'B':
        if (!in_class) {
          const std::string w = "[" + word() + "]";
          return c == 'b' ? "(?:(?<=" + w + ")(?!" + w + ")|(?<!" + w + ")(?=" + w + "))"
                          : "(?:(?<=" + w + ")(?=" + w + ")|(?<!" + w + ")(?!" + w + "))";
        }
        break;
      case 'h':
        if (ruby_) return set("0-9a-fA-F", false);
        break;
      case 'H':
        if (ruby_) return set("0-9a-fA-F", true);
        break;
      case 'u':
        if (ruby_ && i_ + 4 <= in_.size()) {
          std::string hex(in_.substr(i_, 4));
          i_ += 4;
          return "\\x{" + hex + "}";
        }
        break;
      case 'p':
      case 'P':
        if (i_ < in_.size() && in_[i_] == '{') {
          const std::size_t end = in_.find('}', i_);
          if (end == in_.npos) fail("\\p{ without }");
          std::string name(in_.substr(i_ + 1, end - i_ - 1));
          i_ = end + 1;
          bool negated = c == 'P';
          if (!name.empty() && name[0] == '^') {
            negated = !negated;
            name.erase(0, 1);
          }
          for (const std::string_view kind : {"Script=", "sc=", "gc=", "General_Category="}) {
            if (name.starts_with(kind)) name.erase(0, kind.size());
          }
          if (const std::string posix = posix_set(name); !posix.empty()) {
            if (!negated || !in_class) return set(posix, negated);
            fail("a negated \\p{" + name + "} inside of [...]");
          }
          return std::string(negated ? "\\P{" : "\\p{") + property(name) + "}";
        }
        break;
      default:
        break;
    }
    return {'\\', c};
  }

  // The classes that POSIX names, as \p{...} or [:...:]; empty for any other name.
  std::string posix_set(std::string name) const {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    if (name == "alpha" || name == "alphabetic") return R"(\p{Alphabetic})";
    if (name == "digit") return R"(\p{Nd})";
    if (name == "alnum") return R"(\p{Alphabetic}\p{Nd})";
    if (name == "upper" || name == "uppercase") return R"(\p{Uppercase})";
    if (name == "lower" || name == "lowercase") return R"(\p{Lowercase})";
    if (name == "space" || name == "white_space") return std::string(space_);
    if (name == "punct") return R"(\p{P}$+<=>^`|~)";
    if (name == "word") return word();
    if (name == "xdigit") return "0-9a-fA-F";
    if (name == "cntrl") return R"(\p{Cc})";
    if (name == "blank") return R"(\p{Zs}\t)";
    return {};
  }

  // The name of a property as PCRE2 has it. A script is the characters of that script alone, without its
  // extensions.
  static std::string property(const std::string& name) {
    static const std::map<std::string_view, const char*> known = {
        {"Letter", "L"},
        {"Number", "N"},
        {"Mark", "M"},
        {"Punctuation", "P"},
        {"Symbol", "S"},
        {"Separator", "Z"},
        {"Other", "C"},
        {"Uppercase_Letter", "Lu"},
        {"Lowercase_Letter", "Ll"},
        {"Titlecase_Letter", "Lt"},
        {"Modifier_Letter", "Lm"},
        {"Other_Letter", "Lo"},
        {"Decimal_Number", "Nd"},
        {"Letter_Number", "Nl"},
        {"Other_Number", "No"},
        {"Nonspacing_Mark", "Mn"},
        {"Spacing_Mark", "Mc"},
        {"Enclosing_Mark", "Me"},
        {"Any", "Any"},
        {"Emoji", "Emoji"},
        {"Emoji_Presentation", "Emoji_Presentation"},
        {"Extended_Pictographic", "Extended_Pictographic"}};
    const auto it = known.find(name);
    if (it != known.end()) return it->second;
    return name.size() <= 2 ? name : "sc:" + name;
  }

  // After '['. A class with && becomes lookaheads, one with a nested class a union.
  std::string char_class(int depth) {
    if (depth > 20) fail("classes nested too deep");
    bool negated = false;
    if (i_ < in_.size() && in_[i_] == '^') {
      negated = true;
      ++i_;
    }
    std::vector<std::string> parts;  // joined by &&
    std::string items;
    std::vector<std::string> nested;
    const auto finish_part = [&] {
      if (nested.empty()) {
        parts.push_back(items.empty() ? "(?!)" : "[" + items + "]");
      } else {
        std::string part = "(?:";
        for (const std::string& one : nested) part += one + "|";
        if (items.empty()) {
          part.back() = ')';
        } else {
          part += "[" + items + "])";
        }
        parts.push_back(part);
      }
      items.clear();
      nested.clear();
    };
    bool first = true, closed = false;
    while (i_ < in_.size() && !closed) {
      const char c = in_[i_];
      if (c == ']' && !first) {
        ++i_;
        closed = true;
      } else if (c == '\\') {
        items += escape(true);
      } else if (c == '[' && i_ + 1 < in_.size() && in_[i_ + 1] == ':') {
        const std::size_t end = in_.find(":]", i_);
        if (end == in_.npos) fail("[: without :]");
        const std::string name(in_.substr(i_ + 2, end - i_ - 2));
        const std::string posix = posix_set(name);
        if (posix.empty()) fail("[:" + printable(name) + ":]");
        items += posix;
        i_ = end + 2;
      } else if (c == '[') {
        ++i_;
        nested.push_back(char_class(depth + 1));
      } else if (c == '&' && i_ + 1 < in_.size() && in_[i_ + 1] == '&') {
        i_ += 2;
        finish_part();
      } else if (c == ']' || c == '^') {
        items += '\\';
        items += c;
        ++i_;
      } else {
        items += c;
        ++i_;
      }
      first = false;
    }
    if (!closed) fail("[ without ]");
    if (parts.empty() && nested.empty()) return (negated ? "[^" : "[") + items + "]";
    finish_part();
    std::string both;
    for (std::size_t k = 0; k + 1 < parts.size(); ++k) both += "(?=" + parts[k] + ")";
    both += parts.back();
    return negated ? "(?:(?!" + both + R"()[\x00-\x{10ffff}]))" : "(?:" + both + ")";
  }

  std::string_view in_;
  bool ruby_;
  const std::string& where_;
  std::size_t i_ = 0;
};

// The end of the time that patterns may take on this thread; and how many matches were made, for looking at
// the clock only now and then.
struct MatchTime {
  std::chrono::steady_clock::time_point end;
  bool shared = false;  // a MatchDeadline lives
  unsigned matches = 0;
};
thread_local MatchTime match_time;
constexpr std::chrono::seconds time_limit{20};

// What matching needs besides the pattern; one per thread.
struct MatchScratch {
  pcre2_match_context* context = nullptr;
  pcre2_match_data* data = nullptr;
  pcre2_jit_stack* stack = nullptr;
  MatchScratch() = default;
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;
  ~MatchScratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  void prepare() {
    if (data) return;
    constexpr std::uint32_t match_limit = 5'000'000, heap_limit_kb = 64 * 1024;
    if (!context) context = pcre2_match_context_create(nullptr);
    if (!stack) stack = pcre2_jit_stack_create(32 * 1024, 8 * 1024 * 1024, nullptr);
    if (!context || !stack) throw std::bad_alloc();
    pcre2_set_match_limit(context, match_limit);
    pcre2_set_heap_limit(context, heap_limit_kb);
    pcre2_jit_stack_assign(context, nullptr, stack);
    data = pcre2_match_data_create(1, nullptr);
    if (!data) throw std::bad_alloc();
  }
};

class Pcre final : public Pattern::Engine {
 public:
  Pcre(std::string_view pattern, Pattern::Syntax syntax, const std::string& where) : source_(pattern) {
    if (pattern.size() > 64 * 1024) throw Error("split pattern is too long", where, "at most 65536 bytes");
    const std::string translated = Translator(pattern, syntax, where).run();
    std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    if (syntax == Pattern::Syntax::oniguruma) options |= PCRE2_MULTILINE;
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    if (!context) throw std::bad_alloc();
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &error,
                          &offset, context);
    pcre2_compile_context_free(context);
    if (!code_) {
      PCRE2_UCHAR message[256] = {};
      pcre2_get_error_message(error, message, sizeof message);
      throw Error("split pattern " + printable(pattern) + ": " + reinterpret_cast<const char*>(message),
                  where, "the pattern must be a regular expression that PCRE2 understands");
    }
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // where there is no JIT, matching interprets
  }
  ~Pcre() override { pcre2_code_free(code_); }
  bool hand_written() const override { return false; }

  void find_all(std::string_view text, std::vector<Span>& matches) const override {
    static thread_local MatchScratch scratch;
    scratch.prepare();
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::size_t at = 0;
    std::size_t last_end = text.npos;
    if (!match_time.shared) match_time.end = std::chrono::steady_clock::now() + time_limit;
    while (at <= text.size()) {
      if (++match_time.matches % 64 == 0 && std::chrono::steady_clock::now() > match_time.end)
        fail("takes too long");
      const int rc =
          pcre2_match(code_, subject, text.size(), at, PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
      if (rc == PCRE2_ERROR_NOMATCH) break;
      if (rc < 0) fail("exceeds the match limits");
      const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
      const std::size_t begin = offsets[0], end = offsets[1];
      if (end < begin) fail("moves the start of its match");
      if (end == begin && last_end == end) {  // as the reference: no empty match right behind a match
        if (end >= text.size()) break;
        at = end;
        next_char(text, at);
        last_end = text.npos;
        continue;
      }
      matches.push_back({begin, end});
      last_end = end;
      at = end;
    }
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error("split pattern " + printable(source_) + " " + std::string(what), "this text",
                "shorten the text or its runs of similar characters");
  }
  std::string source_;
  pcre2_code* code_ = nullptr;
};

}  // namespace

MatchDeadline::MatchDeadline() {
  match_time.end = std::chrono::steady_clock::now() + time_limit;
  match_time.shared = true;
}
MatchDeadline::~MatchDeadline() { match_time.shared = false; }

Pattern::Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

bool Pattern::hand_written() const { return engine_ && engine_->hand_written(); }

Pattern Pattern::compile(std::string_view pattern, Syntax syntax, const std::string& where) {
  Pattern result;
  result.source_ = pattern;
  const auto it = known_patterns().find(pattern);
  if (it != known_patterns().end()) {
    result.engine_ = std::make_unique<WordScanner>(it->second);
  } else if (pattern == R"(\p{N})" || pattern == R"(\p{N}{1,3})" || pattern == R"(\p{N}+)") {
    result.engine_ = std::make_unique<NumberScanner>(pattern.ends_with("+")    ? 0
                                                     : pattern.ends_with("3}") ? 3
                                                                               : 1);
  } else {
    result.engine_ = std::make_unique<Pcre>(pattern, syntax, where);
  }
  return result;
}

Pattern Pattern::literal(std::string_view text) {
  Pattern result;
  result.source_ = text;
  result.engine_ = std::make_unique<LiteralEngine>(text);
  return result;
}

void Pattern::find_all(std::string_view text, std::vector<Span>& matches) const {
  if (engine_) engine_->find_all(text, matches);
}

void split(std::size_t size, const std::vector<Span>& matches, SplitBehavior behavior, bool invert,
           std::vector<Span>& pieces) {
  const std::size_t base = pieces.size();
  const auto push = [&](Span span) { pieces.push_back(span); };

  if (behavior == SplitBehavior::isolated) {
    std::size_t at = 0;
    for (const Span& match : matches) {
      if (match.begin > at) push({at, match.begin});
      if (match.end > match.begin) push(match);
      at = match.end;
    }
    if (at < size) push({at, size});
    return;
  }

  struct Part {
    Span span;
    bool is_match;
  };
  std::vector<Part> parts;
  parts.reserve(matches.size() * 2 + 1);
  std::size_t at = 0;
  for (const Span& match : matches) {
    if (match.begin > at) parts.push_back({{at, match.begin}, invert});
    parts.push_back({match, !invert});
    at = match.end;
  }
  if (at < size) parts.push_back({{at, size}, invert});

  bool previous = false;
  switch (behavior) {
    case SplitBehavior::removed:
      for (const Part& part : parts) {
        if (!part.is_match) push(part.span);
      }
      break;
    case SplitBehavior::merged_with_previous:
      for (const Part& part : parts) {
        if (part.is_match && !previous && pieces.size() > base) {
          pieces.back().end = part.span.end;
        } else {
          push(part.span);
        }
        previous = part.is_match;
      }
      break;
    case SplitBehavior::merged_with_next:
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->is_match && !previous && pieces.size() > base) {
          pieces.back().begin = part->span.begin;
        } else {
          push(part->span);
        }
        previous = part->is_match;
      }
      std::reverse(pieces.begin() + static_cast<std::ptrdiff_t>(base), pieces.end());
      break;
    case SplitBehavior::contiguous:
      for (const Part& part : parts) {
        if (part.is_match == previous && pieces.size() > base) {
          pieces.back().end = part.span.end;
        } else {
          push(part.span);
        }
        previous = part.is_match;
      }
      break;
    case SplitBehavior::isolated:
      break;
  }
  const auto first = pieces.begin() + static_cast<std::ptrdiff_t>(base);
  pieces.erase(std::remove_if(first, pieces.end(), [](const Span& s) { return s.begin == s.end; }),
               pieces.end());
}

}  // namespace ttt::inline v2::text

// Hand-written scanners of the patterns that widespread tokenizers split text by.
#include <map>

#include "text/pattern_engine.h"
#include "text/unicode.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

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

}  // namespace

std::unique_ptr<const Pattern::Engine> make_word_engine(std::string_view pattern) {
  const auto it = known_patterns().find(pattern);
  if (it != known_patterns().end()) return std::make_unique<WordScanner>(it->second);
  if (pattern == R"(\p{N})" || pattern == R"(\p{N}{1,3})" || pattern == R"(\p{N}+)")
    return std::make_unique<NumberScanner>(pattern.ends_with("+") ? 0 : pattern.ends_with("3}") ? 3 : 1);
  return nullptr;
}

}  // namespace ttt::inline v2::text

// All other patterns, by PCRE2 within limits of matching and of time.
#include <algorithm>
#include <chrono>
#include <map>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/pattern_engine.h"
#include "text/unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

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

std::unique_ptr<const Pattern::Engine> make_pcre_engine(std::string_view pattern, Pattern::Syntax syntax,
                                                        const std::string& where) {
  return std::make_unique<Pcre>(pattern, syntax, where);
}

}  // namespace ttt::inline v2::text

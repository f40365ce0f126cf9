// Regular expressions that cut text into words. The ones of widespread tokenizers are recognised by their
// spelling and scanned by hand-written code; all others run on PCRE2 under match limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::text {

struct Span {
  std::size_t begin = 0, end = 0;
};

class Pattern {
 public:
  // The engine a pattern was written for: oniguruma (Ruby syntax, tokenizer.json) or rust (tiktoken).
  enum class Syntax { oniguruma, rust };

  // Throws Error with `where` when the pattern is not understood.
  static Pattern compile(std::string_view pattern, Syntax syntax, const std::string& where);
  // Matches exactly `text`.
  static Pattern literal(std::string_view text);

  Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  // Appends the matches in `text` (valid UTF-8), left to right and disjoint; some may be empty.
  // Throws Error when the match limits are exceeded.
  void find_all(std::string_view text, std::vector<Span>& matches) const;
  const std::string& source() const { return source_; }
  bool hand_written() const;

  class Engine;

 private:
  std::string source_;
  std::unique_ptr<const Engine> engine_;
};

// While one lives, all patterns of this thread share one limit of time, in place of one for each text they
// are given.
class MatchDeadline {
 public:
  MatchDeadline();
  MatchDeadline(const MatchDeadline&) = delete;
  MatchDeadline& operator=(const MatchDeadline&) = delete;
  ~MatchDeadline();
};

// What becomes of the matches of a split.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// `matches` in text[0, size) to pieces; empty pieces are left out.
void split(std::size_t size, const std::vector<Span>& matches, SplitBehavior behavior, bool invert,
           std::vector<Span>& pieces);

// A text and the part of its words' boundaries known so far.
struct Pieces {
  std::string text;
  std::vector<Span> spans;
};

}  // namespace ttt::inline v2::text

#include "text/pattern.h"

#include <algorithm>

#include "text/pattern_engine.h"

namespace ttt::inline v2::text {

namespace {

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

}  // namespace

Pattern::Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

bool Pattern::hand_written() const { return engine_ && engine_->hand_written(); }

Pattern Pattern::compile(std::string_view pattern, Syntax syntax, const std::string& where) {
  Pattern result;
  result.source_ = pattern;
  result.engine_ = make_word_engine(pattern);
  if (!result.engine_) result.engine_ = make_pcre_engine(pattern, syntax, where);
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

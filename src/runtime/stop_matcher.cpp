#include "runtime/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace ttt::inline v2::runtime {

StopMatcher::StopMatcher(std::span<const std::string> strings, bool include_match)
    : include_match_(include_match) {
  for (const std::string& text : strings) {
    Pattern p{.text = text, .border = std::vector<std::size_t>(text.size() + 1, 0), .length = 0};
    for (std::size_t n = 2, k = 0; n <= text.size(); ++n) {
      while (k > 0 && text[k] != text[n - 1]) k = p.border[k];
      if (text[k] == text[n - 1]) ++k;
      p.border[n] = k;
    }
    patterns_.push_back(std::move(p));
  }
}

std::string StopMatcher::push(std::string_view piece, bool armed) {
  if (matched_) return {};
  for (const char byte : piece) {
    held_ += byte;
    const Pattern* complete = nullptr;
    for (Pattern& p : patterns_) {
      while (p.length > 0 && p.text[p.length] != byte) p.length = p.border[p.length];
      if (p.text[p.length] == byte) ++p.length;
      if (p.length < p.text.size()) continue;
      if (armed && (!complete || p.text.size() > complete->text.size())) complete = &p;
      p.length = p.border[p.length];
    }
    if (!complete) continue;
    matched_ = &complete->text;
    if (!include_match_) held_.resize(held_.size() - complete->text.size());
    return std::exchange(held_, {});
  }
  std::size_t keep = 0;
  for (const Pattern& p : patterns_) keep = std::max(keep, p.length);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::finish() { return matched_ ? std::string() : std::exchange(held_, {}); }

}  // namespace ttt::inline v2::runtime

#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace ttt::inline v2::text {

void AddedTokens::add(AddedToken token) { tokens_.push_back(std::move(token)); }

void AddedTokens::finish(const std::vector<NormalizerPtr>& normalizers) {
  // Of equal contents the last stays, of equal spellings the trie keeps the last.
  std::vector<std::size_t> order(tokens_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return tokens_[a].content < tokens_[b].content; });
  std::vector<bool> drop(tokens_.size());
  for (std::size_t i = 0; i + 1 < order.size(); ++i)
    drop[order[i]] = tokens_[order[i]].content == tokens_[order[i + 1]].content;
  std::vector<AddedToken> kept;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (!drop[i]) kept.push_back(std::move(tokens_[i]));
  }
  tokens_ = std::move(kept);

  spellings_.assign(tokens_.size(), {});
  std::vector<std::pair<std::string_view, std::int32_t>> raw, normalized;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (!token.normalized) {
      if (!token.content.empty()) raw.emplace_back(token.content, static_cast<std::int32_t>(i));
      continue;
    }
    spellings_[i] = token.content;
    for (const NormalizerPtr& normalizer : normalizers) normalizer->apply(spellings_[i]);
    if (!spellings_[i].empty()) normalized.emplace_back(spellings_[i], static_cast<std::int32_t>(i));
  }
  raw_ = Trie(std::move(raw));
  normalized_ = Trie(std::move(normalized));
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto it =
      std::find_if(tokens_.begin(), tokens_.end(), [&](const auto& t) { return t.content == content; });
  return it == tokens_.end() ? nullptr : &*it;
}

void AddedTokens::split(std::string_view text, bool normalized, const Filter& filter,
                        std::vector<Segment>& segments) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  std::size_t start = 0;       // text before it is in `segments`
  std::size_t spaces_end = 0;  // where the whitespace behind the last right-stripping token ends
  const auto overlaps_plain = [&](std::size_t begin, std::size_t end) {
    if (!filter.plain) return false;
    // Ranges are sorted: the first that ends behind `begin` decides.
    const auto range = std::upper_bound(filter.plain->begin(), filter.plain->end(), begin,
                                        [](std::size_t at, const ByteRange& r) { return at < r.second; });
    return range != filter.plain->end() && range->first < end;
  };
  if (!trie.empty()) {
    for (std::size_t i = 0; i < text.size();) {
      std::int32_t index = -1;
      const std::size_t size = trie.longest_prefix(text.substr(i), index);
      if (size == 0) {
        ++i;
        continue;
      }
      std::size_t begin = i, end = i + size;
      i = end;
      const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
      if (token.special && !filter.parse_special) continue;
      const bool control =
          token.special || (filter.control && std::find(filter.control->begin(), filter.control->end(),
                                                        token.id) != filter.control->end());
      if (control && overlaps_plain(begin, end)) continue;
      if (token.single_word) {
        std::size_t before = begin, after = end;
        if (before > 0 && is_word(previous_char(text, before))) continue;
        if (after < text.size() && is_word(next_char(text, after))) continue;
      }
      if (token.left_strip) {
        while (begin > start) {
          std::size_t before = begin;
          if (!is_whitespace(previous_char(text, before))) break;
          begin = before;
        }
        begin = std::max(begin, start);
      }
      if (token.right_strip) {
        // A run of whitespace is walked once, however many tokens stand in it.
        while (end >= spaces_end && end < text.size()) {
          std::size_t after = end;
          if (!is_whitespace(next_char(text, after))) break;
          end = after;
        }
        end = spaces_end = std::max(end, spaces_end);
      }
      if (begin < start) begin = start;  // an earlier token has taken this whitespace
      if (begin > start) segments.push_back({-1, start, begin});
      segments.push_back({token.id, begin, end});
      start = std::max(start, end);
    }
  }
  if (start < text.size()) segments.push_back({-1, start, text.size()});
}

}  // namespace ttt::inline v2::text

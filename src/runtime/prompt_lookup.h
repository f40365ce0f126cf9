// Prompt-lookup drafts: what followed when the sequence's last tokens stood there before.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace ttt::inline v2::runtime {

// At most `count` tokens after the last earlier occurrence of the longest end of `tokens` (from `ngram`
// tokens down to 2) that occurs before; empty when none does.
inline std::span<const std::int32_t> prompt_lookup(std::span<const std::int32_t> tokens, std::size_t ngram,
                                                   std::size_t count) {
  if (count == 0) return {};
  for (std::size_t n = std::min(ngram, tokens.size() > 0 ? tokens.size() - 1 : 0); n >= 2; --n) {
    const auto end = tokens.last(n);
    // Without its last token the sequence can only hold earlier occurrences.
    const auto earlier = tokens.first(tokens.size() - 1);
    const auto found = std::find_end(earlier.begin(), earlier.end(), end.begin(), end.end());
    if (found == earlier.end()) continue;
    const auto after = tokens.subspan(static_cast<std::size_t>(found - earlier.begin()) + n);
    return after.first(std::min(count, after.size()));
  }
  return {};
}

}  // namespace ttt::inline v2::runtime

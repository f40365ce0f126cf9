// Ends a text before the first of some strings, and holds back what may be the beginning of one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::runtime {

// What it emits and where it ends do not depend on how the text is cut into pieces: the string that is
// complete first ends the text; of those complete at the same byte, the longest. UTF-8 strings and pieces of
// whole sequences give pieces of whole sequences.
class StopMatcher {
 public:
  StopMatcher() = default;  // no strings
  StopMatcher(std::span<const std::string> strings, bool include_match);

  // What of the text so far may be emitted. `armed` false: a string that is completed in this piece does not
  // count.
  std::string push(std::string_view piece, bool armed = true);
  std::string finish();  // what is held back, when no more text follows
  const std::string* matched() const {
    return matched_;
  }  // null: none yet; after a match all further text is dropped

 private:
  struct Pattern {
    std::string text;
    std::vector<std::size_t>
        border;              // border[n]: longest proper prefix of the first n bytes that is also their end
    std::size_t length = 0;  // of the prefix that ends the text so far
  };
  std::vector<Pattern> patterns_;
  std::string held_;
  const std::string* matched_ = nullptr;
  bool include_match_ = false;
};

}  // namespace ttt::inline v2::runtime

// Tokens that are found in the text itself before any model sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/model.h"
#include "text/pipeline.h"

namespace ttt::inline v2::text {

struct AddedToken {
  std::int32_t id = -1;
  std::string content;
  bool special = false;
  bool normalized = false;   // looked for in the normalized text, by its normalized spelling
  bool left_strip = false;   // takes the whitespace before it
  bool right_strip = false;  // and behind it
  bool single_word = false;  // not inside of a word
};

using ByteRange = std::pair<std::size_t, std::size_t>;

class AddedTokens {
 public:
  struct Segment {
    std::int32_t id = -1;  // -1: text
    std::size_t begin = 0, end = 0;
  };
  // What the spelling of a special token means in a text.
  struct Filter {
    bool parse_special = true;
    const std::vector<ByteRange>* plain = nullptr;       // bytes where special tokens are not read
    const std::vector<std::int32_t>* control = nullptr;  // tokens that count as special there
  };

  // A token of the same content as an earlier one replaces it.
  void add(AddedToken token);
  // Builds the search tables; `normalizers` give normalized tokens their spelling.
  void finish(const std::vector<NormalizerPtr>& normalizers);

  bool empty() const { return tokens_.empty(); }
  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(std::string_view content) const;
  // How decode() writes the token at position `index`.
  const std::string& spelling(std::size_t index) const {
    return tokens_[index].normalized ? spellings_[index] : tokens_[index].content;
  }
  bool has_normalized() const { return !normalized_.empty(); }

  // Cuts `text`; `normalized` says which of the two kinds of tokens to look for.
  void split(std::string_view text, bool normalized, const Filter& filter,
             std::vector<Segment>& segments) const;

 private:
  std::vector<AddedToken> tokens_;
  std::vector<std::string> spellings_;  // of the normalized ones
  Trie raw_, normalized_;               // values: positions in tokens_
};

}  // namespace ttt::inline v2::text

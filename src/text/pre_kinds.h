// What the vocabularies of GGUF files leave to their readers: the kinds of pre-tokenizers that they name by
// tokenizer.ggml.pre, and how WordPiece spells their tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::text {

// The patterns are applied one after the other, as the tokenizer.json of the kind has them.
struct PreKind {
  std::vector<std::string> patterns;
  bool ignore_merges = false;
  bool add_bos = false;
  bool add_sep = false;
  bool characters = false;  // merges work on characters (with byte fallback), not on the byte-level alphabet
  bool escape_spaces = false;  // a space is U+2581
};

// Error with `source` when there is no such kind.
const PreKind& pre_kind(std::string_view name, const std::string& source);

// "##ing" of a file's "ing", "the" of its "U+2581 the"; "[unused1]" as it is.
std::string word_piece_spelling(const std::string& token);

}  // namespace ttt::inline v2::text

// The kinds of pre-tokenizers that GGUF files name by tokenizer.ggml.pre.
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

}  // namespace ttt::inline v2::text

// What happens to text before the model sees it: normalizers change it, pre-tokenizers cut it into words.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/pattern.h"
#include "text/unicode.h"

namespace ttt::inline v2::text {

class Normalizer {
 public:
  Normalizer() = default;
  Normalizer(const Normalizer&) = delete;
  Normalizer& operator=(const Normalizer&) = delete;
  virtual ~Normalizer() = default;
  virtual void apply(std::string& text) const = 0;  // valid UTF-8 in and out
};
using NormalizerPtr = std::unique_ptr<const Normalizer>;

NormalizerPtr make_unicode_form(NormalForm form);
NormalizerPtr make_lowercase();
NormalizerPtr make_strip(bool left, bool right);
NormalizerPtr make_strip_accents();
NormalizerPtr make_replace(Pattern pattern, std::string content);
NormalizerPtr make_prepend(std::string text);
NormalizerPtr make_nmt();
NormalizerPtr make_byte_level_alphabet();
struct BertNormalizerOptions {
  bool clean_text = true, handle_chinese_chars = true, strip_accents = true, lowercase = true;
};
NormalizerPtr make_bert(const BertNormalizerOptions& options);

// The character map of a SentencePiece model: a double-array trie from byte sequences to their replacement.
class CharsMap {
 public:
  // Throws Error with `where` when `blob` is not such a map.
  CharsMap(std::string blob, const std::string& where);
  CharsMap() = default;
  bool empty() const { return units_.empty(); }
  // Replacement of the longest (or shortest) key that `text` begins with; `size`: bytes of the key, 0 without
  // one.
  std::string_view longest(std::string_view text, std::size_t& size) const;
  std::string_view shortest(std::string_view text, std::size_t& size) const;

 private:
  template <class Visit>
  void walk(std::string_view text, const Visit& visit) const;
  std::string_view replacement(std::uint32_t value) const;
  std::vector<std::uint32_t> units_;
  std::string strings_;
};
NormalizerPtr make_precompiled(CharsMap map);

struct SentencePieceOptions {
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true,
       whitespace_as_suffix = false;
  std::vector<std::string> user_defined;  // never changed
};
NormalizerPtr make_sentencepiece(CharsMap map, SentencePieceOptions options);

class PreTokenizer {
 public:
  PreTokenizer() = default;
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;
  virtual ~PreTokenizer() = default;
  // `first`: the text begins where the whole input begins.
  virtual void apply(Pieces& pieces, bool first) const = 0;
};
using PreTokenizerPtr = std::unique_ptr<const PreTokenizer>;

enum class PrependScheme { always, first, never };

PreTokenizerPtr make_split(Pattern pattern, SplitBehavior behavior, bool invert);
// `alphabet`: write bytes in the byte-level alphabet; false where the model takes bytes.
PreTokenizerPtr make_byte_level(bool add_prefix_space, bool use_regex, bool alphabet);
PreTokenizerPtr make_metaspace(std::string replacement, PrependScheme scheme, bool split);
PreTokenizerPtr make_digits(bool individual);
PreTokenizerPtr make_whitespace();
PreTokenizerPtr make_whitespace_split();
PreTokenizerPtr make_punctuation(SplitBehavior behavior);
PreTokenizerPtr make_bert_pre_tokenizer();
PreTokenizerPtr make_char_delimiter(char32_t delimiter);
PreTokenizerPtr make_fixed_length(std::size_t characters);

}  // namespace ttt::inline v2::text

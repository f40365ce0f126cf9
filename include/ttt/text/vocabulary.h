// What the `tokenizer.ggml.*` metadata of a GGUF file says, as plain data. Whoever reads the container fills
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ttt::inline v2 {

// Values of `tokenizer.ggml.token_type`.
enum class TokenType : std::int32_t {
  undefined = 0,
  normal = 1,
  unknown = 2,
  control = 3,       // never produced from plain text; special
  user_defined = 4,  // matched in plain text before anything else
  unused = 5,
  byte = 6,  // "<0xNN>"
};

struct Vocabulary {
  std::string source;  // file name for messages

  std::string model;                // .model: "gpt2", "llama", "gemma4", "t5", "bert", "rwkv", "none"
  std::string pre;                  // .pre: kind of pre-tokenizer; only byte-level BPE has one
  std::vector<std::string> tokens;  // .tokens, [n]; "gpt2" in the byte-level alphabet, the others as they are
  std::vector<float> scores;        // .scores, [n] or empty
  std::vector<TokenType> token_types;  // .token_type, [n] or empty (all normal)
  std::vector<std::string> merges;     // .merges, "left right", best first

  // .bos_token_id and so on; an id outside of tokens is refused.
  std::optional<std::int32_t> bos_id, eos_id, eot_id, eom_id, unknown_id, separator_id, padding_id, cls_id,
      mask_id;

  // .add_bos_token and so on; absent means the default of the model kind and pre-tokenizer.
  std::optional<bool> add_bos, add_eos, add_sep, add_space_prefix, remove_extra_whitespaces,
      escape_whitespaces;

  // Tokens that swallow the whitespace before or behind them. The format has no field for it; whoever knows
  // the model may say it here.
  std::vector<std::int32_t> left_strip, right_strip;

  // BERT only; .normalizer.lowercase and .normalizer.strip_accents (default: as lowercase).
  std::optional<bool> lowercase, strip_accents;

  std::string precompiled_charsmap;  // .precompiled_charsmap, bytes
};

// The same tokenizer as the text of a tokenizer.json, as the package tokenizers and Tokenizer::from_json()
// read it. Error: as Tokenizer::from_vocabulary(), or when the vocabulary has a rule that such a file can not
// say.
std::string tokenizer_json(const Vocabulary&);

}  // namespace ttt::inline v2

// Text to token ids and back, the same for every source: tokenizer.json, GGUF vocabularies, SentencePiece
// models, tiktoken and tekken files. Ids and text equal those of the reference packages (tokenizers,
// sentencepiece, tiktoken).
//
//   const Tokenizer tokenizer = Tokenizer::from_file("model/");
//   std::vector<std::int32_t> ids = tokenizer.encode("Hello");
//   std::string text = tokenizer.decode(ids);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/text/vocabulary.h"

namespace ttt::inline v2 {

namespace text {
class TokenizerImpl;
}

struct EncodeOptions {
  // Add what the tokenizer adds around a sequence (BOS, EOS, [CLS] ...). False for text that a chat template
  // wrote.
  bool add_special_tokens = true;
  // Read the spelling of a special token as that token. False for text from users, where it must stay plain
  // text.
  bool parse_special = true;
  // Bytes [first, second) of the text, sorted and disjoint, where a special token is not read even so: what
  // users wrote within a rendered chat template (RenderedPrompt::untrusted).
  std::vector<std::pair<std::size_t, std::size_t>> no_special_ranges = {};
  // Tokens that count as special in those ranges although the tokenizer does not call them so.
  std::vector<std::int32_t> control_ids = {};
};

struct DecodeOptions {
  bool skip_special_tokens = true;
};

// How a plain rank file ("base64 rank" lines) splits text; such a file does not say.
struct RankEncoding {
  std::string pattern;                                               // regular expression of the words
  std::vector<std::pair<std::string, std::int32_t>> special_tokens;  // spelling, id
  std::string bos, eos, pad;  // spellings among special_tokens, may be empty
  bool add_bos = false;       // BOS starts every sequence
  bool nfc = false;           // text is brought to Unicode normal form C first
};

// A value, cheap to copy; all copies share one immutable state, so any number of threads may use them.
class Tokenizer {
 public:
  // `path`: a tokenizer.json, a SentencePiece tokenizer.model, a tekken.json, a *.tiktoken (or other rank
  // file of a published encoding), or a model folder that holds one of them. Beside the file,
  // tokenizer_config.json, special_tokens_map.json and generation_config.json name BOS, EOS and padding where
  // present. Throws Error naming file and field.
  static Tokenizer from_file(const std::filesystem::path& path);

  // The text of a tokenizer.json; `source` names it in messages.
  static Tokenizer from_json(std::string_view json, std::string_view source = "tokenizer.json");

  // The bytes of a SentencePiece model (BPE or Unigram). Such a file does not say what stands around a
  // sequence: it is BOS before it for BPE and EOS behind it for Unigram, unless a tokenizer_config.json
  // beside the file says otherwise.
  static Tokenizer from_sentencepiece(std::string_view model, std::string_view source = "tokenizer.model");

  // The bytes of a rank file.
  static Tokenizer from_ranks(std::string_view ranks, const RankEncoding& encoding,
                              std::string_view source = "tokenizer.tiktoken");

  // The metadata of a GGUF file.
  static Tokenizer from_vocabulary(Vocabulary vocabulary);

  // Invalid UTF-8 in `text` is read as U+FFFD, one per maximal invalid part.
  // Throws Error when a split pattern exceeds its match limits on this text.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // Valid UTF-8, with U+FFFD where the ids spell invalid bytes. Ids outside of the vocabulary are skipped.
  std::string decode(std::span<const std::int32_t> ids, const DecodeOptions& options = {}) const;

  // As in the tokenizer's own alphabet ("Ġthe", "▁the"); nothing for an id or token that does not exist.
  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  std::optional<std::string_view> id_to_token(std::int32_t id) const;  // lives as long as the tokenizer

  // The bytes that `id` adds to a text in which it is not the first token; may be part of a UTF-8 sequence.
  // Special tokens give their spelling. Empty for an id that does not exist.
  std::string_view token_bytes(std::int32_t id) const;  // lives as long as the tokenizer

  // Largest id + 1, added tokens included; some ids below it may not exist.
  std::int32_t vocab_size() const;
  // Special tokens (BOS, end of turn, [CLS] ...): skipped by decode() unless asked for.
  bool is_special(std::int32_t id) const;

  std::optional<std::int32_t> bos_id() const;
  std::optional<std::int32_t> eos_id() const;
  std::optional<std::int32_t> pad_id() const;
  std::optional<std::int32_t> unk_id() const;
  // Every id that ends a generation: EOS, end of turn, end of message.
  const std::vector<std::int32_t>& end_ids() const;
  bool adds_bos() const;  // encode() with add_special_tokens begins with BOS
  bool adds_eos() const;

  // Hash of the data that the tokenizer was made from, the same on every machine.
  std::uint64_t fingerprint() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const text::TokenizerImpl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const text::TokenizerImpl> impl_;
};

}  // namespace ttt::inline v2

// The one form that all sources are read into.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/pipeline.h"
#include "ttt/text/tokenizer.h"

namespace ttt::inline v2::text {

class TokenizerImpl {
 public:
  // What a source fills in; finish() completes it.
  std::string source;
  std::vector<NormalizerPtr> text_normalizers;  // of the whole text, special tokens in it included
  std::vector<NormalizerPtr> normalizers;
  std::vector<PreTokenizerPtr> pre_tokenizers;
  std::unique_ptr<Model> model;
  // The tokens of a model that works on bytes, as they are spelled in the byte-level alphabet. Else empty.
  TokenTable byte_spellings;
  AddedTokens added;
  std::vector<std::int32_t> prefix, suffix;  // what add_special_tokens adds
  std::vector<DecoderRule> decoders;
  std::optional<std::int32_t> bos, eos, pad, unk;
  std::vector<std::int32_t> end_ids;
  std::uint64_t fingerprint = 0;

  // `added` must be complete (and its finish() called).
  void finish();

  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options) const;
  std::string decode(std::span<const std::int32_t> ids, const DecodeOptions& options) const;
  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  // The token in its own alphabet; `exists` says whether there is one.
  std::string_view spelling(std::int32_t id, bool& exists) const;
  std::string_view token_bytes(std::int32_t id) const;
  bool is_special(std::int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < special_.size() &&
           special_[static_cast<std::size_t>(id)];
  }
  std::int32_t vocab_size() const { return vocab_size_; }
  // Feeds one id to a stream as decode() does.
  void decode_one(std::int32_t id, const DecodeOptions& options, DecodeStream& stream,
                  std::string& out) const;

 private:
  void encode_text(std::string_view text, bool first, const AddedTokens::Filter& filter, Scratch& scratch,
                   std::vector<std::int32_t>& ids) const;
  void encode_piece(std::string_view text, bool first, Scratch& scratch,
                    std::vector<std::int32_t>& ids) const;
  void build_token_bytes() const;

  std::vector<bool> special_;
  std::vector<std::int32_t> added_index_;  // id to position in added.tokens(), or -1
  std::int32_t vocab_size_ = 0;

  mutable std::mutex scratch_mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratches_;
  mutable std::once_flag token_bytes_once_;
  mutable TokenTable token_bytes_;
};

// Same on every machine.
std::uint64_t stable_hash(std::string_view bytes, std::uint64_t seed = 0);

// Appends the bytes of base64 `text`; false when it is not base64.
bool decode_base64(std::string_view text, std::string& bytes);

// Adds `id` to the ids that end a generation.
void add_end_id(TokenizerImpl& impl, std::optional<std::int32_t> id);
// Adds the special tokens whose spelling says that they end a turn, for sources that do not say it otherwise.
void add_end_ids_by_name(TokenizerImpl& impl);

// A SentencePiece model, from its own file or from GGUF metadata.
struct SentencePieceSpec {
  std::vector<std::string> pieces;
  std::vector<float> scores;     // [pieces]
  std::vector<TokenType> types;  // [pieces]
  bool unigram = false;
  bool byte_fallback = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  bool whitespace_as_suffix = false;
  bool unknown_is_special = false;
  std::string unknown_surface = " \xE2\x81\x87 ";  // what decode() writes for it
  std::string charsmap;
  std::vector<std::int32_t> left_strip, right_strip;  // special tokens that swallow whitespace beside them
};
// Model, normalizer, added tokens and decoder of `impl`. Throws Error with impl.source.
void build_sentencepiece(TokenizerImpl& impl, SentencePieceSpec spec);

// Readers of the sources.
std::shared_ptr<const TokenizerImpl> read_vocabulary(Vocabulary vocabulary);
// What stands beside a tokenizer.json; each the text of the file or empty.
struct SideFiles {
  std::string tokenizer_config, special_tokens_map, generation_config;
};
std::shared_ptr<const TokenizerImpl> read_tokenizer_json(std::string_view json, const std::string& source,
                                                         const SideFiles& side);
std::shared_ptr<const TokenizerImpl> read_sentencepiece(std::string_view model, const std::string& source,
                                                        const SideFiles& side);
std::shared_ptr<const TokenizerImpl> read_ranks(std::string_view ranks, const RankEncoding& encoding,
                                                const std::string& source);
std::shared_ptr<const TokenizerImpl> read_tekken(std::string_view json, const std::string& source);
// The encoding of a published rank file, by what it holds. Throws Error when it is none of them.
RankEncoding published_encoding(std::string_view ranks, const std::string& source);

}  // namespace ttt::inline v2::text

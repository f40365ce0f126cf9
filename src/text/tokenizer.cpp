#include "ttt/text/tokenizer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "text/tokenizer_impl.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/text/stream_decoder.h"

namespace ttt::inline v2 {

namespace text {

namespace {

// Of the buffers that grow with the text.
std::size_t buffer_bytes(const Scratch& s) {
  const auto bytes = [](const auto& v) { return v.capacity() * sizeof(v[0]); };
  return bytes(s.symbols) + bytes(s.heap) + bytes(s.scores) + bytes(s.float_scores) + bytes(s.tokens) +
         bytes(s.starts);
}

}  // namespace

std::uint64_t stable_hash(std::string_view bytes, std::uint64_t seed) {
  std::uint64_t hash = mix(seed ^ 0x9E3779B97F4A7C15u, bytes.size() ^ 0xC2B2AE3D27D4EB4Fu);
  const auto load = [](const char* p, std::size_t n) {
    std::uint64_t word = 0;
    for (std::size_t k = 0; k < n; ++k)
      word |= static_cast<std::uint64_t>(static_cast<unsigned char>(p[k])) << (8 * k);
    return word;
  };
  while (bytes.size() >= 8) {
    hash = mix(hash ^ load(bytes.data(), 8), 0xD6E8FEB86659FD93u);
    bytes.remove_prefix(8);
  }
  return mix(hash ^ load(bytes.data(), bytes.size()), 0xA0761D6478BD642Fu);
}

bool decode_base64(std::string_view text, std::string& bytes) {
  const auto value = [](char c) -> int {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  if (text.size() % 4 != 0) return false;
  for (std::size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const int padding = last && text[i + 3] == '=' ? (text[i + 2] == '=' ? 2 : 1) : 0;
    unsigned bits = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      const int v = k + static_cast<std::size_t>(padding) >= 4 ? 0 : value(text[i + k]);
      if (v < 0) return false;
      bits = bits << 6 | static_cast<unsigned>(v);
    }
    bytes += static_cast<char>(bits >> 16);
    if (padding < 2) bytes += static_cast<char>(bits >> 8);
    if (padding < 1) bytes += static_cast<char>(bits);
  }
  return true;
}

void add_end_id(TokenizerImpl& impl, std::optional<std::int32_t> id) {
  if (id && std::find(impl.end_ids.begin(), impl.end_ids.end(), *id) == impl.end_ids.end())
    impl.end_ids.push_back(*id);
}

void add_end_ids_by_name(TokenizerImpl& impl) {
  static constexpr std::array<std::string_view, 20> names = {
      "<|eot_id|>",      "<|im_end|>",      "<|return|>",         "<|call|>", "<|calls|>",        "<|flush|>",
      "<end_of_turn>",   "<|endoftext|>",   "<|eom_id|>",         "<EOT>",    "_<EOT>",           "[EOT]",
      "[EOS]",           "<|end_of_text|>", "<end_of_utterance>", "<turn|>",  "<|tool_response>", "[e~[",
      "<|end_of_turn|>", "<|eot|>"};
  const auto special = [&](std::string_view name) {
    const AddedToken* token = impl.added.find(name);
    return token && token->special ? std::optional<std::int32_t>(token->id) : std::nullopt;
  };
  for (const std::string_view name : names) add_end_id(impl, special(name));
  // Where other tokens end a message that calls a tool or answers, "<|end|>" only ends a part of it.
  const bool in_parts = (special("<|return|>") && special("<|call|>")) ||
                        (special("<|flush|>") && (special("<|call|>") || special("<|calls|>")));
  if (!in_parts) add_end_id(impl, special("<|end|>"));
}

void TokenizerImpl::finish() {
  vocab_size_ = model->tokens.size();
  for (const AddedToken& token : added.tokens()) vocab_size_ = std::max(vocab_size_, token.id + 1);
  special_.assign(static_cast<std::size_t>(vocab_size_), false);
  added_index_.assign(static_cast<std::size_t>(vocab_size_), -1);
  for (std::size_t i = 0; i < added.tokens().size(); ++i) {
    const AddedToken& token = added.tokens()[i];
    added_index_[static_cast<std::size_t>(token.id)] = static_cast<std::int32_t>(i);
    special_[static_cast<std::size_t>(token.id)] = token.special;
  }
}

std::string_view TokenizerImpl::spelling(std::int32_t id, bool& exists) const {
  exists = false;
  if (id < 0 || id >= vocab_size_) return {};
  const std::int32_t index = added_index_[static_cast<std::size_t>(id)];
  if (index >= 0) {
    exists = true;
    return added.spelling(static_cast<std::size_t>(index));
  }
  const TokenTable& table = byte_spellings.size() > 0 ? byte_spellings : model->tokens;
  exists = table.contains(id);
  return table[id];
}

std::optional<std::int32_t> TokenizerImpl::token_to_id(std::string_view token) const {
  if (const AddedToken* found = added.find(token)) return found->id;
  std::int32_t id = -1;
  if (byte_spellings.size() > 0) {
    std::string bytes;
    if (decode_byte_level(token, bytes)) id = model->tokens.find(bytes);
  } else {
    id = model->tokens.find(token);
  }
  return id >= 0 ? std::optional<std::int32_t>(id) : std::nullopt;
}

void TokenizerImpl::encode_piece(std::string_view text, bool first, Scratch& scratch,
                                 std::vector<std::int32_t>& ids) const {
  if (pre_tokenizers.empty()) {
    if (!text.empty()) model->encode(text, scratch, ids);
    return;
  }
  Pieces pieces{std::string(text), {}};
  if (!text.empty()) pieces.spans.push_back({0, text.size()});
  for (const PreTokenizerPtr& step : pre_tokenizers) step->apply(pieces, first);
  const std::string_view all = pieces.text;
  for (const Span& span : pieces.spans)
    model->encode(all.substr(span.begin, span.end - span.begin), scratch, ids);
}

void TokenizerImpl::encode_text(std::string_view text, bool first, const AddedTokens::Filter& filter,
                                Scratch& scratch, std::vector<std::int32_t>& ids) const {
  std::string normalized;
  std::string_view view = text;
  if (!normalizers.empty()) {
    normalized = text;
    for (const NormalizerPtr& step : normalizers) step->apply(normalized);
    view = normalized;
  }
  if (!added.has_normalized()) {
    encode_piece(view, first, scratch, ids);
    return;
  }
  // Ranges count bytes of the text before normalization; where that moved them, the whole of it counts as
  // plain.
  AddedTokens::Filter moved = filter;
  std::vector<ByteRange> everything;
  if (filter.plain && !filter.plain->empty() && view != text) {
    everything.emplace_back(0, view.size());
    moved.plain = &everything;
  }
  std::vector<AddedTokens::Segment> segments;
  added.split(view, true, moved, segments);
  for (const auto& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_piece(view.substr(segment.begin, segment.end - segment.begin), first && segment.begin == 0,
                   scratch, ids);
    }
  }
}

std::vector<std::int32_t> TokenizerImpl::encode(std::string_view text, const EncodeOptions& options) const {
  constexpr std::size_t most_bytes = std::size_t{1} << 30;
  if (text.size() > most_bytes) throw Error("text of more than 1 GiB", source, "encode it in parts");

  // Repairs invalid UTF-8 and normalizes, part by part so that the ranges' borders stay known.
  std::string repaired;
  std::vector<ByteRange> ranges = options.no_special_ranges;
  for (ByteRange& range : ranges) {
    range.first = std::min(range.first, text.size());
    range.second = std::min(std::max(range.first, range.second), text.size());
  }
  bool valid = true;
  for (std::size_t i = 0; valid && i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const std::size_t n = utf8::valid_length(text.substr(i));
    valid = n > 0;
    i += n;
  }
  if (!valid || !text_normalizers.empty()) {
    std::size_t at = 0;
    const auto copy_to = [&](std::size_t end) {
      std::string part = utf8::repair(text.substr(at, end - at));
      for (const NormalizerPtr& step : text_normalizers) step->apply(part);
      repaired += part;
      at = end;
      return repaired.size();
    };
    for (ByteRange& range : ranges) {
      range.first = copy_to(std::max(at, range.first));
      range.second = copy_to(std::max(at, range.second));
    }
    copy_to(text.size());
    text = repaired;
  }

  const MatchDeadline deadline;
  std::unique_ptr<Scratch> scratch;
  {
    const std::lock_guard lock(scratch_mutex_);
    if (!scratches_.empty()) {
      scratch = std::move(scratches_.back());
      scratches_.pop_back();
    }
  }
  if (!scratch) scratch = std::make_unique<Scratch>();

  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (options.add_special_tokens) ids.insert(ids.end(), prefix.begin(), prefix.end());
  AddedTokens::Filter filter{options.parse_special, &ranges, &options.control_ids};
  std::vector<AddedTokens::Segment> segments;
  added.split(text, false, filter, segments);
  std::vector<ByteRange> local;
  for (const auto& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    AddedTokens::Filter inner = filter;
    if (added.has_normalized() && !ranges.empty()) {
      local.clear();
      for (const ByteRange& range : ranges) {
        const std::size_t begin = std::max(range.first, segment.begin),
                          end = std::min(range.second, segment.end);
        if (begin < end) local.emplace_back(begin - segment.begin, end - segment.begin);
      }
      inner.plain = &local;
    }
    encode_text(text.substr(segment.begin, segment.end - segment.begin), segment.begin == 0, inner, *scratch,
                ids);
  }
  if (options.add_special_tokens) ids.insert(ids.end(), suffix.begin(), suffix.end());

  // What one long text took is not kept, nor more than can be used at once.
  constexpr std::size_t most_kept = 1 << 20;
  if (buffer_bytes(*scratch) > most_kept) return ids;
  static const std::size_t most_scratches = std::max(1u, std::thread::hardware_concurrency());
  const std::lock_guard lock(scratch_mutex_);
  if (scratches_.size() < most_scratches) scratches_.push_back(std::move(scratch));
  return ids;
}

void TokenizerImpl::decode_one(std::int32_t id, const DecodeOptions& options, DecodeStream& stream,
                               std::string& out) const {
  if (options.skip_special_tokens && is_special(id)) return;
  bool exists = false;
  const std::string_view token = spelling(id, exists);
  if (exists) stream.push(token, out);
}

std::string TokenizerImpl::decode(std::span<const std::int32_t> ids, const DecodeOptions& options) const {
  DecodeStream stream(decoders);
  std::string text;
  for (const std::int32_t id : ids) decode_one(id, options, stream, text);
  stream.finish(text);
  return text;
}

void TokenizerImpl::build_token_bytes() const {
  // What a token adds behind another one. Byte tokens and byte-level tokens may be parts of characters, which
  // a stream would hold back, so they are read directly.
  const bool byte_level = !decoders.empty() && (decoders[0].kind == DecoderRule::Kind::byte_level ||
                                                decoders[0].kind == DecoderRule::Kind::bytes);
  bool byte_fallback = false;
  for (const DecoderRule& rule : decoders) {
    byte_fallback = byte_fallback || rule.kind == DecoderRule::Kind::byte_fallback ||
                    rule.kind == DecoderRule::Kind::sentence_piece;
  }
  DecodeStream stream(decoders);
  for (std::int32_t id = 0; id < vocab_size_; ++id) {
    bool exists = false;
    const std::string_view token = spelling(id, exists);
    if (!exists) continue;
    std::string bytes;
    if (is_special(id)) {
      bytes = token;
    } else if (byte_level) {
      if (!decode_byte_level(token, bytes)) bytes = token;
    } else if (byte_fallback && token.size() == 6 && token.starts_with("<0x") && token.ends_with('>')) {
      bytes = static_cast<char>(std::stoi(std::string(token.substr(3, 2)), nullptr, 16));
    } else {
      std::string before;
      stream.push("x", before);
      stream.push(token, bytes);
      if (before != "x") {  // a decoder that looks ahead shows both once a third token is there
        stream.push("x", bytes);
        bytes = bytes.size() > 1 ? bytes.substr(1) : std::string();
      } else {
        std::string rest;
        stream.finish(rest);
        bytes += rest;
      }
      std::string rest;
      stream.finish(rest);
    }
    token_bytes_.set(id, bytes);
  }
}

std::string_view TokenizerImpl::token_bytes(std::int32_t id) const {
  std::call_once(token_bytes_once_, [this] { build_token_bytes(); });
  return token_bytes_[id];
}

}  // namespace text

Tokenizer Tokenizer::from_vocabulary(Vocabulary vocabulary) {
  return Tokenizer(text::read_vocabulary(std::move(vocabulary)));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  return impl_->encode(text, options);
}
std::string Tokenizer::decode(std::span<const std::int32_t> ids, const DecodeOptions& options) const {
  return impl_->decode(ids, options);
}
std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->token_to_id(token);
}
std::optional<std::string_view> Tokenizer::id_to_token(std::int32_t id) const {
  bool exists = false;
  const std::string_view token = impl_->spelling(id, exists);
  return exists ? std::optional(token) : std::nullopt;
}
std::string_view Tokenizer::token_bytes(std::int32_t id) const { return impl_->token_bytes(id); }
std::int32_t Tokenizer::vocab_size() const { return impl_->vocab_size(); }
bool Tokenizer::is_special(std::int32_t id) const { return impl_->is_special(id); }
std::optional<std::int32_t> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<std::int32_t> Tokenizer::eos_id() const { return impl_->eos; }
std::optional<std::int32_t> Tokenizer::pad_id() const { return impl_->pad; }
std::optional<std::int32_t> Tokenizer::unk_id() const { return impl_->unk; }
const std::vector<std::int32_t>& Tokenizer::end_ids() const { return impl_->end_ids; }
bool Tokenizer::adds_bos() const {
  return impl_->bos && !impl_->prefix.empty() && impl_->prefix.front() == *impl_->bos;
}
bool Tokenizer::adds_eos() const {
  return impl_->eos && !impl_->suffix.empty() && impl_->suffix.back() == *impl_->eos;
}
std::uint64_t Tokenizer::fingerprint() const { return impl_->fingerprint; }

// --- StreamDecoder
// ---------------------------------------------------------------------------------------------

StreamDecoder::StreamDecoder(Tokenizer tokenizer, const DecodeOptions& options)
    : tokenizer_(std::move(tokenizer)),
      options_(options),
      stream_(std::make_unique<text::DecodeStream>(tokenizer_.impl_->decoders)) {}

StreamDecoder::StreamDecoder(Tokenizer tokenizer, std::span<const std::int32_t> context,
                             const DecodeOptions& options)
    : StreamDecoder(std::move(tokenizer), options) {
  push(context);
}

StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(std::int32_t id) { return push(std::span(&id, 1)); }

std::string StreamDecoder::push(std::span<const std::int32_t> ids) {
  std::string out;
  for (const std::int32_t id : ids) tokenizer_.impl_->decode_one(id, options_, *stream_, out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  stream_->finish(out);
  return out;
}

}  // namespace ttt::inline v2

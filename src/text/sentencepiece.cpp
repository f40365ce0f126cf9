#include <cstring>
#include <nlohmann/json.hpp>

#include "text/tokenizer_impl.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

// One message of the protocol buffers wire format; every read is checked against its end.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    const std::uint64_t key = varint();
    field_ = key >> 3;
    if (field_ == 0) fail("field number 0");
    wire_ = static_cast<unsigned>(key & 7);
    value_ = {};
    number_ = 0;
    switch (wire_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        value_ = take(8);
        break;
      case 2:
        value_ = take(varint());
        break;
      case 5:
        value_ = take(4);
        break;
      default:
        fail("wire type " + std::to_string(wire_));
    }
    return true;
  }
  std::uint64_t field() const { return field_; }
  std::string_view bytes() const {
    if (wire_ != 2) fail("field " + std::to_string(field_) + " has the wrong type");
    return value_;
  }
  std::uint64_t number() const {
    if (wire_ != 0) fail("field " + std::to_string(field_) + " has the wrong type");
    return number_;
  }
  bool boolean() const { return number() != 0; }
  float real() const {
    if (wire_ != 5) fail("field " + std::to_string(field_) + " has the wrong type");
    std::uint32_t bits = 0;
    for (unsigned k = 0; k < 4; ++k)
      bits |= static_cast<std::uint32_t>(static_cast<unsigned char>(value_[k])) << (8 * k);
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("not a SentencePiece model: " + what, where_, "download the file again");
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) fail("it ends too early");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number is too long");
  }
  std::string_view take(std::uint64_t size) {
    if (size > bytes_.size() - at_) fail("it ends too early");
    const std::string_view value = bytes_.substr(at_, static_cast<std::size_t>(size));
    at_ += static_cast<std::size_t>(size);
    return value;
  }
  std::string_view bytes_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::uint64_t field_ = 0, number_ = 0;
  unsigned wire_ = 0;
  std::string_view value_;
};

// The few settings of a tokenizer_config.json that concern a SentencePiece model.
struct Config {
  std::optional<bool> add_bos, add_eos;
  std::optional<std::string> bos, eos, pad;
};

Config read_config(const std::string& text, const std::string& where) {
  Config config;
  if (text.empty()) return config;
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text, [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
      if (depth > 100) throw Error("nested too deep", where, "download the file again");
      return true;
    });
  } catch (const nlohmann::json::exception&) {
    throw Error("not valid JSON", where, "download the file again");
  }
  if (!json.is_object()) throw Error("is not a JSON object", where, "download the file again");
  const auto flag = [&](const char* key) -> std::optional<bool> {
    const auto it = json.find(key);
    return it != json.end() && it->is_boolean() ? std::optional(it->get<bool>()) : std::nullopt;
  };
  const auto token = [&](const char* key) -> std::optional<std::string> {
    const auto it = json.find(key);
    if (it == json.end()) return std::nullopt;
    if (it->is_string()) return it->get<std::string>();
    if (it->is_object() && it->contains("content") && (*it)["content"].is_string())
      return (*it)["content"].get<std::string>();
    return std::nullopt;
  };
  config.add_bos = flag("add_bos_token");
  config.add_eos = flag("add_eos_token");
  config.bos = token("bos_token");
  config.eos = token("eos_token");
  config.pad = token("pad_token");
  return config;
}

}  // namespace

std::shared_ptr<const TokenizerImpl> read_sentencepiece(std::string_view model, const std::string& source,
                                                        const SideFiles& side) {
  auto impl = std::make_shared<TokenizerImpl>();
  impl->source = source;
  impl->fingerprint = stable_hash(side.tokenizer_config, stable_hash(model));
  const auto fail = [&](const std::string& what, const std::string& fix) { throw Error(what, source, fix); };

  SentencePieceSpec spec;
  std::uint64_t model_type = 1;
  std::int64_t bos = 1, eos = 2, pad = -1;
  Message root(model, source);
  while (root.next()) {
    if (root.field() == 1) {
      constexpr std::size_t most_pieces = std::size_t{1} << 24;
      if (spec.pieces.size() >= most_pieces) fail("too many pieces", "at most 16777216");
      std::string_view text;
      float score = 0;
      std::uint64_t type = 1;
      for (Message piece(root.bytes(), source); piece.next();) {
        if (piece.field() == 1) text = piece.bytes();
        if (piece.field() == 2) score = piece.real();
        if (piece.field() == 3) type = piece.number();
      }
      if (type < 1 || type > 6)
        fail("piece " + std::to_string(spec.pieces.size()) + " has an unknown type",
             "download the file again");
      if (text.size() > 65535)
        fail("piece " + std::to_string(spec.pieces.size()) + " is too long", "download the file again");
      spec.pieces.push_back(utf8::repair(text));
      spec.scores.push_back(score);
      spec.types.push_back(static_cast<TokenType>(type));
    } else if (root.field() == 2) {
      for (Message trainer(root.bytes(), source); trainer.next();) {
        switch (trainer.field()) {
          case 3:
            model_type = trainer.number();
            break;
          case 24:
            spec.whitespace_as_suffix = trainer.boolean();
            break;
          case 35:
            spec.byte_fallback = trainer.boolean();
            break;
          case 41:
            bos = static_cast<std::int64_t>(trainer.number());
            break;
          case 42:
            eos = static_cast<std::int64_t>(trainer.number());
            break;
          case 43:
            pad = static_cast<std::int64_t>(trainer.number());
            break;
          case 44:
            spec.unknown_surface = utf8::repair(trainer.bytes());
            break;
          default:
            break;
        }
      }
    } else if (root.field() == 3) {
      for (Message normalizer(root.bytes(), source); normalizer.next();) {
        switch (normalizer.field()) {
          case 2:
            spec.charsmap = normalizer.bytes();
            break;
          case 3:
            spec.add_dummy_prefix = normalizer.boolean();
            break;
          case 4:
            spec.remove_extra_whitespaces = normalizer.boolean();
            break;
          case 5:
            spec.escape_whitespaces = normalizer.boolean();
            break;
          default:
            break;
        }
      }
    }
  }
  if (spec.pieces.empty())
    fail("not a SentencePiece model: it has no pieces", "give a tokenizer.model or another tokenizer file");
  if (model_type != 1 && model_type != 2)
    fail("SentencePiece models of words or characters are not supported", "use a BPE or Unigram model");
  spec.unigram = model_type == 1;
  const bool unigram = spec.unigram;
  const auto count = static_cast<std::int64_t>(spec.pieces.size());
  build_sentencepiece(*impl, std::move(spec));
  impl->finish();

  const Config config = read_config(side.tokenizer_config, source + " (tokenizer_config.json)");
  const auto choose = [&](const std::optional<std::string>& name,
                          std::int64_t id) -> std::optional<std::int32_t> {
    if (name) {
      if (const auto named = impl->token_to_id(*name)) return named;
    }
    // The ids of the training settings hold only if they are control pieces.
    if (id < 0 || id >= count || !impl->is_special(static_cast<std::int32_t>(id))) return std::nullopt;
    return static_cast<std::int32_t>(id);
  };
  impl->bos = choose(config.bos, bos);
  impl->eos = choose(config.eos, eos);
  impl->pad = choose(config.pad, pad);
  if (config.add_bos.value_or(!unigram) && impl->bos) impl->prefix = {*impl->bos};
  if (config.add_eos.value_or(unigram) && impl->eos) impl->suffix = {*impl->eos};
  add_end_id(*impl, impl->eos);
  add_end_ids_by_name(*impl);
  return impl;
}

}  // namespace ttt::inline v2::text

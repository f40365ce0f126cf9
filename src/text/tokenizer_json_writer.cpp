// A GGUF vocabulary as a tokenizer.json: the same rules in the words of the `tokenizers` package.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "text/pre_kinds.h"
#include "text/unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/text/tokenizer.h"

namespace ttt::inline v2 {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* space_mark = "\xE2\x96\x81";

std::string base64(std::string_view bytes) {
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    unsigned bits = 0;
    for (std::size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string regex_literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}-#&~").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

Json replace(const Json& pattern, const char* by) {
  return {{"type", "Replace"}, {"pattern", pattern}, {"content", by}};
}
Json sequence(const char* key, Json items) {
  if (items.empty()) return nullptr;
  if (items.size() == 1) return items[0];
  return {{"type", "Sequence"}, {key, std::move(items)}};
}
Json split(const std::string& pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

class JsonWriter {
 public:
  explicit JsonWriter(const Vocabulary& vocabulary)
      : v_(vocabulary), source_(v_.source.empty() ? "GGUF vocabulary" : v_.source), n_(v_.tokens.size()) {}

  std::string write() {
    // Reading it checks it, and says what stands around a sequence.
    const Tokenizer tokenizer = Tokenizer::from_vocabulary(v_);
    unknown_ = tokenizer.unk_id();
    if (v_.model == "llama") {
      pieces();
    } else if (v_.model == "t5") {
      unigram();
    } else if (v_.model == "bert") {
      word_piece();
    } else {
      byte_pairs(v_.model == "gpt2" ? v_.pre : "gemma4");
    }
    Json added = Json::array();
    for (std::size_t i = 0; i < n_; ++i) {
      if (v_.tokens[i].empty() || !is_added(i)) continue;
      const auto id = static_cast<std::int32_t>(i);
      const bool special = type(i) != TokenType::user_defined;
      added.push_back({{"id", i},
                       {"content", special ? v_.tokens[i] : piece(i)},
                       {"single_word", false},
                       {"lstrip", std::ranges::find(v_.left_strip, id) != v_.left_strip.end()},
                       {"rstrip", std::ranges::find(v_.right_strip, id) != v_.right_strip.end()},
                       {"normalized", !special && normalized_},
                       {"special", special}});
    }
    const Json document{{"version", "1.0"},
                        {"truncation", nullptr},
                        {"padding", nullptr},
                        {"added_tokens", std::move(added)},
                        {"normalizer", sequence("normalizers", std::move(normalizers_))},
                        {"pre_tokenizer", sequence("pretokenizers", std::move(pre_tokenizers_))},
                        {"post_processor", around(tokenizer)},
                        {"decoder", sequence("decoders", std::move(decoders_))},
                        {"model", std::move(model_)}};
    return document.dump(1, ' ', false, Json::error_handler_t::replace);
  }

 private:
  TokenType type(std::size_t i) const {
    return v_.token_types.empty() ? TokenType::normal : v_.token_types[i];
  }
  bool is_unknown(std::size_t i) const {
    return unknown_ && static_cast<std::size_t>(*unknown_) == i && (v_.model == "llama" || v_.model == "t5");
  }
  bool is_added(std::size_t i) const {
    const TokenType t = type(i);
    if (t == TokenType::user_defined) return !user_defined_in_model_;
    return t == TokenType::control || t == TokenType::unknown || is_unknown(i);
  }
  // A SentencePiece vocabulary has user-defined pieces as text; the model sees escaped text.
  std::string piece(std::size_t i) const {
    std::string text = v_.tokens[i];
    if (!escaped_ || type(i) != TokenType::user_defined) return text;
    for (std::size_t at = text.find(' '); at != text.npos; at = text.find(' ', at))
      text.replace(at, 1, space_mark);
    return text;
  }
  Json unknown_token() const {
    return unknown_ ? Json(v_.tokens[static_cast<std::size_t>(*unknown_)]) : Json(nullptr);
  }

  Json vocabulary() const {
    Json::object_t::Container entries;
    entries.reserve(n_);
    std::unordered_map<std::string, std::size_t> place;
    for (std::size_t i = 0; i < n_; ++i) {
      if (v_.tokens[i].empty()) continue;
      std::string token = piece(i);
      const auto [it, fresh] = place.try_emplace(token, entries.size());
      if (fresh) {
        entries.emplace_back(std::move(token), i);
      } else {
        entries[it->second].second = i;  // of equal tokens the last one is found
      }
    }
    Json object = Json::object();
    static_cast<Json::object_t::Container&>(object.get_ref<Json::object_t&>()) = std::move(entries);
    return object;
  }

  void bpe(Json merges, bool byte_fallback, bool fuse_unknown, bool ignore_merges, Json unknown) {
    model_ = {{"type", "BPE"},
              {"dropout", nullptr},
              {"unk_token", std::move(unknown)},
              {"continuing_subword_prefix", nullptr},
              {"end_of_word_suffix", nullptr},
              {"fuse_unk", fuse_unknown},
              {"byte_fallback", byte_fallback},
              {"ignore_merges", ignore_merges},
              {"vocab", vocabulary()},
              {"merges", std::move(merges)}};
  }

  void byte_pairs(const std::string& pre) {
    const text::PreKind& rules = text::pre_kind(pre, source_);
    Json merges = Json::array();
    for (const std::string& merge : v_.merges) {
      const std::size_t space = merge.find(' ', 1);
      merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
    }
    bpe(std::move(merges), rules.characters, false, rules.ignore_merges,
        rules.characters ? unknown_token() : Json(nullptr));
    if (rules.escape_spaces) normalizers_.push_back(replace({{"String", " "}}, space_mark));
    for (const std::string& pattern : rules.patterns) pre_tokenizers_.push_back(split(pattern));
    if (rules.characters) {
      decode_pieces(false);
      return;
    }
    if (v_.add_space_prefix.value_or(false))
      throw Error("a byte-level vocabulary that begins texts with a space",
                  source_ + ": tokenizer.ggml.add_space_prefix", "no tokenizer.json says the same");
    const Json byte_level{
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
    pre_tokenizers_.push_back(byte_level);
    decoders_.push_back(byte_level);
  }

  void decode_pieces(bool strip) {
    decoders_.push_back(replace({{"String", space_mark}}, " "));
    decoders_.push_back({{"type", "ByteFallback"}});
    decoders_.push_back({{"type", "Fuse"}});
    if (strip) decoders_.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }

  // What SentencePiece does to text before its model.
  void normalize() {
    escaped_ = v_.escape_whitespaces.value_or(true);
    if (!v_.precompiled_charsmap.empty())
      normalizers_.push_back(
          {{"type", "Precompiled"}, {"precompiled_charsmap", base64(v_.precompiled_charsmap)}});
    const bool remove = v_.remove_extra_whitespaces.value_or(false),
               prefix = v_.add_space_prefix.value_or(true);
    if (remove) {
      normalizers_.push_back({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}});
      normalizers_.push_back(replace({{"Regex", " {2,}"}}, " "));
    }
    if (prefix) normalizers_.push_back({{"type", "Prepend"}, {"prepend", " "}});
    if (escaped_) normalizers_.push_back(replace({{"String", " "}}, space_mark));
    decode_pieces(prefix || remove);

    // User-defined pieces are cut out of the normalized text. As added tokens their own spelling would be
    // normalized too, which gives it the prefix; then it is a split, and the model knows them as words.
    const auto is_user_defined = [&](std::size_t i) {
      return type(i) == TokenType::user_defined && !v_.tokens[i].empty();
    };
    normalized_ = true;
    if (!prefix && !remove && v_.precompiled_charsmap.empty()) return;
    std::vector<std::string> words;
    for (std::size_t i = 0; i < n_; ++i) {
      if (is_user_defined(i)) words.push_back(piece(i));
    }
    if (words.empty()) return;
    user_defined_in_model_ = true;
    std::ranges::stable_sort(words, std::greater{}, &std::string::size);
    std::string pattern;
    for (const std::string& word : words) pattern += (pattern.empty() ? "" : "|") + regex_literal(word);
    pre_tokenizers_.push_back(split(pattern));
  }

  // SentencePiece merges whatever two neighbours make a token, best score first: the same as a list of all
  // ways to make each token, in the order of the scores.
  void pieces() {
    normalize();
    std::unordered_map<std::string_view, std::size_t> known;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < n_; ++i) {
      if (v_.tokens[i].empty() || type(i) != TokenType::normal || is_unknown(i)) continue;
      known[v_.tokens[i]] = i;
    }
    for (const auto& [token, id] : known) order.push_back(id);
    const auto score = [&](std::size_t i) { return v_.scores.empty() ? 0.0f : v_.scores[i]; };
    std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
      return score(a) != score(b) ? score(a) > score(b) : a < b;
    });
    Json merges = Json::array();
    for (const std::size_t id : order) {
      const std::string_view token = v_.tokens[id];
      for (std::size_t cut = 1; cut < token.size(); ++cut) {
        if ((static_cast<unsigned char>(token[cut]) & 0xC0) == 0x80) continue;  // inside of a character
        if (known.contains(token.substr(0, cut)) && known.contains(token.substr(cut)))
          merges.push_back({token.substr(0, cut), token.substr(cut)});
      }
    }
    bool bytes = false;
    for (std::size_t i = 0; i < n_; ++i) bytes = bytes || type(i) == TokenType::byte;
    bpe(std::move(merges), bytes, true, user_defined_in_model_, unknown_token());
  }

  void unigram() {
    normalize();
    Json entries = Json::array();
    bool bytes = false;
    for (std::size_t i = 0; i < n_; ++i) {
      bytes = bytes || type(i) == TokenType::byte;
      entries.push_back({piece(i), v_.scores.empty() ? 0.0f : v_.scores[i]});
    }
    model_ = {{"type", "Unigram"},
              {"unk_id", unknown_ ? Json(*unknown_) : Json(nullptr)},
              {"vocab", std::move(entries)},
              {"byte_fallback", bytes}};
  }

  void word_piece() {
    const bool lowercase = v_.lowercase.value_or(true);
    normalizers_.push_back({{"type", "BertNormalizer"},
                            {"clean_text", true},
                            {"handle_chinese_chars", true},
                            {"strip_accents", v_.strip_accents.value_or(lowercase)},
                            {"lowercase", lowercase}});
    pre_tokenizers_.push_back({{"type", "BertPreTokenizer"}});
    decoders_.push_back({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}});
    Json vocab = Json::object();
    for (std::size_t i = 0; i < n_; ++i) {
      const std::string& token = v_.tokens[i];
      const bool plain = type(i) != TokenType::control && type(i) != TokenType::unknown;
      vocab[plain ? text::word_piece_spelling(token) : token] = i;
    }
    model_ = {{"type", "WordPiece"},
              {"unk_token", unknown_token()},
              {"continuing_subword_prefix", "##"},
              {"max_input_chars_per_word", 100},
              {"vocab", std::move(vocab)}};
  }

  Json around(const Tokenizer& tokenizer) const {
    const std::vector<std::int32_t> ids = tokenizer.encode("");
    if (ids.empty()) return nullptr;
    Json before = Json::array(), behind = Json::array(), tokens = Json::object();
    const auto add = [&](Json& side, std::int32_t id) {
      const std::string& token = v_.tokens[static_cast<std::size_t>(id)];
      side.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
      tokens[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
    };
    // At most one token on each side.
    const bool first = ids.size() == 2 || (tokenizer.bos_id() == ids[0] && v_.add_bos.value_or(true));
    if (first) add(before, ids.front());
    if (!first || ids.size() == 2) add(behind, ids.back());
    const auto join = [&](std::initializer_list<const char*> texts) {
      Json all = before;
      for (const char* text : texts) {
        all.push_back({{"Sequence", {{"id", text}, {"type_id", 0}}}});
        all.insert(all.end(), behind.begin(), behind.end());
      }
      return all;
    };
    return {{"type", "TemplateProcessing"},
            {"single", join({"A"})},
            {"pair", join({"A", "B"})},
            {"special_tokens", std::move(tokens)}};
  }

  const Vocabulary& v_;
  std::string source_;
  std::size_t n_;
  std::optional<std::int32_t> unknown_;
  bool escaped_ = false, normalized_ = false, user_defined_in_model_ = false;
  Json normalizers_ = Json::array(), pre_tokenizers_ = Json::array(), decoders_ = Json::array();
  Json model_;
};

}  // namespace

std::string tokenizer_json(const Vocabulary& vocabulary) { return JsonWriter(vocabulary).write(); }

}  // namespace ttt::inline v2

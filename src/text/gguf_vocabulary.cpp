#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <unordered_map>

#include "text/pre_kinds.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

// --- kinds of pre-tokenizers
// -----------------------------------------------------------------------------------

constexpr const char* gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* number = R"(\p{N})";
constexpr const char* joined3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* joined1 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* joined1_marks =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* joined_any =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* cased3 =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* cased1_contractions =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* cased1 =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* delimited =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Ranges by number: some of these characters look like others or change under normalization.
constexpr const char* kana_and_han = R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";
constexpr const char* han_and_hangul = R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";
constexpr const char* east_asian_runs =
    R"([\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+|[\x{ff01}\x{2026}\x{201c}\x{201d}\x{2018}\x{2019})"
    R"(\x{2014}\x{ff1a}\x{ff1b}\x{ff0c}\x{3001}-\x{303f}\x{fe30}-\x{fe4f}]+|[\x{3105}-\x{312f}])"
    R"(+|[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";
constexpr const char* unspaced_scripts =
    R"([\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{8c48}-\x{faff}\x{3040}-\x{309f}\x{30a0}-\x{30ff})"
    R"(\x{ff65}-\x{ff9f}\x{2f00}-\x{2fdf}\x{e40}-\x{e7f}\x{e80}-\x{eff}\x{1780}-\x{17ff})"
    R"(\x{1000}-\x{109f}\x{aa60}-\x{aa7f}\x{a9e0}-\x{a9ff}\x{ac00}-\x{d7af}\x{1100}-\x{11ff}]+)";
constexpr const char* cased_scripts =
    R"(\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293})"
    R"(\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a})"
    R"(\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556})"
    R"(\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf})"
    R"(\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d})"
    R"(\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-)"
    R"(\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc})"
    R"(\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc})"
    R"(\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128})"
    R"(\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e})"
    R"(\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3})"
    R"(\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e})"
    R"(\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a})"
    R"(\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-)"
    R"(\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+)";
constexpr const char* wide_punctuation =
    R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)";
constexpr const char* words_without_marks =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+)";

const std::map<std::string, PreKind, std::less<>>& pre_kinds() {
  static const auto table = [] {
    std::map<std::string, PreKind, std::less<>> kinds;
    const auto set = [&](std::initializer_list<const char*> names, const PreKind& kind) {
      for (const char* name : names) kinds[name] = kind;
    };
    set({"gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
         "modern-bert", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"},
        {.patterns = {gpt2}});
    set({"jina-v1-en", "jina-v2-code", "roberta-bpe"}, {.patterns = {gpt2}, .add_sep = true});
    set({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
         "jina-v5-nano"},
        {.patterns = {joined3}, .ignore_merges = true, .add_bos = true});
    set({"dbrx", "smaug-bpe", "chatglm-bpe"}, {.patterns = {joined3}});
    set({"glm4", "glm5"}, {.patterns = {joined3}, .ignore_merges = true});
    set({"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "megrez", "hunyuan", "solar-open",
         "grok-2"},
        {.patterns = {joined1}});
    set({"qwen35"}, {.patterns = {joined1_marks}});
    set({"ufakzeka"},
        {.patterns = {
             R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}});
    set({"seed-coder"},
        {.patterns = {
             R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)"}});
    set({"bailingmoe", "bailingmoe2", "llada-moe"},
        {.patterns = {
             R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"}});
    set({"minicpm5"}, {.patterns = {R"(\p{N}{1,3})", joined_any}, .ignore_merges = true});
    set({"laguna"}, {.patterns = {R"([^\n]+|[\n]+)", joined1}});
    set({"exaone-moe"},
        {.patterns = {
             R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"}});
    set({"jais-2"},
        {.patterns = {
             R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})"}});
    set({"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, {.patterns = {cased3}});
    set({"granite-embed-multi-97m"}, {.patterns = {cased3}, .ignore_merges = true});
    set({"tiny_aya", "cohere2moe"}, {.patterns = {R"(\d{1,3}(?=(?:\d{3})*\b))", cased3}});
    set({"tekken"}, {.patterns = {cased1}, .ignore_merges = true, .add_bos = true});
    set({"youtu"}, {.patterns = {east_asian_runs, cased1_contractions}, .ignore_merges = true});
    set({"kimi-k2"},
        {.patterns = {
             R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}});
    set({"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
        {.patterns = {R"(\p{N}{1,3})", kana_and_han, delimited}});
    set({"spark2_5"},
        {.patterns = {
             R"(\p{N}{1,3})", kana_and_han,
             R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)",
             number}});
    set({"afmoe"}, {.patterns = {R"(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))", unspaced_scripts, delimited}});
    set({"deepseek-llm"},
        {.patterns = {"[\r\n]", cased_scripts, wide_punctuation, "\\s+$", han_and_hangul, R"(\p{N}+)"}});
    set({"deepseek-coder"}, {.patterns = {"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)", han_and_hangul, number}});
    set({"falcon"}, {.patterns = {R"([\p{P}\$\+<=>\^~\|`]+)", gpt2, "[0-9][0-9][0-9]"}});
    set({"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
        {.patterns = {number, gpt2}});
    set({"poro-chat", "bloom", "gpt3-finnish"}, {.patterns = {words_without_marks}});
    set({"viking"}, {.patterns = {words_without_marks, number}});
    set({"chameleon"}, {.patterns = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                                     "([\\t\\n]|    |  )", number, R"([\p{P}!-/:-@\[-`{-~])", gpt2},
                        .add_bos = true});
    set({"superbpe"}, {.patterns = {R"(\p{N}+)", R"((?=(\d{3})+(?!\d)))"}});
    set({"gemma4", "granite-embed-multi-311m", "sarvam-moe"},
        {.patterns = {R"([^\n]+|[\n]+)"}, .characters = true, .escape_spaces = true});
    set({"whitespace"}, {.patterns = {R"(\S+)"}, .characters = true});
    set({"", "default"}, {.patterns = {R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}});
    return kinds;
  }();
  return table;
}

// --- building
// --------------------------------------------------------------------------------------------------

class Builder {
 public:
  explicit Builder(Vocabulary vocabulary) : v_(std::move(vocabulary)) {
    impl_->source = v_.source.empty() ? "GGUF vocabulary" : v_.source;
  }

  std::shared_ptr<const TokenizerImpl> build() {
    check();
    hash();
    if (v_.model == "llama") {
      sentencepiece(false);
    } else if (v_.model == "t5") {
      sentencepiece(true);
    } else if (v_.model == "gpt2") {
      byte_pairs(v_.pre);
    } else if (v_.model == "gemma4") {
      byte_pairs("gemma4");
    } else if (v_.model == "bert") {
      word_piece();
    } else {
      fail("tokenizer model \"" + printable(v_.model) + "\" is not supported", "tokenizer.ggml.model",
           "supported are llama, gpt2, gemma4, t5 and bert");
    }
    return finish();
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& field, const std::string& fix) const {
    throw Error(what, impl_->source + ": " + field, fix);
  }

  void check() {
    constexpr std::size_t most_tokens = std::size_t{1} << 24;
    const std::size_t n = v_.tokens.size();
    if (n == 0)
      fail("the vocabulary is empty", "tokenizer.ggml.tokens", "use a file that carries its tokenizer");
    if (n > most_tokens) fail("too many tokens", "tokenizer.ggml.tokens", "at most 16777216");
    const auto same_size = [&](std::size_t size, const char* field) {
      if (size != 0 && size != n)
        fail("has " + std::to_string(size) + " entries for " + std::to_string(n) + " tokens", field,
             "convert the model again");
    };
    same_size(v_.scores.size(), "tokenizer.ggml.scores");
    same_size(v_.token_types.size(), "tokenizer.ggml.token_type");
    if (v_.token_types.empty()) v_.token_types.assign(n, TokenType::normal);
    for (std::size_t i = 0; i < n; ++i) {
      std::string& token = v_.tokens[i];
      if (token.size() > 65535)
        fail("token " + std::to_string(i) + " is too long", "tokenizer.ggml.tokens", "");
      bool valid = true;
      for (std::size_t k = 0; valid && k < token.size();) {
        if (static_cast<unsigned char>(token[k]) < 0x80) {
          ++k;
          continue;
        }
        const std::size_t size = utf8::valid_length(std::string_view(token).substr(k));
        valid = size > 0;
        k += size;
      }
      if (!valid) token = utf8::repair(token);
    }
    const std::pair<const char*, const std::optional<std::int32_t>*> ids[] = {
        {"tokenizer.ggml.bos_token_id", &v_.bos_id},
        {"tokenizer.ggml.eos_token_id", &v_.eos_id},
        {"tokenizer.ggml.eot_token_id", &v_.eot_id},
        {"tokenizer.ggml.eom_token_id", &v_.eom_id},
        {"tokenizer.ggml.unknown_token_id", &v_.unknown_id},
        {"tokenizer.ggml.seperator_token_id", &v_.separator_id},
        {"tokenizer.ggml.padding_token_id", &v_.padding_id},
        {"tokenizer.ggml.cls_token_id", &v_.cls_id},
        {"tokenizer.ggml.mask_token_id", &v_.mask_id}};
    for (const auto& [field, id] : ids) {
      if (*id && (**id < 0 || static_cast<std::size_t>(**id) >= n))
        fail(std::to_string(**id) + " is not a token of the vocabulary", field,
             "it has " + std::to_string(n));
    }
  }

  void hash() {
    std::uint64_t h = stable_hash(v_.model + '\0' + v_.pre);
    for (std::size_t i = 0; i < v_.tokens.size(); ++i)
      h = stable_hash(v_.tokens[i], h + static_cast<std::uint64_t>(v_.token_types[i]));
    for (const std::string& merge : v_.merges) h = stable_hash(merge, h);
    for (const float score : v_.scores) h = mix(h ^ std::bit_cast<std::uint32_t>(score), 0xD6E8FEB86659FD93u);
    for (const auto& flag :
         {v_.add_bos, v_.add_eos, v_.add_sep, v_.add_space_prefix, v_.remove_extra_whitespaces})
      h = mix(h + (flag ? 1 + *flag : 0), 0xA0761D6478BD642Fu);
    impl_->fingerprint = stable_hash(v_.precompiled_charsmap, h);
  }

  bool has_type(std::size_t i, TokenType type) const { return v_.token_types[i] == type; }
  static bool contains(const std::vector<std::int32_t>& ids, std::int32_t id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  }

  AddedToken added_token(std::size_t i) const {
    AddedToken token;
    token.id = static_cast<std::int32_t>(i);
    token.content = v_.tokens[i];
    token.special = !has_type(i, TokenType::user_defined);
    token.left_strip = contains(v_.left_strip, token.id);
    token.right_strip = contains(v_.right_strip, token.id);
    return token;
  }

  // Control, unknown and user-defined tokens are found in the text itself.
  void add_tokens() {
    for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
      if (v_.tokens[i].empty()) continue;
      if (has_type(i, TokenType::control) || has_type(i, TokenType::unknown) ||
          has_type(i, TokenType::user_defined))
        impl_->added.add(added_token(i));
    }
    impl_->added.finish({});
  }

  void sentencepiece(bool unigram) {
    const std::size_t n = v_.tokens.size();
    SentencePieceSpec spec;
    spec.unigram = unigram;
    spec.scores = std::move(v_.scores);
    if (spec.scores.empty()) spec.scores.assign(n, 0.0f);
    spec.types = v_.token_types;
    spec.add_dummy_prefix = v_.add_space_prefix.value_or(true);
    spec.remove_extra_whitespaces = v_.remove_extra_whitespaces.value_or(false);
    spec.escape_whitespaces = v_.escape_whitespaces.value_or(true);
    spec.unknown_is_special = true;
    spec.charsmap = std::move(v_.precompiled_charsmap);
    spec.byte_fallback = std::any_of(spec.types.begin(), spec.types.end(),
                                     [](TokenType type) { return type == TokenType::byte; });
    impl_->unk = v_.unknown_id ? v_.unknown_id : std::optional<std::int32_t>(unigram ? 2 : 0);
    if (static_cast<std::size_t>(*impl_->unk) >= n) impl_->unk.reset();
    // A token may be unknown's by id alone.
    if (impl_->unk && has_type(static_cast<std::size_t>(*impl_->unk), TokenType::normal) && v_.unknown_id)
      spec.types[static_cast<std::size_t>(*impl_->unk)] = TokenType::unknown;
    spec.pieces = v_.tokens;
    // Converters write user-defined pieces as text; the model, which sees escaped text, has them escaped.
    for (std::size_t i = 0; i < n && spec.escape_whitespaces; ++i) {
      if (!has_type(i, TokenType::user_defined)) continue;
      std::string& piece = spec.pieces[i];
      for (std::size_t at = piece.find(' '); at != piece.npos; at = piece.find(' ', at))
        piece.replace(at, 1, "\xE2\x96\x81");
    }
    for (const std::int32_t id : v_.left_strip) spec.left_strip.push_back(id);
    for (const std::int32_t id : v_.right_strip) spec.right_strip.push_back(id);
    build_sentencepiece(*impl_, std::move(spec));
    if (!unigram) {
      if (!v_.bos_id && n > 1) v_.bos_id = 1;
      if (!v_.eos_id && n > 2) v_.eos_id = 2;
    } else {
      if (!v_.eos_id && n > 1) v_.eos_id = 1;
    }
    around(!unigram, unigram);
  }

  void byte_pairs(const std::string& pre) {
    const PreKind& rules = pre_kind(pre, impl_->source);
    const std::size_t n = v_.tokens.size();
    const bool bytes = !rules.characters;

    auto model = std::make_unique<Bpe>();
    model->options.bytes = bytes;
    model->options.byte_fallback = rules.characters;
    model->options.ignore_merges = rules.ignore_merges;
    std::size_t size = 0;
    for (const std::string& token : v_.tokens) size += token.size();
    model->tokens.reserve(n, size);
    if (bytes) impl_->byte_spellings.reserve(n, size);
    std::vector<bool> visible(n);
    std::unordered_map<std::string_view, std::int32_t>
        hidden;  // tokens that words cannot become by their bytes
    std::string decoded;
    for (std::size_t i = 0; i < n; ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const std::string& token = v_.tokens[i];
      const bool plain = !has_type(i, TokenType::control) && !has_type(i, TokenType::unknown) &&
                         !has_type(i, TokenType::user_defined);
      decoded.clear();
      visible[i] = !token.empty();
      if (bytes) {
        impl_->byte_spellings.set(id, token);
        visible[i] = visible[i] && plain && decode_byte_level(token, decoded);
        model->tokens.set(id, visible[i] ? decoded : token);
      } else {
        visible[i] = visible[i] && (plain || has_type(i, TokenType::user_defined));
        model->tokens.set(id, token);
      }
      if (!visible[i]) hidden.emplace(token, id);
    }
    model->tokens.index(visible);

    const auto find = [&](std::string_view spelled) {
      decoded.clear();
      std::int32_t id = -1;
      if (!bytes) {
        id = model->tokens.find(spelled);
      } else if (decode_byte_level(spelled, decoded)) {
        id = model->tokens.find(decoded);
      }
      if (id >= 0) return id;
      const auto it = hidden.find(spelled);
      return it == hidden.end() ? -1 : it->second;
    };
    if (v_.merges.empty() && n > 300 && !bytes)
      fail("there are no merges", "tokenizer.ggml.merges", "convert the model again");
    model->reserve_merges(v_.merges.size());
    JoinedTokens joined(model->tokens, visible);
    for (std::size_t i = 0; i < v_.merges.size(); ++i) {
      const std::string_view merge = v_.merges[i];
      const std::size_t space = merge.find(' ', 1);
      if (space == merge.npos || space + 1 >= merge.size())
        fail("merge " + std::to_string(i) + " is not two tokens: \"" + printable(merge) + "\"",
             "tokenizer.ggml.merges", "convert the model again");
      const std::int32_t left = find(merge.substr(0, space)), right = find(merge.substr(space + 1));
      std::int32_t id = left >= 0 && right >= 0 ? joined.find(left, right) : -1;
      if (id < 0) id = find(std::string(merge.substr(0, space)).append(merge.substr(space + 1)));
      if (left < 0 || right < 0 || id < 0)
        fail("merge " + std::to_string(i) + " has a token that is not in the vocabulary: \"" +
                 printable(merge) + "\"",
             "tokenizer.ggml.merges", "convert the model again");
      model->add_merge(left, right, id);
    }
    if (rules.characters) model->unknown = v_.unknown_id;
    model->finish();

    if (rules.escape_spaces)
      impl_->normalizers.push_back(make_replace(Pattern::literal(" "), "\xE2\x96\x81"));
    for (const std::string& pattern : rules.patterns) {
      impl_->pre_tokenizers.push_back(make_split(
          Pattern::compile(pattern, Pattern::Syntax::oniguruma, impl_->source + ": tokenizer.ggml.pre"),
          SplitBehavior::isolated, false));
    }
    if (bytes && v_.add_space_prefix.value_or(false))
      impl_->pre_tokenizers.insert(impl_->pre_tokenizers.begin(), make_byte_level(true, false, false));
    impl_->model = std::move(model);
    add_tokens();
    DecoderRule rule;
    if (bytes) {
      rule.kind = DecoderRule::Kind::byte_level;
    } else {
      rule.kind = DecoderRule::Kind::sentence_piece;
    }
    impl_->decoders.push_back(std::move(rule));
    impl_->unk = v_.unknown_id;
    around(rules.add_bos || pre == "gemma4", false, rules.add_sep);
  }

  void word_piece() {
    const std::size_t n = v_.tokens.size();
    auto model = std::make_unique<WordPiece>();
    model->continuing_prefix = "##";
    std::vector<bool> visible(n);
    for (std::size_t i = 0; i < n; ++i) {
      const std::string& token = v_.tokens[i];
      const bool plain = !has_type(i, TokenType::control) && !has_type(i, TokenType::unknown);
      visible[i] = plain && !token.empty();
      model->tokens.set(static_cast<std::int32_t>(i), plain ? word_piece_spelling(token) : token);
    }
    model->tokens.index(visible);
    impl_->unk = v_.unknown_id ? v_.unknown_id : n > 100 ? std::optional<std::int32_t>(100) : std::nullopt;
    model->unknown = impl_->unk;
    model->finish();
    impl_->model = std::move(model);
    BertNormalizerOptions options;
    options.lowercase = v_.lowercase.value_or(true);
    options.strip_accents = v_.strip_accents.value_or(options.lowercase);
    impl_->normalizers.push_back(make_bert(options));
    impl_->pre_tokenizers.push_back(make_bert_pre_tokenizer());
    add_tokens();
    DecoderRule rule;
    rule.kind = DecoderRule::Kind::word_piece;
    rule.text = "##";
    rule.flag = true;
    impl_->decoders.push_back(std::move(rule));
    if (!v_.bos_id)
      v_.bos_id = v_.cls_id ? v_.cls_id : n > 101 ? std::optional<std::int32_t>(101) : std::nullopt;
    if (!v_.separator_id && n > 102) v_.separator_id = 102;
    around(true, false, true);
  }

  // What encode() adds around a sequence; the arguments are the defaults of the kind.
  void around(bool add_bos, bool add_eos, bool add_sep = false) {
    add_bos = v_.add_bos.value_or(add_bos);
    add_eos = v_.add_eos.value_or(add_eos);
    add_sep = v_.add_sep.value_or(add_sep);
    if (add_bos && v_.bos_id) impl_->prefix.push_back(*v_.bos_id);
    if (add_eos && v_.eos_id) {
      impl_->suffix.push_back(*v_.eos_id);
    } else if (add_sep && v_.separator_id) {
      impl_->suffix.push_back(*v_.separator_id);
    }
  }

  std::shared_ptr<const TokenizerImpl> finish() {
    impl_->finish();
    impl_->bos = v_.bos_id;
    impl_->eos = v_.eos_id;
    impl_->pad = v_.padding_id;
    for (const auto& id : {v_.eos_id, v_.eot_id, v_.eom_id}) add_end_id(*impl_, id);
    add_end_ids_by_name(*impl_);
    return std::move(impl_);
  }

  Vocabulary v_;
  std::shared_ptr<TokenizerImpl> impl_ = std::make_shared<TokenizerImpl>();
};

}  // namespace

const PreKind& pre_kind(std::string_view name, const std::string& source) {
  if (const auto kind = pre_kinds().find(name); kind != pre_kinds().end()) return kind->second;
  std::vector<std::string> names;
  for (const auto& [known, unused] : pre_kinds()) names.push_back(known);
  const std::string near = nearest(name, names);
  throw Error("pre-tokenizer \"" + printable(name) + "\" is not known", source + ": tokenizer.ggml.pre",
              near.empty() ? "use a known kind" : "did you mean \"" + near + "\"?");
}

std::string word_piece_spelling(const std::string& token) {
  constexpr std::string_view mark = "\xE2\x96\x81";
  if (token.starts_with(mark) && token.size() > mark.size()) return token.substr(mark.size());
  const bool reserved = token.size() > 2 && token.starts_with('[') && token.ends_with(']');
  return reserved ? token : "##" + token;
}

std::shared_ptr<const TokenizerImpl> read_vocabulary(Vocabulary vocabulary) {
  return Builder(std::move(vocabulary)).build();
}

}  // namespace ttt::inline v2::text

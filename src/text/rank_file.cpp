#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "text/tokenizer_impl.h"
#include "text/unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

constexpr std::int64_t largest_id = (std::int64_t{1} << 24) - 1;

struct Rank {
  std::string bytes;
  std::int64_t rank = 0;
};

// The common part: `ranks` plus `shift` are the ids.
std::shared_ptr<const TokenizerImpl> build(std::shared_ptr<TokenizerImpl> impl,
                                           const std::vector<Rank>& ranks, std::int64_t shift,
                                           const RankEncoding& encoding) {
  const std::string& source = impl->source;
  auto model = std::make_unique<RankedBpe>();
  model->bytes = true;
  model->whole_word = true;
  const auto count = static_cast<std::int64_t>(ranks.size());
  const std::int64_t limit = std::min(largest_id, 2 * count + 1'000'000);
  std::size_t bytes = 0;
  for (const Rank& entry : ranks) {
    if (entry.rank < 0 || entry.rank + shift > limit)
      throw Error("rank " + std::to_string(entry.rank) + " is out of range", source,
                  "download the file again");
    bytes += entry.bytes.size();
  }
  model->tokens.reserve(ranks.size(), bytes);
  impl->byte_spellings.reserve(ranks.size(), bytes * 2);
  std::string spelled;
  for (const Rank& entry : ranks) {
    const auto id = static_cast<std::int32_t>(entry.rank + shift);
    if (model->tokens.contains(id))
      throw Error("rank " + std::to_string(entry.rank) + " stands twice", source, "download the file again");
    model->tokens.set(id, entry.bytes);
    spelled.clear();
    append_byte_level(spelled, entry.bytes);
    impl->byte_spellings.set(id, spelled);
  }
  model->tokens.index();
  model->ranks.resize(static_cast<std::size_t>(model->tokens.size()), no_rank);
  for (std::size_t id = 0; id < model->ranks.size(); ++id) {
    if (model->tokens.contains(static_cast<std::int32_t>(id)))
      model->ranks[id] = static_cast<std::uint32_t>(id);
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    if (model->tokens.find({&c, 1}) < 0)
      throw Error("byte " + std::to_string(byte) + " has no rank", source, "the 256 bytes must be tokens");
  }
  model->finish();
  impl->model = std::move(model);

  if (encoding.nfc) impl->text_normalizers.push_back(make_unicode_form(NormalForm::nfc));
  impl->pre_tokenizers.push_back(
      make_split(Pattern::compile(encoding.pattern, Pattern::Syntax::rust, source + ": pattern"),
                 SplitBehavior::isolated, false));
  for (const auto& [content, id] : encoding.special_tokens) {
    if (id < 0 || id > std::min(largest_id, 2 * count + 1'000'000))
      throw Error("special token \"" + printable(content) + "\" has id " + std::to_string(id), source,
                  "ids must not be negative and fit the vocabulary");
    AddedToken token;
    token.id = id;
    token.content = utf8::repair(content);
    token.special = true;
    impl->added.add(std::move(token));
  }
  impl->added.finish({});
  DecoderRule rule;
  rule.kind = DecoderRule::Kind::byte_level;
  impl->decoders.push_back(std::move(rule));
  impl->finish();
  const auto named = [&](const std::string& name) -> std::optional<std::int32_t> {
    if (name.empty()) return std::nullopt;
    const AddedToken* token = impl->added.find(name);
    if (!token)
      throw Error("\"" + printable(name) + "\" is not a special token", source, "name one that exists");
    return token->id;
  };
  impl->bos = named(encoding.bos);
  impl->eos = named(encoding.eos);
  impl->pad = named(encoding.pad);
  if (encoding.add_bos && impl->bos) impl->prefix = {*impl->bos};
  add_end_id(*impl, impl->eos);
  add_end_ids_by_name(*impl);
  return impl;
}

std::vector<Rank> parse_ranks(std::string_view text, const std::string& source) {
  std::vector<Rank> ranks;
  std::size_t line_number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::size_t blank = line.find(' ');
    Rank entry;
    bool good =
        blank != line.npos && decode_base64(line.substr(0, blank), entry.bytes) && !entry.bytes.empty();
    if (good) {
      const char* last = line.data() + line.size();
      const auto [stop, error] = std::from_chars(line.data() + blank + 1, last, entry.rank);
      good = error == std::errc() && stop == last;
    }
    if (!good)
      throw Error("line " + std::to_string(line_number) + " is not a token in base64 and its rank: \"" +
                      printable(line) + "\"",
                  source, "download the file again");
    ranks.push_back(std::move(entry));
  }
  if (ranks.empty()) throw Error("the file has no ranks", source, "download the file again");
  return ranks;
}

// --- tekken
// ----------------------------------------------------------------------------------------------------

struct TekkenFile {
  struct Special {
    std::int64_t rank = -1;
    std::string text;
    bool is_control = true;
  };
  std::vector<Rank> ranks;
  std::vector<Special> special_tokens;
  bool has_special_tokens = false;
  std::string pattern;
  std::int64_t vocab_size = -1, special_count = -1;
};

class TekkenReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  TekkenReader(TekkenFile& file, const std::string& source) : file_(file), source_(source) {}
  bool null() override { return true; }
  bool boolean(bool b) override {
    if (in_special()) {
      if (key_ == "is_control") file_.special_tokens.back().is_control = b;
    }
    return true;
  }
  bool number_integer(number_integer_t n) override { return number(n); }
  bool number_unsigned(number_unsigned_t n) override {
    return number(
        static_cast<std::int64_t>(std::min<std::uint64_t>(n, std::numeric_limits<std::int64_t>::max() / 2)));
  }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t& text) override {
    if (in_vocab()) {
      if (key_ == "token_bytes" &&
          (!decode_base64(text, file_.ranks.back().bytes) || file_.ranks.back().bytes.empty()))
        throw Error("token_bytes of entry " + std::to_string(file_.ranks.size() - 1) + " is not base64",
                    source_ + ": vocab", "download the file again");
    } else if (in_special()) {
      if (key_ == "token_str") file_.special_tokens.back().text = std::move(text);
    } else if (depth_ == 2 && section_ == "config" && key_ == "pattern") {
      file_.pattern = std::move(text);
    }
    return true;
  }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    enter();
    if (depth_ == 3 && section_ == "vocab") file_.ranks.push_back({{}, -1});
    if (depth_ == 3 && section_ == "special_tokens") file_.special_tokens.emplace_back();
    return true;
  }
  bool key(string_t& text) override {
    key_ = std::move(text);
    if (depth_ == 1) section_ = key_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    enter();
    if (depth_ == 2 && section_ == "special_tokens") file_.has_special_tokens = true;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    throw Error("not valid JSON at byte " + std::to_string(position), source_, "download the file again");
  }

 private:
  void enter() {
    constexpr int deepest = 100;
    if (++depth_ > deepest) throw Error("nested too deep", source_, "download the file again");
  }
  bool in_vocab() const { return depth_ == 3 && section_ == "vocab" && !file_.ranks.empty(); }
  bool in_special() const {
    return depth_ == 3 && section_ == "special_tokens" && !file_.special_tokens.empty();
  }
  bool number(std::int64_t n) {
    if (in_vocab()) {
      if (key_ == "rank") file_.ranks.back().rank = n;
    } else if (in_special()) {
      if (key_ == "rank") file_.special_tokens.back().rank = n;
    } else if (depth_ == 2 && section_ == "config") {
      if (key_ == "default_vocab_size") file_.vocab_size = n;
      if (key_ == "default_num_special_tokens") file_.special_count = n;
    }
    return true;
  }
  TekkenFile& file_;
  const std::string& source_;
  int depth_ = 0;
  std::string key_, section_;
};

constexpr const char* plain_words =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)";
constexpr const char* joined3_possessive =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";
constexpr const char* joined3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* joined1 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* joined1_marks =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* cased3 =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

RankEncoding published_encoding(std::string_view ranks, const std::string& source) {
  const auto lines = static_cast<std::size_t>(std::count(ranks.begin(), ranks.end(), '\n')) +
                     (!ranks.empty() && ranks.back() != '\n' ? 1 : 0);
  RankEncoding e;
  std::int32_t next = 0;
  const auto start = [&](std::size_t first) { next = static_cast<std::int32_t>(first); };
  const auto add = [&](const std::string& name) { e.special_tokens.emplace_back(name, next++); };
  const auto add_all = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) add(name);
  };
  const auto add_numbered = [&](const std::string& before, int first, int count) {
    for (int i = first; i < first + count; ++i) add(before + std::to_string(i) + "|>");
  };
  // Published files are told apart by the number of their lines.
  switch (lines) {
    case 50256:
    case 50280:
      e.pattern = plain_words;
      e.special_tokens = {{"<|endoftext|>", 50256}};
      e.eos = "<|endoftext|>";
      break;
    case 100256:
      e.pattern = joined3_possessive;
      e.special_tokens = {{"<|endoftext|>", 100257},
                          {"<|fim_prefix|>", 100258},
                          {"<|fim_middle|>", 100259},
                          {"<|fim_suffix|>", 100260},
                          {"<|endofprompt|>", 100276}};
      e.eos = "<|endoftext|>";
      break;
    case 199998:
      e.pattern = cased3;
      e.special_tokens = {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}};
      e.eos = "<|endoftext|>";
      break;
    case 128000:
      e.pattern = joined3;
      start(lines);
      add_all({"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
               "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
               "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
               "<|image|>"});
      add_numbered("<|reserved_special_token_", 2, 244);
      e.bos = "<|begin_of_text|>";
      e.eos = "<|end_of_text|>";
      e.pad = "<|finetune_right_pad_id|>";
      e.add_bos = true;
      break;
    case 200000:
      e.pattern = cased3;
      start(lines);
      add_all({"<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
               "<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>"});
      add_numbered("<|text_post_train_reserved_special_token_", 0, 6);
      add_all({"<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"});
      add_numbered("<|text_post_train_reserved_special_token_", 8, 61);
      add_all({"<|image_start|>", "<|image_end|>"});
      add_numbered("<|vision_reserved_special_token_", 0, 2);
      add_all({"<|tile_x_separator|>", "<|tile_y_separator|>"});
      add_numbered("<|vision_reserved_special_token_", 2, 4);
      add("<|image|>");
      add_numbered("<|vision_reserved_special_token_", 6, 1);
      add("<|patch|>");
      add_numbered("<|vision_reserved_special_token_", 7, 1041);
      add_numbered("<|reasoning_reserved_special_token_", 0, 8);
      add_all({"<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"});
      add_numbered("<|reserved_special_token_", 0, 200000 + 2048 - next);
      e.bos = "<|begin_of_text|>";
      e.eos = "<|end_of_text|>";
      e.pad = "<|finetune_right_pad|>";
      e.add_bos = true;
      break;
    case 151643:
      e.pattern = joined1;
      e.nfc = true;
      start(lines);
      add_all({"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
      add_numbered("<|extra_", 0, 205);
      e.eos = "<|endoftext|>";
      break;
    case 248044:
      e.pattern = joined1_marks;
      e.nfc = true;
      start(lines);
      add_all({"<|endoftext|>",
               "<|im_start|>",
               "<|im_end|>",
               "<|object_ref_start|>",
               "<|object_ref_end|>",
               "<|box_start|>",
               "<|box_end|>",
               "<|quad_start|>",
               "<|quad_end|>",
               "<|vision_start|>",
               "<|vision_end|>",
               "<|vision_pad|>",
               "<|image_pad|>",
               "<|video_pad|>",
               "<tool_call>",
               "</tool_call>",
               "<|fim_prefix|>",
               "<|fim_middle|>",
               "<|fim_suffix|>",
               "<|fim_pad|>",
               "<|repo_name|>",
               "<|file_sep|>",
               "<tool_response>",
               "</tool_response>",
               "<think>",
               "</think>",
               "<|audio_start|>",
               "<|audio_end|>",
               "<tts_pad>",
               "<tts_text_bos>",
               "<tts_text_eod>",
               "<tts_text_bos_single>",
               "<|audio_pad|>"});
      e.eos = "<|endoftext|>";
      break;
    default:
      throw Error("a rank file with " + std::to_string(lines) + " tokens is of no published encoding", source,
                  "give its split pattern and special tokens to Tokenizer::from_ranks");
  }
  return e;
}

std::shared_ptr<const TokenizerImpl> read_ranks(std::string_view ranks, const RankEncoding& encoding,
                                                const std::string& source) {
  auto impl = std::make_shared<TokenizerImpl>();
  impl->source = source;
  impl->fingerprint = stable_hash(encoding.pattern, stable_hash(ranks));
  for (const auto& [content, id] : encoding.special_tokens)
    impl->fingerprint = stable_hash(content, impl->fingerprint + static_cast<std::uint64_t>(id));
  return build(std::move(impl), parse_ranks(ranks, source), 0, encoding);
}

std::shared_ptr<const TokenizerImpl> read_tekken(std::string_view json, const std::string& source) {
  auto impl = std::make_shared<TokenizerImpl>();
  impl->source = source;
  impl->fingerprint = stable_hash(json);
  TekkenFile file;
  TekkenReader reader(file, source);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  const auto fail = [&](const std::string& what, const char* field) {
    throw Error(what, source + ": " + field, "download the file again");
  };
  if (file.pattern.empty()) fail("is missing", "config.pattern");
  if (file.special_count < 0 || file.special_count > 1'000'000)
    fail("is missing or out of range", "config.default_num_special_tokens");
  if (file.vocab_size < file.special_count || file.vocab_size > largest_id)
    fail("is missing or out of range", "config.default_vocab_size");
  const std::int64_t inner = file.vocab_size - file.special_count;
  if (static_cast<std::int64_t>(file.ranks.size()) < inner)
    fail("has fewer tokens than config.default_vocab_size", "vocab");
  file.ranks.resize(static_cast<std::size_t>(inner));

  if (!file.has_special_tokens) {
    // Files before version 8 leave them out.
    static constexpr std::array<const char*, 20> names = {"<unk>",
                                                          "<s>",
                                                          "</s>",
                                                          "[INST]",
                                                          "[/INST]",
                                                          "[AVAILABLE_TOOLS]",
                                                          "[/AVAILABLE_TOOLS]",
                                                          "[TOOL_RESULTS]",
                                                          "[/TOOL_RESULTS]",
                                                          "[TOOL_CALLS]",
                                                          "[IMG]",
                                                          "<pad>",
                                                          "[IMG_BREAK]",
                                                          "[IMG_END]",
                                                          "[PREFIX]",
                                                          "[MIDDLE]",
                                                          "[SUFFIX]",
                                                          "[SYSTEM_PROMPT]",
                                                          "[/SYSTEM_PROMPT]",
                                                          "[TOOL_CONTENT]"};
    for (std::size_t i = 0; i < names.size() && static_cast<std::int64_t>(i) < file.special_count; ++i)
      file.special_tokens.push_back({static_cast<std::int64_t>(i), names[i], true});
  }
  RankEncoding encoding;
  encoding.pattern = file.pattern;
  for (const auto& token : file.special_tokens) {
    if (token.rank < 0 || token.rank >= file.special_count || token.text.empty())
      fail("entry \"" + printable(token.text) + "\" is out of range", "special_tokens");
    encoding.special_tokens.emplace_back(token.text, static_cast<std::int32_t>(token.rank));
    if (token.text == "<s>") encoding.bos = token.text;
    if (token.text == "</s>") encoding.eos = token.text;
    if (token.text == "<pad>") encoding.pad = token.text;
  }
  for (auto i = static_cast<std::int64_t>(file.special_tokens.size()); i < file.special_count; ++i)
    encoding.special_tokens.emplace_back("<SPECIAL_" + std::to_string(i) + ">", static_cast<std::int32_t>(i));
  encoding.add_bos = !encoding.bos.empty();
  return build(std::move(impl), file.ranks, file.special_count, encoding);
}

}  // namespace ttt::inline v2::text

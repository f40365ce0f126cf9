#include <algorithm>
#include <unordered_map>

#include "text/tokenizer_document.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

[[noreturn]] void unknown_type(const Node& node, const std::string& type) {
  node.fail("type \"" + printable(type) + "\" is not supported", "use a tokenizer without it");
}

constexpr std::int64_t largest_id = (std::int64_t{1} << 24) - 1;

class Builder {
 public:
  Builder(std::string_view text, const std::string& source, const SideFiles& side)
      : side_(side), file_(read_tokenizer_document(text, source)) {
    impl_->source = source;
    impl_->fingerprint = stable_hash(side.tokenizer_config, stable_hash(text));
  }

  std::shared_ptr<const TokenizerImpl> build() {
    const Node root(file_.rest, impl_->source + ": ");
    normalizers(root["normalizer"]);
    const Node pre = root["pre_tokenizer"];
    // A byte-level BPE works on bytes; the alphabet is only for files.
    byte_model_ =
        ends_in_byte_level(pre) && model_type(root["model"]) == "BPE" && can_work_on_bytes(root["model"]);
    pre_tokenizers(pre, true);
    model(root["model"]);
    added_tokens(root["added_tokens"]);
    post_processor(root["post_processor"]);
    decoders(root["decoder"]);
    side_files();
    impl_->added.finish(impl_->normalizers);
    impl_->finish();
    name_ids();
    return std::move(impl_);
  }

 private:
  // --- normalizers ---
  void normalizers(const Node& node) {
    if (node.is_null()) return;
    const std::string type = node["type"].string();
    auto& out = impl_->normalizers;
    if (type == "Sequence") {
      for (const Node& item : node["normalizers"].items()) normalizers(item);
    } else if (type == "NFC") {
      out.push_back(make_unicode_form(NormalForm::nfc));
    } else if (type == "NFD") {
      out.push_back(make_unicode_form(NormalForm::nfd));
    } else if (type == "NFKC") {
      out.push_back(make_unicode_form(NormalForm::nfkc));
    } else if (type == "NFKD") {
      out.push_back(make_unicode_form(NormalForm::nfkd));
    } else if (type == "Lowercase") {
      out.push_back(make_lowercase());
    } else if (type == "Strip") {
      out.push_back(make_strip(node["strip_left"].boolean_or(true), node["strip_right"].boolean_or(true)));
    } else if (type == "StripAccents") {
      out.push_back(make_strip_accents());
    } else if (type == "Replace") {
      out.push_back(make_replace(pattern(node["pattern"]), node["content"].string()));
    } else if (type == "Prepend") {
      out.push_back(make_prepend(node["prepend"].string()));
    } else if (type == "Nmt") {
      out.push_back(make_nmt());
    } else if (type == "ByteLevel") {
      out.push_back(make_byte_level_alphabet());
    } else if (type == "BertNormalizer") {
      BertNormalizerOptions options;
      options.clean_text = node["clean_text"].boolean_or(true);
      options.handle_chinese_chars = node["handle_chinese_chars"].boolean_or(true);
      options.lowercase = node["lowercase"].boolean_or(true);
      options.strip_accents = node["strip_accents"].boolean_or(options.lowercase);
      out.push_back(make_bert(options));
    } else if (type == "Precompiled") {
      const Node map = node["precompiled_charsmap"];
      if (!map.is_null() && !map.string().empty())
        out.push_back(make_precompiled(CharsMap(decode_base64(map.string(), map.path()), map.path())));
    } else {
      unknown_type(node["type"], type);
    }
  }

  static Pattern pattern(const Node& node) {
    if (node.has("String")) return Pattern::literal(node["String"].string());
    if (node.has("Regex"))
      return Pattern::compile(node["Regex"].string(), Pattern::Syntax::oniguruma, node["Regex"].path());
    node.fail("is neither a String nor a Regex");
  }

  // --- pre-tokenizers ---
  static bool ends_in_byte_level(const Node& node) {
    if (node.is_null()) return false;
    const std::string type = node["type"].string();
    if (type == "ByteLevel") return true;
    if (type != "Sequence") return false;
    const std::vector<Node> items = node["pretokenizers"].items();
    return !items.empty() && ends_in_byte_level(items.back());
  }

  static SplitBehavior behavior(const Node& node, SplitBehavior fallback) {
    if (node.is_null()) return fallback;
    const std::string name = node.string();
    if (name == "Removed") return SplitBehavior::removed;
    if (name == "Isolated") return SplitBehavior::isolated;
    if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
    if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
    if (name == "Contiguous") return SplitBehavior::contiguous;
    unknown_type(node, name);
  }

  static PrependScheme prepend_scheme(const Node& node) {
    const Node scheme = node["prepend_scheme"];
    if (scheme.is_null())
      return node["add_prefix_space"].boolean_or(true) ? PrependScheme::always : PrependScheme::never;
    const std::string name = scheme.string();
    if (name == "always") return PrependScheme::always;
    if (name == "first") return PrependScheme::first;
    if (name == "never") return PrependScheme::never;
    unknown_type(scheme, name);
  }

  static std::string character(const Node& node, const char* fallback) {
    const std::string text = node.string_or(fallback);
    if (text.empty() || utf8::valid_length(text) != text.size()) node.fail("is not one character");
    return text;
  }

  // `last`: nothing comes behind.
  void pre_tokenizers(const Node& node, bool last) {
    if (node.is_null()) return;
    const std::string type = node["type"].string();
    auto& out = impl_->pre_tokenizers;
    if (type == "Sequence") {
      const std::vector<Node> items = node["pretokenizers"].items();
      for (std::size_t i = 0; i < items.size(); ++i) pre_tokenizers(items[i], last && i + 1 == items.size());
    } else if (type == "ByteLevel") {
      const bool add_prefix_space = node["add_prefix_space"].boolean_or(true);
      const bool use_regex = node["use_regex"].boolean_or(true), alphabet = !(byte_model_ && last);
      if (add_prefix_space || use_regex || alphabet)
        out.push_back(make_byte_level(add_prefix_space, use_regex, alphabet));
    } else if (type == "Split") {
      out.push_back(make_split(pattern(node["pattern"]), behavior(node["behavior"], SplitBehavior::isolated),
                               node["invert"].boolean_or(false)));
    } else if (type == "Digits") {
      out.push_back(make_digits(node["individual_digits"].boolean_or(false)));
    } else if (type == "Metaspace") {
      out.push_back(make_metaspace(character(node["replacement"], "\xE2\x96\x81"), prepend_scheme(node),
                                   node["split"].boolean_or(true)));
    } else if (type == "Whitespace") {
      out.push_back(make_whitespace());
    } else if (type == "WhitespaceSplit") {
      out.push_back(make_whitespace_split());
    } else if (type == "Punctuation") {
      out.push_back(make_punctuation(behavior(node["behavior"], SplitBehavior::isolated)));
    } else if (type == "BertPreTokenizer") {
      out.push_back(make_bert_pre_tokenizer());
    } else if (type == "CharDelimiterSplit") {
      out.push_back(make_char_delimiter(utf8::decode(character(node["delimiter"], " "))));
    } else if (type == "FixedLength") {
      const std::size_t length = node["length"].size_or(5);
      if (length == 0) node["length"].fail("is zero");
      out.push_back(make_fixed_length(length));
    } else {
      unknown_type(node["type"], type);
    }
  }

  // --- model ---
  std::string model_type(const Node& node) const {
    if (!node["type"].is_null()) return node["type"].string();
    // Older files do not say.
    if (file_.vocab_is_array) return "Unigram";
    if (file_.has_merges) return "BPE";
    return node.has("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
  }

  bool can_work_on_bytes(const Node& node) const {
    const auto empty = [&](const char* key) { return node[key].is_null() || node[key].string().empty(); };
    return node["unk_token"].is_null() && !node["byte_fallback"].boolean_or(false) &&
           empty("continuing_subword_prefix") && empty("end_of_word_suffix");
  }

  void model(const Node& node) {
    if (!node.json().is_object()) node.fail("is missing", "give a complete tokenizer.json");
    const std::string type = model_type(node);
    if (type == "BPE") {
      bpe(node);
    } else if (type == "Unigram") {
      unigram(node);
    } else if (type == "WordPiece") {
      auto model = std::make_unique<WordPiece>();
      fill(*model, node);
      model->continuing_prefix = node["continuing_subword_prefix"].string_or("##");
      model->longest_word = node["max_input_chars_per_word"].size_or(100);
      unknown_token(*model, node);
      model->finish();
      impl_->model = std::move(model);
    } else if (type == "WordLevel") {
      auto model = std::make_unique<WordLevel>();
      fill(*model, node);
      unknown_token(*model, node);
      impl_->model = std::move(model);
    } else {
      unknown_type(node["type"], type);
    }
  }

  void unknown_token(Model& model, const Node& node) {
    const Node token = node["unk_token"];
    if (token.is_null()) return;
    const std::int32_t id = model.tokens.find(token.string());
    if (id >= 0) {
      model.unknown = id;
    } else {
      unknown_name_ = token.string();  // may yet be an added token
    }
    impl_->unk = model.unknown;
  }

  // The vocabulary as it is spelled.
  void fill(Model& model, const Node& node) {
    if (!file_.vocab_is_object) node["vocab"].fail("is not an object of tokens and ids");
    const std::string where = node["vocab"].path();
    const std::int64_t count = static_cast<std::int64_t>(file_.vocab.size());
    std::size_t bytes = 0;
    for (const auto& [token, id] : file_.vocab) {
      check_id(id, count, token, where);
      bytes += token.size();
    }
    model.tokens.reserve(file_.vocab.size(), bytes);
    std::vector<bool>& visible = visible_;
    if (byte_model_) {
      impl_->byte_spellings.reserve(file_.vocab.size(), bytes);
      visible.resize(file_.vocab.size());
      std::string decoded;
      for (const auto& [token, id] : file_.vocab) {
        const auto index = static_cast<std::size_t>(id);
        if (index >= visible.size()) visible.resize(index + 1);
        decoded.clear();
        visible[index] = decode_byte_level(token, decoded);
        if (!visible[index]) hidden_.emplace(token, static_cast<std::int32_t>(id));
        model.tokens.set(static_cast<std::int32_t>(id), visible[index] ? decoded : token);
        impl_->byte_spellings.set(static_cast<std::int32_t>(id), token);
      }
    } else {
      for (const auto& [token, id] : file_.vocab) model.tokens.set(static_cast<std::int32_t>(id), token);
    }
    model.tokens.index(visible);
  }

  static void check_id(std::int64_t id, std::int64_t count, const std::string& token,
                       const std::string& where) {
    const std::int64_t limit =
        std::min(largest_id, 2 * count + 1'000'000);  // bounds what an id can make us allocate
    if (id < 0 || id > limit)
      throw Error("token \"" + printable(token) + "\" has id " + std::to_string(id), where,
                  "ids are integers from 0 to " + std::to_string(limit));
    if (token.size() > 1'000'000) throw Error("a token is too long", where, "at most 1000000 bytes");
  }

  void bpe(const Node& node) {
    const Node dropout = node["dropout"];
    if (!dropout.is_null() && !(dropout.json().is_number() && dropout.json().get<double>() == 0.0))
      dropout.fail("is set: encoding would be random", "set it to null");
    auto model = std::make_unique<Bpe>();
    Bpe::Options& options = model->options;
    options.bytes = byte_model_;
    options.byte_fallback = node["byte_fallback"].boolean_or(false);
    options.fuse_unknown = node["fuse_unk"].boolean_or(false);
    options.ignore_merges = node["ignore_merges"].boolean_or(false);
    options.continuing_prefix = node["continuing_subword_prefix"].string_or("");
    options.end_suffix = node["end_of_word_suffix"].string_or("");
    fill(*model, node);
    unknown_token(*model, node);

    const std::string where = node["merges"].path();
    std::string decoded;
    const auto find = [&](const std::string& spelled) {
      if (!byte_model_) return model->tokens.find(spelled);
      decoded.clear();
      if (decode_byte_level(spelled, decoded)) return model->tokens.find(decoded);
      const auto it = hidden_.find(spelled);
      return it == hidden_.end() ? -1 : it->second;
    };
    const std::size_t count = file_.merges.size() + file_.merge_lines.size();
    model->reserve_merges(count);
    std::size_t number = 0;
    JoinedTokens joined(model->tokens, visible_);
    const auto add = [&](const std::string& left, const std::string& right) {
      const std::int32_t left_id = find(left), right_id = find(right);
      const bool has_prefix =
          !options.continuing_prefix.empty() && right.starts_with(options.continuing_prefix);
      std::int32_t id = left_id >= 0 && right_id >= 0 && !has_prefix ? joined.find(left_id, right_id) : -1;
      if (id < 0) id = find(left + right.substr(has_prefix ? options.continuing_prefix.size() : 0));
      if (left_id < 0 || right_id < 0 || id < 0)
        throw Error("merge " + std::to_string(number) + " (\"" + printable(left) + "\", \"" +
                        printable(right) + "\") has a token that is not in the vocabulary",
                    where, "download the file again");
      model->add_merge(left_id, right_id, id);
      ++number;
    };
    for (const auto& [left, right] : file_.merges) add(left, right);
    for (const std::string& line : file_.merge_lines) {
      if (line.starts_with("#version")) continue;
      const std::size_t space = line.find(' ');
      if (space == line.npos || line.find(' ', space + 1) != line.npos)
        throw Error("merge " + std::to_string(number) + " is not two tokens: \"" + printable(line) + "\"",
                    where, "download the file again");
      add(line.substr(0, space), line.substr(space + 1));
    }
    model->finish();
    impl_->model = std::move(model);
  }

  void unigram(const Node& node) {
    if (!file_.vocab_is_array) node["vocab"].fail("is not an array of tokens and scores");
    auto model = std::make_unique<Unigram>();
    const std::size_t count = file_.scored_vocab.size();
    if (count > static_cast<std::size_t>(largest_id)) node["vocab"].fail("is too large");
    for (std::size_t i = 0; i < count; ++i) {
      const auto& [token, score] = file_.scored_vocab[i];
      check_id(static_cast<std::int64_t>(i), static_cast<std::int64_t>(count), token, node["vocab"].path());
      model->tokens.set(static_cast<std::int32_t>(i), token);
      model->scores.push_back(score);
    }
    model->tokens.index();
    model->byte_fallback = node["byte_fallback"].boolean_or(false);
    const Node unknown = node["unk_id"];
    if (!unknown.is_null()) {
      const std::int64_t id = unknown.integer();
      if (id < 0 || id >= static_cast<std::int64_t>(count)) unknown.fail("is not a token of the vocabulary");
      model->unknown = static_cast<std::int32_t>(id);
      impl_->unk = model->unknown;
    }
    model->finish();
    impl_->model = std::move(model);
  }

  // --- added tokens ---
  void added_tokens(const Node& node) {
    if (node.is_null()) return;
    for (const Node& item : node.items()) add_token(item, item["id"].integer());
  }

  std::int32_t find_spelled(const std::string& token) const {
    if (!byte_model_) return impl_->model->tokens.find(token);
    std::string decoded;
    if (decode_byte_level(token, decoded)) return impl_->model->tokens.find(decoded);
    const auto it = hidden_.find(token);
    return it == hidden_.end() ? -1 : it->second;
  }

  void add_token(const Node& item, std::int64_t id) {
    AddedToken token;
    token.content = item["content"].string();
    check_id(id, static_cast<std::int64_t>(file_.vocab.size() + file_.scored_vocab.size()), token.content,
             item.path());
    const std::int32_t known = find_spelled(token.content);
    token.id = known >= 0 ? known : static_cast<std::int32_t>(id);
    token.special = item["special"].boolean_or(false);
    token.normalized = item["normalized"].boolean_or(!token.special);
    token.left_strip = item["lstrip"].boolean_or(false);
    token.right_strip = item["rstrip"].boolean_or(false);
    token.single_word = item["single_word"].boolean_or(false);
    if (token.content == unknown_name_ && !impl_->unk) {
      impl_->unk = token.id;
      impl_->model->unknown = token.id;
    }
    added_ids_.emplace(token.content, token.id);
    impl_->added.add(std::move(token));
  }

  // --- post-processors ---
  std::int32_t id_of(const Node& node, const std::string& token) const {
    if (const auto it = added_ids_.find(token); it != added_ids_.end()) return it->second;
    const std::int32_t id = find_spelled(token);
    if (id < 0) node.fail("token \"" + printable(token) + "\" is not in the vocabulary");
    return id;
  }

  static std::int32_t checked_id(const Node& node) {
    const std::int64_t id = node.integer();
    if (id < 0 || id > largest_id) node.fail("is not an id");
    return static_cast<std::int32_t>(id);
  }

  void post_processor(const Node& node) {
    if (node.is_null()) return;
    const std::string type = node["type"].string();
    std::vector<std::int32_t> before, behind;
    if (type == "Sequence") {
      for (const Node& item : node["processors"].items()) post_processor(item);
    } else if (type == "TemplateProcessing") {
      bool seen = false;
      for (const Node& item : node["single"].items()) {
        if (item.has("Sequence")) {
          if (seen || item["Sequence"]["id"].string() != "A")
            item.fail("a template must hold the sequence A once", "use a tokenizer with such a template");
          seen = true;
          continue;
        }
        const Node special = item["SpecialToken"];
        const std::string name = special["id"].string();
        const Node entry = node["special_tokens"][name];
        if (entry.is_null()) special.fail("special token \"" + printable(name) + "\" is not defined");
        for (const Node& id : entry["ids"].items()) (seen ? behind : before).push_back(checked_id(id));
      }
      if (!seen)
        node["single"].fail("a template must hold the sequence A", "use a tokenizer with such a template");
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      const auto id = [&](const char* key) {
        const std::vector<Node> pair = node[key].items();
        if (pair.size() != 2) node[key].fail("is not a token and its id");
        return checked_id(pair[1]);
      };
      before = {id("cls")};
      behind = {id("sep")};
    } else if (type != "ByteLevel") {
      unknown_type(node["type"], type);
    }
    impl_->prefix.insert(impl_->prefix.begin(), before.begin(), before.end());
    impl_->suffix.insert(impl_->suffix.end(), behind.begin(), behind.end());
  }

  // --- decoders ---
  void decoders(const Node& node) {
    if (node.is_null()) return;
    const std::string type = node["type"].string();
    using Kind = DecoderRule::Kind;
    DecoderRule rule;
    if (type == "Sequence") {
      const std::vector<Node> items = node["decoders"].items();
      for (const Node& item : items) decoders(item);
      if (items.empty() && impl_->decoders.empty()) {
        rule.kind = Kind::fuse;
        impl_->decoders.push_back(std::move(rule));
      }
      return;
    }
    if (type == "ByteLevel") {
      rule.kind = Kind::byte_level;
    } else if (type == "Metaspace") {
      rule.kind = Kind::metaspace;
      rule.text = character(node["replacement"], "\xE2\x96\x81");
      rule.flag = prepend_scheme(node) != PrependScheme::never;
    } else if (type == "Replace") {
      rule.kind = Kind::replace;
      rule.pattern = pattern(node["pattern"]);
      rule.text = node["content"].string();
    } else if (type == "ByteFallback") {
      rule.kind = Kind::byte_fallback;
    } else if (type == "Fuse") {
      rule.kind = Kind::fuse;
    } else if (type == "Strip") {
      rule.kind = Kind::strip;
      rule.text = character(node["content"], " ");
      rule.start = node["start"].size_or(0);
      rule.stop = node["stop"].size_or(0);
    } else if (type == "WordPiece") {
      rule.kind = Kind::word_piece;
      rule.text = node["prefix"].string_or("##");
      rule.flag = node["cleanup"].boolean_or(true);
    } else if (type == "BPEDecoder") {
      rule.kind = Kind::bpe_suffix;
      rule.text = node["suffix"].string_or("</w>");
    } else if (type == "CTC") {
      rule.kind = Kind::ctc;
      rule.text = node["pad_token"].string_or("<pad>");
      rule.text2 = node["word_delimiter_token"].string_or("|");
      rule.flag = node["cleanup"].boolean_or(true);
    } else {
      unknown_type(node["type"], type);
    }
    impl_->decoders.push_back(std::move(rule));
  }

  // --- tokenizer_config.json and its kin ---
  static Json parse(const std::string& text, const char* name, const std::string& source) {
    if (text.empty()) return Json::object();
    return read_tokenizer_document(text, source + " (" + name + ")").rest;
  }

  // The spelling of a named special token: a string, or an object with "content".
  std::optional<std::string> named_token(const char* key) const {
    for (const Json* json : {&config_, &special_map_}) {
      const auto it = json->find(key);
      if (it == json->end()) continue;
      if (it->is_string()) return it->get<std::string>();
      if (it->is_object() && it->contains("content") && (*it)["content"].is_string())
        return (*it)["content"].get<std::string>();
    }
    return std::nullopt;
  }

  void side_files() {
    config_ = parse(side_.tokenizer_config, "tokenizer_config.json", impl_->source);
    special_map_ = parse(side_.special_tokens_map, "special_tokens_map.json", impl_->source);
    generation_ = parse(side_.generation_config, "generation_config.json", impl_->source);

    // Tokens that only the configuration has.
    const Node config(config_, impl_->source + " (tokenizer_config.json): ");
    const Node decoder = config["added_tokens_decoder"];
    if (decoder.json().is_object()) {
      for (const auto& [key, value] : decoder.json().items()) {
        const Node item(value, decoder.path() + "." + printable(key));
        if (key.empty() || key.size() > 9 ||
            !std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; }))
          item.fail("is not an id");
        if (!item["content"].is_null() && !added_ids_.contains(item["content"].string()))
          add_token(item, std::stoll(key));
      }
    }
    const Node add_bos = config["add_bos_token"], add_eos = config["add_eos_token"];
    if ((add_bos.is_null() && add_eos.is_null()) || !rewrites_post_processor()) return;
    // These keys replace the post-processor of the file.
    const auto around = [&](const Node& flag, const char* name, std::vector<std::int32_t>& ids) {
      ids.clear();
      if (!flag.boolean_or(false)) return;
      if (const auto token = named_token(name)) ids = {id_of(flag, *token)};
    };
    around(add_bos, "bos_token", impl_->prefix);
    around(add_eos, "eos_token", impl_->suffix);
  }

  // Only some tokenizer classes of the reference read add_bos_token and add_eos_token; the others keep the
  // file's post-processor.
  bool rewrites_post_processor() const {
    const auto it = config_.find("tokenizer_class");
    if (it == config_.end() || !it->is_string()) return false;
    static constexpr std::string_view classes[] = {
        "LlamaTokenizer",  "LlamaTokenizerFast",  "GemmaTokenizer",     "GemmaTokenizerFast",
        "CohereTokenizer", "CohereTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast"};
    return std::find(std::begin(classes), std::end(classes), it->get<std::string>()) != std::end(classes);
  }

  // BOS, EOS, padding and the ids that end a generation.
  void name_ids() {
    const auto find = [&](const char* key) -> std::optional<std::int32_t> {
      const auto name = named_token(key);
      return name ? impl_->token_to_id(*name) : std::nullopt;
    };
    impl_->bos = find("bos_token");
    impl_->eos = find("eos_token");
    impl_->pad = find("pad_token");
    if (const auto unk = find("unk_token")) impl_->unk = unk;
    // Without a configuration, the template tells: what stands before a sequence begins it.
    if (config_.empty() && special_map_.empty()) {
      if (!impl_->prefix.empty()) impl_->bos = impl_->prefix.front();
      if (!impl_->suffix.empty()) impl_->eos = impl_->suffix.back();
      if (!impl_->bos)
        impl_->bos = first_special({"<|begin_of_text|>", "<s>", "<bos>", "<｜begin▁of▁sentence｜>",
                                    "<|startoftext|>", "<BOS_TOKEN>"});
      if (!impl_->eos)
        impl_->eos = first_special({"<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>",
                                    "<|endoftext|>", "<|END_OF_TURN_TOKEN|>"});
    }
    add_end_id(*impl_, impl_->eos);
    const auto it = generation_.find("eos_token_id");
    if (it != generation_.end()) {
      const Json list = it->is_array() ? *it : Json::array({*it});
      for (const Json& id : list) {
        if (!id.is_number_integer()) continue;
        const auto value = id.get<std::int64_t>();
        if (value >= 0 && value < impl_->vocab_size()) add_end_id(*impl_, static_cast<std::int32_t>(value));
      }
    }
    add_end_ids_by_name(*impl_);
  }

  std::optional<std::int32_t> first_special(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      const AddedToken* token = impl_->added.find(name);
      if (token && token->special) return token->id;
    }
    return std::nullopt;
  }

  static std::string decode_base64(const std::string& text, const std::string& where) {
    std::string out;
    if (!text::decode_base64(text, out)) throw Error("is not base64", where, "download the file again");
    return out;
  }

  const SideFiles& side_;
  TokenizerDocument file_;
  Json config_, special_map_, generation_;
  std::shared_ptr<TokenizerImpl> impl_ = std::make_shared<TokenizerImpl>();
  bool byte_model_ = false;
  std::vector<bool> visible_;  // which tokens of a byte model bytes can spell; empty: all
  std::string unknown_name_;
  std::unordered_map<std::string, std::int32_t> hidden_;  // tokens of a byte model that bytes cannot spell
  std::unordered_map<std::string, std::int32_t> added_ids_;
};

}  // namespace

std::shared_ptr<const TokenizerImpl> read_tokenizer_json(std::string_view json, const std::string& source,
                                                         const SideFiles& side) {
  return Builder(json, source, side).build();
}

}  // namespace ttt::inline v2::text

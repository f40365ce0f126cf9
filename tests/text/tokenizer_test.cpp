#include "ttt/text/tokenizer.h"
#include "paths.h"

#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "text/pattern.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/text/stream_decoder.h"

namespace ttt {
namespace {

using Json = nlohmann::json;

const Json& goldens(const std::string& name) {
  static std::map<std::string, Json> loaded;
  const auto [it, is_new] = loaded.try_emplace(name);
  if (is_new) {
    std::ifstream file(ttt::test::source_dir() + "/tests/text/data/" + name + ".json");
    it->second = Json::parse(file);
  }
  return it->second;
}

std::string base64(const std::string& text) {
  std::string bytes;
  EXPECT_TRUE(text::decode_base64(text, bytes));
  return bytes;
}

std::string stream(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids,
                   const DecodeOptions& options) {
  StreamDecoder decoder(tokenizer, options);
  std::string all;
  const auto add = [&](const std::string& part) {
    EXPECT_EQ(part, utf8::repair(part)) << "broken UTF-8";
    all += part;
  };
  for (const std::int32_t id : ids) add(decoder.push(id));
  add(decoder.finish());
  return all;
}

void expect_decodes(const Tokenizer& tokenizer, const Json& golden) {
  const auto ids = golden.at("ids").get<std::vector<std::int32_t>>();
  const auto decoded = golden.at("decoded").get<std::string>();
  EXPECT_EQ(tokenizer.decode(ids), decoded) << golden.at("ids");
  EXPECT_EQ(stream(tokenizer, ids, {}), decoded);
  if (golden.contains("decoded_all")) {
    const auto all = golden.at("decoded_all").get<std::string>();
    EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = false}), all) << golden.at("ids");
    EXPECT_EQ(stream(tokenizer, ids, {.skip_special_tokens = false}), all);
  }
}

void expect_goldens(const Tokenizer& tokenizer, const Json& golden) {
  for (const Json& row : golden.at("cases")) {
    const std::string text =
        row.contains("text") ? row.at("text").get<std::string>() : base64(row.at("bytes").get<std::string>());
    const auto ids = row.at("ids").get<std::vector<std::int32_t>>();
    const auto plain = row.contains("plain") ? row.at("plain").get<std::vector<std::int32_t>>() : ids;
    const auto raw = row.contains("raw") ? row.at("raw").get<std::vector<std::int32_t>>() : plain;
    EXPECT_EQ(tokenizer.encode(text), ids) << printable(text, 200);
    EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = false}), plain) << printable(text, 200);
    EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}), raw)
        << printable(text, 200);
    expect_decodes(tokenizer, row);
  }
  for (const Json& row : golden.at("random_ids")) expect_decodes(tokenizer, row);
}

TEST(Tokenizer, JsonEqualsTheReference) {
  for (const auto& [name, golden] : goldens("tokenizer_goldens").items()) {
    SCOPED_TRACE(name);
    expect_goldens(Tokenizer::from_json(golden.at("tokenizer").dump(), name), golden);
  }
}

TEST(Tokenizer, SentencePieceEqualsTheReference) {
  for (const auto& [name, golden] : goldens("sentencepiece_goldens").items()) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer =
        Tokenizer::from_sentencepiece(base64(golden.at("model").get<std::string>()), name);
    for (const Json& row : golden.at("cases")) {
      const auto text = row.at("text").get<std::string>();
      const auto ids = row.at("ids").get<std::vector<std::int32_t>>();
      EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}), ids)
          << printable(text, 200);
      expect_decodes(tokenizer, row);
    }
    for (const Json& row : golden.at("random_ids")) expect_decodes(tokenizer, row);
  }
}

TEST(Tokenizer, RankFileEqualsTheReference) {
  const Json& golden = goldens("rank_goldens");
  RankEncoding encoding;
  encoding.pattern = golden.at("pattern").get<std::string>();
  for (const auto& [token, id] : golden.at("special").items())
    encoding.special_tokens.emplace_back(token, id);
  const Tokenizer tokenizer = Tokenizer::from_ranks(golden.at("ranks").get<std::string>(), encoding);
  for (const Json& row : golden.at("cases")) {
    const auto text = row.at("text").get<std::string>();
    EXPECT_EQ(tokenizer.encode(text), row.at("ids").get<std::vector<std::int32_t>>()) << printable(text, 200);
    EXPECT_EQ(tokenizer.encode(text, {.parse_special = false}),
              row.at("raw").get<std::vector<std::int32_t>>())
        << printable(text, 200);
    const auto ids = row.at("ids").get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = false}), row.at("decoded").get<std::string>());
  }
  for (const Json& row : golden.at("random_ids")) expect_decodes(tokenizer, row);
}

// As the packages that publish such files: the whole text is normalized, then special tokens are looked for.
TEST(Tokenizer, RanksOfNormalizedText) {
  const Json& golden = goldens("rank_goldens");
  RankEncoding encoding;
  encoding.pattern = golden.at("pattern").get<std::string>();
  encoding.special_tokens = {{"<s>", 1'000}};
  const std::string ranks = golden.at("ranks").get<std::string>();
  const Tokenizer as_it_is = Tokenizer::from_ranks(ranks, encoding);
  encoding.nfc = true;
  const Tokenizer normalized = Tokenizer::from_ranks(ranks, encoding);
  const std::string text = "<s>cafe\u0301 <s>\u0338 \xFF<s>", nfc = "<s>caf\u00E9 <s\u226F \uFFFD<s>";
  EXPECT_EQ(normalized.encode(text), as_it_is.encode(nfc));
  EXPECT_NE(as_it_is.encode(text), as_it_is.encode(nfc));
  // Ranges of users' text count the bytes given: the first and the last <s> are the template's.
  const std::string mixed = "<s>cafe\u0301 <s>x \xFF<s>";
  EncodeOptions options;
  options.no_special_ranges = {{3, mixed.size() - 3}};
  const auto ids = normalized.encode(mixed, options);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 1'000), 2);
  EXPECT_EQ(ids.front(), 1'000);
  EXPECT_EQ(ids.back(), 1'000);
}

TEST(Tokenizer, TekkenEqualsTheRanks) {
  // The same ranks as a tekken file, shifted behind its special tokens.
  const Json& golden = goldens("rank_goldens");
  Json file{{"config", {{"pattern", golden.at("pattern")}, {"default_num_special_tokens", 20}}},
            {"vocab", Json::array()}};
  std::istringstream lines(golden.at("ranks").get<std::string>());
  std::string bytes;
  for (int rank = 0; lines >> bytes >> rank;)
    file["vocab"].push_back({{"rank", rank}, {"token_bytes", bytes}, {"token_str", nullptr}});
  file["config"]["default_vocab_size"] = file["vocab"].size() + 20;
  const auto path = std::filesystem::temp_directory_path() / "ttt_tokenizer_test_tekken.json";
  std::ofstream(path) << file;
  const Tokenizer tokenizer = Tokenizer::from_file(path);
  std::filesystem::remove(path);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.token_to_id("<SPECIAL_18>"), std::nullopt);
  EXPECT_EQ(tokenizer.token_to_id("[INST]"), 3);
  for (const Json& row : golden.at("cases")) {
    auto ids = row.at("raw").get<std::vector<std::int32_t>>();
    for (std::int32_t& id : ids) id += 20;
    EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>(),
                               {.add_special_tokens = false, .parse_special = false}),
              ids);
  }
}

TEST(Pattern, SplitsAsTheReferenceEngines) {
  const Json& golden = goldens("split_goldens");
  const auto texts = golden.at("texts").get<std::vector<std::string>>();
  const auto pieces_of = [](const text::Pattern& pattern, const std::string& text) {
    std::vector<text::Span> matches, pieces;
    pattern.find_all(text, matches);
    text::split(text.size(), matches, text::SplitBehavior::isolated, false, pieces);
    return pieces;
  };
  int hand_written = 0;
  for (const Json& row : golden.at("oniguruma")) {
    const auto source = row.at("pattern").get<std::string>();
    SCOPED_TRACE(source);
    const auto pattern = text::Pattern::compile(source, text::Pattern::Syntax::oniguruma, "test");
    hand_written += pattern.hand_written();
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::vector<std::size_t> sizes;
      for (const text::Span& piece : pieces_of(pattern, texts[i])) sizes.push_back(piece.end - piece.begin);
      EXPECT_EQ(sizes, row.at("sizes")[i].get<std::vector<std::size_t>>()) << printable(texts[i], 200);
    }
  }
  EXPECT_GE(hand_written, 14);
  for (const Json& row : golden.at("rust")) {
    const auto source = row.at("pattern").get<std::string>();
    SCOPED_TRACE(source);
    const auto pattern = text::Pattern::compile(source, text::Pattern::Syntax::rust, "test");
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::vector<bool> cut(texts[i].size() + 1);
      for (const text::Span& piece : pieces_of(pattern, texts[i])) cut[piece.begin] = true;
      const Json& expected = row.at("cuts")[i];
      std::size_t at = 0;
      for (std::size_t k = 0; k < expected.size(); ++k) {
        text::next_char(texts[i], at);
        if (expected[k] >= 0) {
          EXPECT_EQ(cut[at], expected[k] == 1) << printable(texts[i], 200) << " at " << at;
        }
      }
    }
  }
}

// The hand-written scanners against PCRE2 on the same pattern (a group around it hides its spelling).
TEST(Pattern, HandWrittenScannersEqualTheirExpressions) {
  const Json& golden = goldens("split_goldens");
  const auto texts = golden.at("texts").get<std::vector<std::string>>();
  for (const Json& row : golden.at("oniguruma")) {
    const auto source = row.at("pattern").get<std::string>();
    const auto fast = text::Pattern::compile(source, text::Pattern::Syntax::oniguruma, "test");
    if (!fast.hand_written()) continue;
    SCOPED_TRACE(source);
    const auto slow = text::Pattern::compile("(?:" + source + ")", text::Pattern::Syntax::oniguruma, "test");
    ASSERT_FALSE(slow.hand_written());
    for (const std::string& text : texts) {
      std::vector<text::Span> a, b;
      fast.find_all(text, a);
      slow.find_all(text, b);
      ASSERT_EQ(a.size(), b.size()) << printable(text, 200);
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].begin, b[i].begin) << printable(text, 200);
        EXPECT_EQ(a[i].end, b[i].end) << printable(text, 200);
      }
    }
  }
}

TEST(Pattern, LimitsAreErrors) {
  const auto pattern =
      text::Pattern::compile(R"((?:a+)+b|(?:(a|a)+)+$)", text::Pattern::Syntax::oniguruma, "test");
  std::vector<text::Span> matches;
  EXPECT_THROW(pattern.find_all(std::string(5000, 'a') + "c", matches), Error);
  EXPECT_THROW(text::Pattern::compile("(unclosed", text::Pattern::Syntax::oniguruma, "file: field"), Error);
  EXPECT_THROW(text::Pattern::compile("[unclosed", text::Pattern::Syntax::oniguruma, "file: field"), Error);
  EXPECT_THROW(text::Pattern::compile("end\\", text::Pattern::Syntax::oniguruma, "file: field"), Error);
}

// --- the interface

Tokenizer small(const char* name) {
  return Tokenizer::from_json(goldens("tokenizer_goldens").at(name).at("tokenizer").dump(), name);
}

TEST(Tokenizer, NamesAndIds) {
  const Tokenizer tokenizer = small("byte_level");
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto token = tokenizer.id_to_token(id);
    ASSERT_TRUE(token) << id;
    EXPECT_EQ(tokenizer.token_to_id(*token), id) << *token;
  }
  EXPECT_FALSE(tokenizer.id_to_token(-1));
  EXPECT_FALSE(tokenizer.id_to_token(tokenizer.vocab_size()));
  EXPECT_FALSE(tokenizer.token_to_id("no such token"));
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(100));
  EXPECT_FALSE(tokenizer.is_special(-5));
  EXPECT_EQ(tokenizer.eos_id(), tokenizer.token_to_id("<|endoftext|>"));
  EXPECT_FALSE(tokenizer.bos_id());
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.decode(std::vector<std::int32_t>{-1, 1'000'000}), "");
}

TEST(Tokenizer, BosAndEosOfTemplates) {
  const Tokenizer llama = small("byte_fallback");
  EXPECT_TRUE(llama.adds_bos());
  EXPECT_FALSE(llama.adds_eos());
  EXPECT_EQ(llama.bos_id(), llama.token_to_id("<s>"));
  EXPECT_EQ(llama.eos_id(), llama.token_to_id("</s>"));
  const Tokenizer t5 = small("unigram");
  EXPECT_FALSE(t5.adds_bos());
  EXPECT_TRUE(t5.adds_eos());
  EXPECT_EQ(t5.end_ids(), std::vector<std::int32_t>{*t5.eos_id()});
}

// Joined in order, the bytes of tokens are the text, where the decoder does nothing at the begin.
TEST(Tokenizer, TokenBytesJoinToTheText) {
  for (const char* name : {"byte_level", "byte_fallback", "byte_level_normalizer"}) {
    const Tokenizer tokenizer = small(name);
    for (const std::string text : {"Hello world, naïve 天气 🤖!", "x\n\ny"}) {
      std::string bytes;
      for (const std::int32_t id : tokenizer.encode(text, {.add_special_tokens = false}))
        bytes += tokenizer.token_bytes(id);
      if (bytes.starts_with(' ') && std::string(name) == "byte_fallback") bytes.erase(0, 1);
      EXPECT_EQ(bytes, text) << name;
    }
  }
  EXPECT_EQ(small("byte_fallback").token_bytes(*small("byte_fallback").token_to_id("<0xE2>")), "\xE2");
  const Tokenizer bert = small("word_piece");
  EXPECT_EQ(bert.token_bytes(*bert.token_to_id("the")), " the");
  EXPECT_EQ(bert.token_bytes(1'000'000), "");
  EXPECT_EQ(bert.token_bytes(-1), "");
}

TEST(Tokenizer, SpecialTokensOfUsersStayText) {
  const Tokenizer tokenizer = small("byte_level");
  const std::string text = "<|user|>say <|end|> please<|end|>";
  const std::int32_t end = *tokenizer.token_to_id("<|end|>");
  EncodeOptions options;
  options.no_special_ranges = {{8, text.size() - 7}};
  const auto ids = tokenizer.encode(text, options);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 1);
  EXPECT_EQ(ids.back(), end);
  EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = false}), text);
  // A token that only partly lies in such a range is not read either.
  options.no_special_ranges = {{text.size() - 1, text.size()}};
  const auto cut = tokenizer.encode(text, options);
  EXPECT_NE(cut.back(), end);
  // Ranges count the bytes given, invalid ones too.
  const std::string invalid = "\xFF\xFF<|end|><|end|>";
  options.no_special_ranges = {{2, 9}};
  const auto repaired = tokenizer.encode(invalid, options);
  EXPECT_EQ(std::count(repaired.begin(), repaired.end(), end), 1);
  EXPECT_EQ(repaired.back(), end);
}

TEST(Tokenizer, ManyThreadsShareOne) {
  const Tokenizer tokenizer = small("byte_level");
  std::string text;
  for (int i = 0; i < 200; ++i) text += "Some words " + std::to_string(i * 7919) + " and naïve 天气\n";
  const auto expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i)
        wrong[t] += tokenizer.encode(text) != expected || tokenizer.decode(expected) != text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(Tokenizer, FingerprintsTellTokenizersApart) {
  EXPECT_EQ(small("byte_level").fingerprint(), small("byte_level").fingerprint());
  EXPECT_NE(small("byte_level").fingerprint(), small("byte_fallback").fingerprint());
}

TEST(StreamDecoder, ContinuesAContext) {
  const Tokenizer tokenizer = small("byte_fallback");
  const auto prompt = tokenizer.encode("the quick");
  const auto all = tokenizer.encode("the quick brown fox");
  const std::vector<std::int32_t> rest(all.begin() + static_cast<std::ptrdiff_t>(prompt.size()), all.end());
  StreamDecoder decoder(tokenizer, prompt);
  std::string text = decoder.push(rest);
  text += decoder.finish();
  EXPECT_EQ(text, " brown fox");
  // After finish() a new text begins.
  text = decoder.push(all);
  text += decoder.finish();
  EXPECT_EQ(text, "the quick brown fox");
}

TEST(StreamDecoder, HoldsBackOnlyWhatIsUncertain) {
  const Tokenizer tokenizer = small("byte_level");
  const auto ids = tokenizer.encode("a🤖b");
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> parts;
  for (const std::int32_t id : ids) parts.push_back(decoder.push(id));
  EXPECT_EQ(parts.front(), "a");
  EXPECT_EQ(parts.back(), "b");
  EXPECT_EQ(parts[parts.size() - 2], "🤖");
  for (std::size_t i = 1; i + 2 < parts.size(); ++i) EXPECT_EQ(parts[i], "");
  EXPECT_EQ(decoder.finish(), "");
}

// --- sizes

TEST(Tokenizer, LongWordsTakeLinearithmicTime) {
  for (const char* name : {"byte_level", "byte_fallback", "unigram", "word_piece"}) {
    const Tokenizer tokenizer = small(name);
    for (const std::string& text : {std::string(1 << 20, 'a'), std::string(1 << 20, ' ')}) {
      const std::clock_t start = std::clock();  // of the processor: a busy machine does not count
      tokenizer.encode(text);
      EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 30)
          << name;  // quadratic time would take hours
    }
  }
}

// --- GGUF vocabularies

// The metadata that a converter writes for a byte-level tokenizer.json.
Vocabulary gguf_of(const Json& tokenizer, const std::string& pre) {
  Vocabulary v;
  v.source = "test.gguf";
  v.model = "gpt2";
  v.pre = pre;
  const Json& model = tokenizer.at("model");
  v.tokens.resize(model.at("vocab").size());
  v.token_types.assign(v.tokens.size(), TokenType::normal);
  for (const auto& [token, id] : model.at("vocab").items()) v.tokens.at(id.get<std::size_t>()) = token;
  for (const Json& merge : model.at("merges"))
    v.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  for (const Json& added : tokenizer.at("added_tokens")) {
    const auto id = added.at("id").get<std::size_t>();
    if (id >= v.tokens.size()) {
      v.tokens.resize(id + 1);
      v.token_types.resize(id + 1);
    }
    v.tokens[id] = added.at("content").get<std::string>();
    v.token_types[id] = added.at("special").get<bool>() ? TokenType::control : TokenType::user_defined;
  }
  return v;
}

TEST(Vocabulary, ByteLevelEqualsItsTokenizerJson) {
  const Json& golden = goldens("tokenizer_goldens").at("byte_level");
  Vocabulary v = gguf_of(golden.at("tokenizer"), "gpt-2");
  v.eos_id = 0;
  expect_goldens(Tokenizer::from_vocabulary(v), golden);
  // A kind that adds BOS and takes whole words.
  const Json& l3 = goldens("tokenizer_goldens").at("byte_level_split_ignore_merges");
  Vocabulary w = gguf_of(l3.at("tokenizer"), "llama-bpe");
  w.bos_id = 0;
  const Tokenizer tokenizer = Tokenizer::from_vocabulary(w);
  EXPECT_TRUE(tokenizer.adds_bos());
  for (const Json& row : l3.at("cases")) {
    const std::string text = row.contains("text") ? row.at("text").get<std::string>() : std::string();
    if (text.find_first_of("\xCC\xE1\xEA\xEB") != text.npos)
      continue;  // the file's NFC is not in the metadata
    EXPECT_EQ(tokenizer.encode(text), text.empty() && !row.contains("text")
                                          ? std::vector<std::int32_t>{0}
                                          : row.at("ids").get<std::vector<std::int32_t>>())
        << printable(text, 200);
  }
}

TEST(Vocabulary, DigitsKindEqualsItsTokenizerJson) {
  // "smollm" splits digits one by one, then as GPT-2 does.
  const Json& golden = goldens("tokenizer_goldens").at("byte_level_digits_added");
  Vocabulary v = gguf_of(golden.at("tokenizer"), "smollm");
  const auto id_of = [&](const std::string& token) {
    return static_cast<std::int32_t>(std::find(v.tokens.begin(), v.tokens.end(), token) - v.tokens.begin());
  };
  v.left_strip = v.right_strip = {id_of("<strip>")};
  const Tokenizer tokenizer = Tokenizer::from_vocabulary(v);
  for (const Json& row : golden.at("cases")) {
    if (!row.contains("text")) continue;
    const auto text = row.at("text").get<std::string>();
    if (text.find("special") != text.npos) continue;  // single_word has no metadata
    EXPECT_EQ(tokenizer.encode(text), row.at("ids").get<std::vector<std::int32_t>>()) << printable(text, 200);
    expect_decodes(tokenizer, row);
  }
}

TEST(Vocabulary, EveryKnownPreTokenizerBuilds) {
  const Json& golden = goldens("tokenizer_goldens").at("byte_level");
  for (const char* pre : {"default",      "",
                          "gpt-2",        "mpt",
                          "olmo",         "exaone4",
                          "roberta-bpe",  "llama-bpe",
                          "llama3",       "dbrx",
                          "smaug-bpe",    "chatglm-bpe",
                          "glm4",         "qwen2",
                          "stablelm2",    "qwen35",
                          "ufakzeka",     "seed-coder",
                          "bailingmoe",   "minicpm5",
                          "laguna",       "exaone-moe",
                          "jais-2",       "gpt-4o",
                          "llama4",       "granite-embed-multi-97m",
                          "tiny_aya",     "tekken",
                          "youtu",        "kimi-k2",
                          "deepseek-v3",  "hunyuan-dense",
                          "spark2_5",     "afmoe",
                          "deepseek-llm", "deepseek-coder",
                          "falcon",       "starcoder",
                          "refact",       "command-r",
                          "smollm",       "poro-chat",
                          "bloom",        "viking",
                          "chameleon",    "superbpe"}) {
    const Tokenizer tokenizer = Tokenizer::from_vocabulary(gguf_of(golden.at("tokenizer"), pre));
    const std::string text = "Hello  World's 12345 naïve 天气カナ 한국 x_y\r\n\n done.";
    const auto ids = tokenizer.encode(text, {.add_special_tokens = false});
    EXPECT_EQ(tokenizer.decode(ids), text) << pre;
    EXPECT_GT(ids.size(), 10u) << pre;
  }
}

TEST(Vocabulary, SentencePieceEqualsItsModelFile) {
  const Json& golden = goldens("sentencepiece_goldens").at("bpe_byte_fallback");
  const Tokenizer file = Tokenizer::from_sentencepiece(base64(golden.at("model").get<std::string>()));
  Vocabulary v;
  v.model = "llama";
  for (std::int32_t id = 0; id < file.vocab_size(); ++id) {
    v.tokens.emplace_back(*file.id_to_token(id));
    const bool byte = v.tokens.back().size() == 6 && v.tokens.back().starts_with("<0x");
    v.token_types.push_back(id == 0               ? TokenType::unknown
                            : file.is_special(id) ? TokenType::control
                            : byte                ? TokenType::byte
                                                  : TokenType::normal);
    // SentencePiece gives the pieces of a BPE model scores that fall with their ids.
    v.scores.push_back(v.token_types.back() == TokenType::normal ? -static_cast<float>(id) : 0.0f);
  }
  const Tokenizer tokenizer = Tokenizer::from_vocabulary(v);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.bos_id(), 1);
  for (const Json& row : golden.at("cases")) {
    EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>(),
                               {.add_special_tokens = false, .parse_special = false}),
              row.at("ids").get<std::vector<std::int32_t>>());
  }
}

// "▁[" begins a word, "[" continues one, "[x]" is kept for later use.
TEST(Vocabulary, BertTokensOfBrackets) {
  Vocabulary v;
  v.model = "bert";
  v.tokens = {"[UNK]",
              "[CLS]",
              "[SEP]",
              "[x]",
              "[",
              "]",
              "\xE2\x96\x81[",
              "\xE2\x96\x81]",
              "\xE2\x96\x81"
              "a"};
  v.token_types.assign(v.tokens.size(), TokenType::normal);
  for (int i = 0; i < 3; ++i) v.token_types[static_cast<std::size_t>(i)] = TokenType::control;
  v.unknown_id = 0;
  v.cls_id = 1;
  v.separator_id = 2;
  const std::vector<std::int32_t> expected = {1, 8, 6, 8, 7, 2};
  EXPECT_EQ(Tokenizer::from_vocabulary(v).encode("a [a]"), expected);
  EXPECT_EQ(Tokenizer::from_json(tokenizer_json(v)).encode("a [a]"), expected);
}

// Format characters that are younger than the package's tables stay; ids of the package tokenizers.
TEST(Tokenizer, BertCleansAsThePackageTokenizers) {
  const Tokenizer bert = small("word_piece");
  const auto ids = [&](const std::string& text) { return bert.encode(text, {.add_special_tokens = false}); };
  const std::int32_t unknown = *bert.unk_id();
  EXPECT_EQ(ids("the\u00AD\u200B\u0605\U0001D173"), ids("the"));
  for (const char* kept : {"\u0890", "\u08E2", "\U000110CD", "\U00013430"})
    EXPECT_EQ(ids("the " + std::string(kept)), (std::vector<std::int32_t>{ids("the")[0], unknown}));
}

TEST(Vocabulary, BertWordsBeginWithASpaceMark) {
  const Json& golden = goldens("tokenizer_goldens").at("word_piece");
  const Json& vocab = golden.at("tokenizer").at("model").at("vocab");
  Vocabulary v;
  v.model = "bert";
  v.tokens.resize(vocab.size());
  v.token_types.assign(vocab.size(), TokenType::normal);
  for (const auto& [token, id] : vocab.items()) {
    const bool special = token.size() > 2 && token.starts_with('[');
    v.tokens[id.get<std::size_t>()] = special                   ? token
                                      : token.starts_with("##") ? token.substr(2)
                                                                : "\xE2\x96\x81" + token;
    if (special) v.token_types[id.get<std::size_t>()] = TokenType::control;
  }
  v.unknown_id = 1;
  v.cls_id = 2;
  v.separator_id = 3;
  const Tokenizer tokenizer = Tokenizer::from_vocabulary(v);
  for (const Json& row : golden.at("cases")) {
    if (!row.contains("text")) continue;
    if (row.at("text").get<std::string>().size() >= 70)
      continue;  // the file's limit of 40 characters is not in the metadata
    EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>()),
              row.at("ids").get<std::vector<std::int32_t>>())
        << row.at("text");
  }
}

// --- hostile files

template <class Make>
std::string error_of(const Make& make) {
  try {
    make();
  } catch (const Error& error) { return error.what(); }
  return "no error";
}

Json minimal() {
  return Json::parse(
      R"({"added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,
    "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})");
}

TEST(HostileJson, NamesFileAndField) {
  const auto error = [](const Json& json) {
    return error_of([&] { Tokenizer::from_json(json.dump(), "file.json"); });
  };
  EXPECT_EQ(error(minimal()), "no error");
  const auto with = [](const char* pointer, Json value) {
    Json json = minimal();
    json[Json::json_pointer(pointer)] = std::move(value);
    return json;
  };
  const auto expect = [&](const char* pointer, Json value, const std::string& part) {
    const std::string message = error(with(pointer, std::move(value)));
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_NE(message.find("file.json"), std::string::npos) << message;
  };
  expect("/model/vocab/a", 4'000'000'000, "model.vocab");
  expect("/model/vocab/a", -1, "model.vocab");
  expect("/model/vocab/a", 1.5, "model.vocab");
  expect("/model/vocab/a", "0", "model.vocab");
  expect("/model/vocab/a", Json::array(), "model.vocab");
  expect("/model/vocab", Json::array({Json::array({"a", 0.5})}), "model.vocab");
  expect("/model/vocab", 3, "vocab");
  expect("/model/merges/0", "a c", "model.merges");
  expect("/model/merges/0", "ab", "model.merges");
  expect("/model/merges/0", Json::array({"a"}), "model.merges");
  expect("/model/merges/0", 7, "model.merges");
  expect("/model/type", "Unknown", "model.type");
  expect("/model/type", 3, "model.type");
  expect("/model/dropout", 0.1, "model.dropout");
  expect("/model", nullptr, "model");
  expect("/normalizer", Json{{"type", "Magic"}}, "normalizer.type");
  expect("/normalizer", Json{{"type", "Precompiled"}, {"precompiled_charsmap", "!!!"}},
         "precompiled_charsmap");
  expect("/normalizer", Json{{"type", "Precompiled"}, {"precompiled_charsmap", "AAEAAAAA"}},
         "precompiled_charsmap");
  expect("/normalizer", Json{{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}},
         "pattern.Regex");
  expect("/pre_tokenizer", Json{{"type", "Split"}, {"pattern", 1}, {"behavior", "Isolated"}}, "pattern");
  expect("/pre_tokenizer", Json{{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Odd"}},
         "behavior");
  expect("/pre_tokenizer", Json{{"type", "FixedLength"}, {"length", 0}}, "length");
  expect("/post_processor", Json{{"type", "TemplateProcessing"}, {"single", Json::array()}}, "single");
  expect("/decoder", Json{{"type", "Strip"}, {"content", ""}}, "content");
  expect("/added_tokens/0", Json{{"id", 1 << 30}, {"content", "x"}}, "added_tokens[0]");
  expect("/added_tokens/0", Json{{"id", 5}}, "added_tokens[0].content");
  expect("/added_tokens", 5, "added_tokens");
}

TEST(HostileJson, BrokenTextIsAnError) {
  const std::string good = minimal().dump();
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(error_of([&] { Tokenizer::from_json(good.substr(0, size), "file.json"); }), "no error") << size;
  }
  EXPECT_NE(error_of([&] { Tokenizer::from_json(std::string(1'000'000, '['), "file.json"); }), "no error");
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  EXPECT_NE(error_of([&] { Tokenizer::from_json(deep, "file.json"); }), "no error");
  EXPECT_NE(error_of([&] { Tokenizer::from_json("[]", "file.json"); }), "no error");
  EXPECT_NE(error_of([&] { Tokenizer::from_json("{\"model\":{\"vocab\":{\"\xFF\":1}}}", "file.json"); }),
            "no error");
}

// Merges that make one token from several pairs, or a token from itself, end all the same.
TEST(HostileJson, OddMergesTerminate) {
  Json json = minimal();
  json["model"]["vocab"] = {{"a", 0}, {"aa", 1}, {"aaa", 2}};
  json["model"]["merges"] = {"a a", "aa a", "a aa", "a a"};
  const Tokenizer tokenizer = Tokenizer::from_json(json.dump());
  EXPECT_EQ(tokenizer.encode("aaaa").size(), 2u);
  Json empty = minimal();
  empty["model"]["vocab"] = Json::object();
  empty["model"]["merges"] = Json::array();
  EXPECT_TRUE(Tokenizer::from_json(empty.dump()).encode("text").empty());
}

TEST(HostileSentencePiece, EveryTruncationIsHandled) {
  const std::string model =
      base64(goldens("sentencepiece_goldens").at("unigram").at("model").get<std::string>());
  for (std::size_t size = 0; size < model.size(); size += 1 + size / 50) {
    const std::string message =
        error_of([&] { Tokenizer::from_sentencepiece(model.substr(0, size), "file.model"); });
    // A cut between two fields leaves a smaller model.
    EXPECT_TRUE(message == "no error" || message.find("file.model") != std::string::npos) << message;
  }
  std::string changed = model;
  for (std::size_t i = 0; i < changed.size(); i += 7) {
    const char before = changed[i];
    changed[i] = static_cast<char>(before ^ 0x5B);
    error_of(
        [&] { Tokenizer::from_sentencepiece(changed, "file.model").encode("Ａ text ﬁ \xE2\x91\xA0 12"); });
    changed[i] = before;
  }
}

TEST(HostileRanks, NamesTheLine) {
  RankEncoding encoding;
  encoding.pattern = ".";
  const auto error = [&](const std::string& text) {
    return error_of([&] { Tokenizer::from_ranks(text, encoding, "file.tiktoken"); });
  };
  EXPECT_NE(error("YQ== 0\nYg== x\n").find("line 2"), std::string::npos);
  EXPECT_NE(error("YQ=\n").find("line 1"), std::string::npos);
  EXPECT_NE(error("YQ== 99999999999\n").find("file.tiktoken"), std::string::npos);
  EXPECT_NE(error("YQ== 0\n").find("byte 0"), std::string::npos);
  EXPECT_NE(error("").find("no ranks"), std::string::npos);
}

TEST(HostileTekken, NamesTheField) {
  const auto path = std::filesystem::temp_directory_path() / "ttt_tokenizer_test_hostile_tekken.json";
  const auto error = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    const std::string message = error_of([&] { Tokenizer::from_file(path); });
    std::filesystem::remove(path);
    return message;
  };
  Json good{{"config", {{"pattern", "."}, {"default_num_special_tokens", 3}, {"default_vocab_size", 259}}},
            {"vocab", Json::array()}};
  for (int byte = 0; byte < 256; ++byte) {  // one byte in base64: two digits and padding
    const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::string bytes = {digits[static_cast<std::size_t>(byte >> 2)],
                               digits[static_cast<std::size_t>((byte & 3) << 4)], '=', '='};
    good["vocab"].push_back({{"rank", byte}, {"token_bytes", bytes}});
  }
  EXPECT_EQ(error(good.dump()), "no error");
  const auto expect = [&](const char* pointer, Json value, const char* part) {
    Json json = good;
    json[Json::json_pointer(pointer)] = std::move(value);
    const std::string message = error(json.dump());
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_NE(message.find("hostile_tekken.json"), std::string::npos) << message;
  };
  expect("/config/pattern", "", "config.pattern");
  expect("/config/pattern", "(", "pattern");
  expect("/config/default_num_special_tokens", -1, "default_num_special_tokens");
  expect("/config/default_num_special_tokens", 4'000'000'000, "default_num_special_tokens");
  expect("/config/default_vocab_size", 1, "default_vocab_size");
  expect("/config/default_vocab_size", 9'000'000'000'000'000'000, "default_vocab_size");
  expect("/config/default_vocab_size", 1000, "fewer tokens");
  expect("/vocab/5/rank", 4, "stands twice");
  expect("/vocab/5/rank", -4, "rank -4");
  expect("/vocab/5/rank", 18'000'000'000'000'000'000U, "out of range");
  expect("/vocab/5/token_bytes", "?", "base64");
  expect("/vocab/5/token_bytes", "BA==", "byte 5");
  expect("/special_tokens", Json::array({Json{{"rank", 7}, {"token_str", "<x>"}}}), "special_tokens");
  EXPECT_NE(error(R"({"default_vocab_size": "token_bytes", "a":)" + std::string(100'000, '[')), "no error");
  const std::string text = good.dump();
  for (std::size_t size = 1; size < text.size(); size += 1 + size / 20)
    EXPECT_NE(error(text.substr(0, size)), "no error") << size;
}

// Whatever a vocabulary repeats or breaks, texts keep an encoding that decodes.
TEST(HostileVocabulary, RepeatedAndBrokenTokensAreTaken) {
  Vocabulary v = gguf_of(goldens("tokenizer_goldens").at("byte_level").at("tokenizer"), "gpt-2");
  for (std::size_t i = 0; i < 20; ++i) {
    v.tokens.push_back(v.tokens[70 + i % 2]);
    v.tokens.push_back("\xFF\xC0" + std::string(i, '\x80'));
    v.tokens.emplace_back();
  }
  v.token_types.assign(v.tokens.size(), TokenType::normal);
  v.token_types.back() = static_cast<TokenType>(99);
  const Tokenizer tokenizer = Tokenizer::from_vocabulary(v);
  const std::string text = "the quick brown fox 12 \xF0\x9F\x98\x80";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(utf8::repair(tokenizer.decode(std::vector<std::int32_t>{tokenizer.vocab_size() - 2})),
            tokenizer.decode(std::vector<std::int32_t>{tokenizer.vocab_size() - 2}));
  // A key that stands twice, an id of two tokens.
  const std::string doubled = R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"a":2,"c":1},"merges":[]}})";
  EXPECT_NO_THROW(Tokenizer::from_json(doubled).encode("abc"));
}

TEST(HostileVocabulary, NamesTheKey) {
  Vocabulary good = gguf_of(goldens("tokenizer_goldens").at("byte_level").at("tokenizer"), "gpt-2");
  const auto error = [&](const auto& change) {
    Vocabulary v = good;
    change(v);
    return error_of([&] { Tokenizer::from_vocabulary(std::move(v)); });
  };
  EXPECT_EQ(error([](Vocabulary&) {}), "no error");
  const auto expect = [&](const auto& change, const char* part) {
    const std::string message = error(change);
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_NE(message.find("test.gguf"), std::string::npos) << message;
  };
  expect([](Vocabulary& v) { v.tokens.clear(); }, "tokenizer.ggml.tokens");
  expect([](Vocabulary& v) { v.scores.resize(3); }, "tokenizer.ggml.scores");
  expect([](Vocabulary& v) { v.token_types.resize(3); }, "tokenizer.ggml.token_type");
  expect([](Vocabulary& v) { v.bos_id = 1 << 20; }, "tokenizer.ggml.bos_token_id");
  expect([](Vocabulary& v) { v.eos_id = -2; }, "tokenizer.ggml.eos_token_id");
  expect([](Vocabulary& v) { v.merges[5] = "nospace"; }, "tokenizer.ggml.merges");
  expect([](Vocabulary& v) { v.merges[5] = "not there"; }, "tokenizer.ggml.merges");
  expect([](Vocabulary& v) { v.pre = "qwen3"; }, "did you mean \"qwen");
  expect([](Vocabulary& v) { v.model = "strange"; }, "tokenizer.ggml.model");
  expect(
      [](Vocabulary& v) {
        v.model = "llama";
        v.scores.assign(v.tokens.size(), std::numeric_limits<float>::quiet_NaN());
      },
      "not a number");
}

TEST(Tokenizer, MissingFilesAreNamed) {
  EXPECT_NE(error_of([] { Tokenizer::from_file("/nonexistent/tokenizer.json"); }).find("/nonexistent"),
            std::string::npos);
}

}  // namespace
}  // namespace ttt

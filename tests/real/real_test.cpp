// Real weights, where they have been fetched (tools/fetch_weights); skipped elsewhere. Reference numbers:
// transformers 5.23 in float32 over the dequantised checkpoints and the text of the GPL 3, as Debian ships
// it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "paths.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/convert.h"
#include "ttt/runtime/chat.h"
#include "ttt/testing/bench.h"
#include "ttt/testing/evaluate.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;

fs::path weights(const char* file) {
  const auto variable = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  fs::path cache = variable("TTT_CACHE");
  if (cache.empty())
    cache = !variable("XDG_CACHE_HOME").empty() ? variable("XDG_CACHE_HOME") / "ttt"
                                                : variable("HOME") / ".cache/ttt";
  return cache / "models" / file;
}

std::string gpl3() {
  std::ifstream file("/usr/share/common-licenses/GPL-3");
  return {std::istreambuf_iterator<char>(file), {}};
}

class Real : public testing::Test {
 protected:
  void use(const char* file) {
    path_ = weights(file);
    if (!fs::exists(path_)) GTEST_SKIP() << path_ << " is not there; fetch it with tools/fetch_weights";
  }
  double perplexity(const std::string& precision) const {
    const std::string text = gpl3();
    if (text.empty()) return 0;
    const ttt::LoadedModel loaded = ttt::load(path_, {.precision = precision});
    return evaluate_perplexity(*loaded.model, *loaded.tokenizer, text, {.tokens = 512, .context = 512})
        .perplexity;
  }
  TokenAccuracyResult agreement(const char* reference, const std::string& precision) const {
    const ttt::LoadedModel loaded = ttt::load(path_, {.precision = precision});
    return evaluate_tokens(*loaded.model, Reference::open(fs::path(ttt::test::source_dir()) /
                                                          "tests/golden/reference" / reference));
  }
  fs::path path_;
};

class SmolLM2 : public Real {
 protected:
  void SetUp() override { use("SmolLM2-135M-Instruct.Q4_1.gguf"); }
};
class Gemma3 : public Real {
 protected:
  void SetUp() override { use("gemma-3-270m-q4_k_m.gguf"); }
};

TEST_F(SmolLM2, KnowsTheCapitalOfFrance) {
  const ttt::LoadedModel loaded = ttt::load(path_);
  EXPECT_EQ(loaded.model->target().precision, "bfp8_b");
  ttt::Generator generator(*loaded.model, &*loaded.tokenizer, {.max_batch = 1});
  ttt::ChatSession chat(generator, loaded.chat_template.value(),
                        {.eos_token_ids = loaded.generation.eos_ids, .sampling = {.max_new_tokens = 40}});
  const ttt::GenerationResult answer = chat.send("What is the capital of France?");
  EXPECT_EQ(answer.text, "The capital of France is Paris.");
  EXPECT_EQ(answer.finish_reason, ttt::FinishReason::stop);
}

// Greedy tokens after `prompt` from a path, through a cache of converted weights or without one.
std::vector<std::int32_t> continued(const fs::path& path, const std::string& prompt, const fs::path& cache) {
  const ttt::LoadedModel loaded = ttt::load(path, {.cache = cache});
  ttt::Generator generator(*loaded.model, &*loaded.tokenizer, {.max_batch = 1});
  return generator.generate({.prompt = prompt, .sampling = {.max_new_tokens = 24}}).ids;
}

// The same from the GGUF file, from the folder that it was converted to, and from the cache of either.
void expect_one_answer(const fs::path& gguf, const std::string& prompt) {
  const fs::path folder = fs::path(testing::TempDir()) / ("converted-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const ttt::ConvertResult converted = ttt::convert_checkpoint(gguf, folder / "model");
  const std::vector<std::int32_t> expected = continued(gguf, prompt, {});
  EXPECT_EQ(expected.size(), 24u);
  EXPECT_EQ(converted.precision, "bfp8_b");
  EXPECT_EQ(continued(folder / "model", prompt, {}), expected);
  for (const fs::path& path : {gguf, folder / "model"}) {
    for (const char* state : {"cold", "warm"})
      EXPECT_EQ(continued(path, prompt, folder / "cache"), expected) << path << ", " << state << " cache";
  }
  const ttt::Tokenizer a = ttt::Checkpoint::open(gguf).tokenizer(),
                       b = ttt::Checkpoint::open(folder / "model").tokenizer();
  EXPECT_EQ(a.encode(gpl3() + prompt), b.encode(gpl3() + prompt));
  EXPECT_EQ(a.end_ids(), b.end_ids());
  EXPECT_EQ(a.bos_id(), b.bos_id());
  fs::remove_all(folder);
}

TEST_F(SmolLM2, GgufFolderAndCacheAreOneModel) { expect_one_answer(path_, "The three laws of robotics are"); }

TEST_F(SmolLM2, PerplexityIsTheReferences) {
  if (gpl3().empty()) GTEST_SKIP() << "no text";
  EXPECT_NEAR(perplexity("f32") / 18.833, 1, 0.005);
  EXPECT_NEAR(perplexity("bf16") / 18.833, 1, 0.02);
}

TEST_F(SmolLM2, TokensAgreeWithTheReference) {
  const TokenAccuracyResult exact = agreement("smollm2_gpl3.safetensors", "f32"),
                            accuracy = agreement("smollm2_gpl3.safetensors", "accuracy");
  EXPECT_GE(exact.top1, 0.995);
  EXPECT_EQ(exact.top5, 1);
  EXPECT_EQ(exact.positions, 512u);
  EXPECT_GE(accuracy.top1, 0.93);
  EXPECT_GE(accuracy.top5, 0.99);
}

TEST_F(SmolLM2, PromptLookupChangesNothing) {
  const std::string text = gpl3();
  if (text.empty()) GTEST_SKIP() << "no text";
  const ttt::LoadedModel loaded = ttt::load(path_, {.deterministic = true});
  const ttt::GenerationRequest request{
      .prompt = text.substr(1200, 900) + "\n\nThe same once more:\n\n" + text.substr(1200, 60),
      .sampling = {.max_new_tokens = 80}};
  const auto answer = [&](int lookup) {
    ttt::Generator generator(*loaded.model, &*loaded.tokenizer,
                             {.max_batch = 1, .prompt_lookup_tokens = lookup});
    return generator.generate(request);
  };
  const ttt::GenerationResult plain = answer(0), drafted = answer(8);
  EXPECT_EQ(drafted.ids, plain.ids);
  EXPECT_GT(drafted.accepted_tokens, 20u);
  EXPECT_EQ(plain.drafted_tokens, 0u);
}

// One request alone; then as one of eight of different lengths, in chunks of at most 5; on one thread and on
// two.
TEST_F(SmolLM2, DeterministicModeIsBitwiseEqual) {
  const std::string text = gpl3();
  if (text.empty()) GTEST_SKIP() << "no text";
  const auto request = [&](std::size_t i) {
    return ttt::GenerationRequest{
        .prompt = text.substr(400 * i, 20 + 30 * i),
        .sampling = {.logprobs = 5, .prompt_logprobs = 5, .max_new_tokens = 6, .ignore_eos = true}};
  };
  std::vector<float> want;
  for (const int threads : {1, 2}) {
    const ttt::LoadedModel loaded = ttt::load(path_, {.threads = threads, .deterministic = true});
    for (const std::size_t company : {std::size_t{0}, std::size_t{7}}) {
      std::vector<ttt::GenerationRequest> requests{request(4)};
      for (std::size_t i = 0; i < company; ++i) requests.push_back(request(i < 4 ? i : i + 1));
      ttt::Generator generator(*loaded.model, &*loaded.tokenizer,
                               {.max_batch = 8, .max_step_tokens = company == 0 ? 512 : 5});
      const ttt::GenerationResult result = generator.generate(requests).front();
      std::vector<float> got;
      for (const auto* list : {&result.prompt_logprobs, &result.logprobs}) {
        for (const ttt::PositionLogprobs& position : *list)
          for (const ttt::TokenLogprob& token : position.top) got.push_back(token.logprob);
      }
      ASSERT_EQ(got.size(), 5 * (result.prompt_tokens - 1 + 6));
      if (want.empty()) want = got;
      EXPECT_EQ(got, want) << threads << " threads, " << company << " others";
    }
  }
}

TEST_F(SmolLM2, MemoryIsTheWeightsAndTheCache) {
  const std::size_t before = resident_bytes();
  PeakMemory memory;
  const ttt::LoadedModel loaded = ttt::load(path_);
  ttt::Generator generator(*loaded.model, &*loaded.tokenizer, {.max_batch = 1, .max_context = 2048});
  generator.generate({.prompt = gpl3().substr(0, 2000), .sampling = {.max_new_tokens = 8}});
  const double needed = 1.3 * static_cast<double>(loaded.model->weight_bytes()) +
                        static_cast<double>(generator.stats().kv_bytes);
  EXPECT_LE(static_cast<double>(memory.bytes() - before), needed);
}

TEST_F(Gemma3, GgufFolderAndCacheAreOneModel) { expect_one_answer(path_, "The three laws of robotics are"); }

TEST_F(Gemma3, PerplexityIsTheReferences) {
  if (gpl3().empty()) GTEST_SKIP() << "no text";
  EXPECT_NEAR(perplexity("f32") / 12.937, 1, 0.005);
}

TEST_F(Gemma3, TokensAgreeWithTheReference) {
  const TokenAccuracyResult exact = agreement("gemma3_270m_gpl3.safetensors", "f32");
  EXPECT_GE(exact.top1, 0.995);
  EXPECT_EQ(exact.top5, 1);
}

}  // namespace

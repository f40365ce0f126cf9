// Numbers of perplexity from transformers 5.23 in float32, eager attention, over the same windows.
#include "ttt/testing/evaluate.h"
#include "paths.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "ttt/base/error.h"
#include "ttt/testing/bench.h"
#include "ttt/testing/fixture.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;

const fs::path golden_folder = fs::path(ttt::test::source_dir()) / "tests/golden";

// One tiny model for all tests.
struct Tiny {
  Tiny() : folder(fs::path(testing::TempDir()) / ("evaluate-" + std::to_string(getpid()))) {
    write_fixture(golden_folder / "fixtures/llama.json", folder);
    const ttt::LoadOptions options{.precision = "f32", .threads = 2, .cache = ""};
    loaded = ttt::load(folder, options);
    tokenizer =
        ttt::Tokenizer::from_file(fs::path(ttt::test::source_dir()) / "tests/cli/data/tiny_tokenizer");
  }
  ~Tiny() { fs::remove_all(folder); }
  fs::path folder;
  ttt::LoadedModel loaded;
  std::optional<ttt::Tokenizer> tokenizer;
};
Tiny& tiny() {
  static Tiny model;
  return model;
}

constexpr const char* text =
    "The other thing is that\nnothing here means a lot: it is only text, of 12 words or 20.";

PerplexityResult perplexity(const PerplexityOptions& options) {
  return evaluate_perplexity(*tiny().loaded.model, *tiny().tokenizer, text, options);
}

TEST(Measures, Pcc) {
  const std::vector<float> a{1, 2, 3, 4}, b{3, 5, 7, 9}, down{4, 3, 2, 1}, constant{2, 2, 2, 2};
  EXPECT_DOUBLE_EQ(pcc(a, b), 1);
  EXPECT_DOUBLE_EQ(pcc(a, down), -1);
  EXPECT_EQ(pcc(constant, constant), 1);
  EXPECT_EQ(pcc(a, constant), 0);
}

TEST(Measures, MaxAbsError) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_DOUBLE_EQ(max_abs_error(std::vector<float>{1, -2}, std::vector<float>{1.5, -5}), 3);
  EXPECT_EQ(max_abs_error(std::vector<float>{inf}, std::vector<float>{inf}), 0);
  EXPECT_EQ(max_abs_error(std::vector<float>{nan}, std::vector<float>{1}), inf);
}

TEST(Perplexity, OneWindow) {
  const PerplexityResult result = perplexity({});
  EXPECT_NEAR(result.perplexity, 308.3459092723775, 0.01);
  EXPECT_NEAR(result.word_perplexity / 97976656.23705725, 1, 1e-3);
  EXPECT_NEAR(result.bits_per_byte, 5.933797172738544, 1e-4);
  EXPECT_EQ(result.tokens, 62u);
  EXPECT_EQ(result.scored, 61u);
  EXPECT_EQ(result.words, 19u);
  EXPECT_EQ(result.bytes, 85u);
  EXPECT_EQ(result.windows, 1u);
  EXPECT_TRUE(result.bos);
}

TEST(Perplexity, WithoutBos) {
  const PerplexityResult result = perplexity({.bos = Bos::no});
  EXPECT_NEAR(result.perplexity, 312.94495810670423, 0.01);
  EXPECT_EQ(result.tokens, 61u);
  EXPECT_FALSE(result.bos);
}

TEST(Perplexity, FirstTokensOnly) {
  const PerplexityResult result = perplexity({.tokens = 20});
  EXPECT_NEAR(result.perplexity, 261.9484316987536, 0.01);
  EXPECT_EQ(result.tokens, 20u);
  EXPECT_EQ(result.words, 6u);
}

TEST(Perplexity, WindowsScoreEveryTokenOnce) {
  const PerplexityResult with = perplexity({.context = 16}),
                         without = perplexity({.context = 16, .bos = Bos::no});
  EXPECT_NEAR(with.perplexity, 305.0534579369885, 0.01);
  EXPECT_EQ(with.windows, 5u);
  EXPECT_EQ(with.scored, 61u);
  EXPECT_NEAR(without.perplexity, 382.10020401594915, 0.01);
  EXPECT_EQ(without.windows, 4u);
  const PerplexityResult overlapping = perplexity({.context = 16, .stride = 5});
  EXPECT_NEAR(overlapping.perplexity, 334.80792045972396, 0.01);
  EXPECT_EQ(overlapping.windows, 11u);
  EXPECT_EQ(overlapping.scored, 61u);
}

TEST(Perplexity, TellsItsProgress) {
  std::size_t last = 0, calls = 0;
  perplexity({.context = 16, .progress = [&](std::size_t done, std::size_t total) {
                EXPECT_GT(done, last);
                EXPECT_EQ(total, 62u);
                last = done, ++calls;
              }});
  EXPECT_EQ(last, 62u);
  EXPECT_EQ(calls, 5u);
}

TEST(Perplexity, RefusesWhatMeansNothing) {
  EXPECT_THROW(perplexity({.tokens = 1}), ttt::Error);
  EXPECT_THROW(perplexity({.context = 129}), ttt::Error);  // the model has 128 positions
  EXPECT_THROW(perplexity({.context = 2}), ttt::Error);
  EXPECT_THROW(perplexity({.context = 16, .stride = 17}), ttt::Error);
  EXPECT_THROW(perplexity({.stride = -1}), ttt::Error);
}

TEST(TokenAccuracy, TheReferenceAgreesWithItself) {
  const Reference reference = Reference::open(golden_folder / "reference/llama.safetensors");
  const TokenAccuracyResult result = evaluate_tokens(*tiny().loaded.model, reference, {.prefill = 12});
  EXPECT_EQ(result.top1, 1);
  EXPECT_EQ(result.top5, 1);
  EXPECT_EQ(result.steps, 11u);
  EXPECT_EQ(result.positions, 12u);
}

TEST(TokenAccuracy, AnotherModelsReferenceDoesNot) {
  const Reference reference = Reference::open(golden_folder / "reference/mistral.safetensors");
  const TokenAccuracyResult result = evaluate_tokens(*tiny().loaded.model, reference, {.prefill = 12});
  EXPECT_LT(result.top1, 0.5);
  EXPECT_LE(result.top1, result.top5);
}

TEST(TokenAccuracy, RefusesAShortReference) {
  const Reference reference = Reference::open(golden_folder / "reference/llama.safetensors");
  EXPECT_THROW(evaluate_tokens(*tiny().loaded.model, reference, {.prefill = 24}), ttt::Error);
  EXPECT_THROW(evaluate_tokens(*tiny().loaded.model, reference, {.prefill = 0}), ttt::Error);
}

TEST(Reference, HasWhatTheFileHas) {
  const Reference reference = Reference::open(golden_folder / "reference/llama.safetensors");
  EXPECT_EQ(reference.input_ids().size(), 24u);
  EXPECT_EQ(reference.continuation().size(), 8u);
  EXPECT_EQ(reference.vocab(), 160);
  EXPECT_EQ(reference.logits().size(), 24u * 160);
  EXPECT_EQ(reference.decode_logits().size(), 8u * 160);
  EXPECT_EQ(reference.metadata("architecture"), "LlamaForCausalLM");
  EXPECT_EQ(reference.metadata("nothing"), "");
  EXPECT_NEAR(reference.bf16_pcc().value(), 0.99993, 1e-4);
  const auto embed = reference.intermediate("embed"), last = reference.intermediate("norm");
  ASSERT_TRUE(embed && last);
  EXPECT_EQ(embed->rows, 24);
  EXPECT_EQ(embed->features, 64);
  EXPECT_TRUE(reference.intermediate("layers.1"));
  // With taps of the last two rows; without, the last hidden state is the norm's output and layers.2 is
  // unknown.
  EXPECT_EQ(reference.intermediate("layers.2")->rows, 2);
  EXPECT_FALSE(Reference::open(golden_folder / "reference/mistral.safetensors").intermediate("layers.2"));
  EXPECT_FALSE(reference.intermediate("layers.9.attn"));
}

TEST(Bench, MeasuresTheModelAndTheMachine) {
  const BenchResult result = benchmark(
      *tiny().loaded.model,
      {.prompt_tokens = 9, .new_tokens = 4, .batch = 3, .repeats = 2, .step_tokens = 4, .threads = 1});
  EXPECT_GT(result.time_to_first_token, 0);
  EXPECT_NEAR(result.prefill_tokens_per_second * result.time_to_first_token, 9, 9);
  EXPECT_GT(result.tokens_per_second_per_user, 0);
  EXPECT_NEAR(result.tokens_per_second, 3 * result.tokens_per_second_per_user,
              1e-6 * result.tokens_per_second);
  // A step reads all weights once, the embedding table apart, and the tiny cache and activations.
  const std::size_t table = 160 * 64 * sizeof(float);
  EXPECT_GE(result.bytes_per_step, result.weight_bytes - table);
  EXPECT_LT(result.bytes_per_step, 2 * result.weight_bytes);
  EXPECT_EQ(result.kv_bytes, std::size_t{3} * 32 * 3 * 2 * 2 * 16 * sizeof(float));
  EXPECT_GT(result.read_bandwidth, 1e8);
  EXPECT_THROW(benchmark(*tiny().loaded.model, {.prompt_tokens = 128, .new_tokens = 1}), ttt::Error);
  EXPECT_THROW(benchmark(*tiny().loaded.model, {.batch = 0}), ttt::Error);
}

TEST(Bench, PeakMemorySeesWhatIsGoneAgain) {
  PeakMemory memory;
  const std::size_t before = resident_bytes();
  ASSERT_GT(before, 0u);
  {
    std::vector<char> block(std::size_t{64} << 20, 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(block[12345], 1);
  }
  EXPECT_GE(memory.bytes(), before + (std::size_t{60} << 20));
}

}  // namespace

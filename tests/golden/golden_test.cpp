// Every fixture through the whole stack, against what transformers computed for it (docs/references.md): in
// one piece, in chunks of 5, token by token, and as one of eight sequences of different lengths.
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "paths.h"
#include "ttt/base/error.h"
#include "ttt/convert/load.h"
#include "ttt/convert/safetensors.h"
#include "ttt/ops/backend.h"
#include "ttt/runtime/generator.h"
#include "ttt/testing/debug.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/fixture.h"

namespace {

namespace fs = std::filesystem;
using ttt::testing::GoldenOptions;
using ttt::testing::GoldenResult;
using ttt::testing::GoldenRun;

const fs::path golden_folder = fs::path(ttt::test::source_dir()) / "tests/golden";

std::vector<fs::path> fixtures() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(golden_folder / "fixtures")) paths.push_back(entry.path());
  std::ranges::sort(paths);
  return paths;
}

class Golden : public testing::TestWithParam<fs::path> {};

TEST_P(Golden, AgreesWithTheReference) {
  const GoldenResult result =
      ttt::testing::evaluate_golden(GetParam(), {.load = {.threads = 2}, .chunks = true, .batch = true});
  ASSERT_EQ(result.runs.size(), 2u);
  for (const GoldenRun& run : result.runs) {
    EXPECT_TRUE(run.passed) << run.precision << ": " << run.failure << "; first divergence: " << run.diverges;
    EXPECT_EQ(run.tokens, 8);
    // The references of these rotate by the length so far, which pieces of a prompt do not know.
    const bool by_length =
        result.name == "llama@longrope" || result.name == "phi3" || result.name == "phi3@gguf";
    EXPECT_EQ(run.chunks_error && run.single_error && run.batch_error, !by_length);
  }
  EXPECT_EQ(result.runs[0].required_pcc, 0);
  EXPECT_GT(result.runs[1].required_pcc, 0.9);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Golden, testing::ValuesIn(fixtures()), [](const auto& fixture) {
  std::string name = fixture.param.stem().string();
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

// Speculation by what stood in the sequence before leaves greedy output as it is; a network whose state can
// not be taken back refuses it.
TEST(GoldenPromptLookup, OutputIsThatOfPlainGreedy) {
  const fs::path folder = fs::path(testing::TempDir()) / ("prompt-lookup-" + std::to_string(::getpid()));
  std::size_t accepted = 0, refused = 0, equal = 0;
  for (const fs::path& fixture : fixtures()) {
    SCOPED_TRACE(fixture.stem());
    fs::remove_all(folder);
    ttt::testing::write_fixture(fixture, folder);
    const ttt::LoadedModel loaded =
        ttt::load(folder, {.precision = "f32", .threads = 1, .deterministic = true, .cache = fs::path()});
    const ttt::GeneratorOptions drafting{.max_batch = 1, .max_context = 96, .prompt_lookup_tokens = 5};
    const ttt::Capabilities can = loaded.model->capabilities();
    if (!can.speculation || !can.chunked_prefill || !can.mixed_step) {
      EXPECT_THROW(ttt::Generator(*loaded.model, nullptr, drafting), ttt::Error);
      ++refused;
      continue;
    }
    ttt::GenerationRequest request;
    for (const std::int32_t id : {5, 9, 17, 3, 11, 9, 17, 3, 5, 9, 17}) request.prompt_ids.push_back(id);
    request.sampling.max_new_tokens = 40;
    ttt::Generator plain(*loaded.model, nullptr, {.max_batch = 1, .max_context = 96}),
        with_drafts(*loaded.model, nullptr, drafting);
    const ttt::GenerationResult expected = plain.generate(request), result = with_drafts.generate(request);
    ASSERT_EQ(expected.error, "");
    EXPECT_EQ(result.ids, expected.ids);
    EXPECT_LE(result.accepted_tokens, result.drafted_tokens);
    accepted += result.accepted_tokens;
    ++equal;
  }
  fs::remove_all(folder);
  EXPECT_GT(accepted, 100u);
  EXPECT_GT(refused, 5u);
  EXPECT_GT(equal, 50u);
}

// Whoever wrote a mixer or a feed-forward, what goes in and what comes out shows, once.
TEST(GoldenTaps, ShowEveryMixerAndFeedForward) {
  const fs::path folder = fs::path(testing::TempDir()) / ("taps-" + std::to_string(::getpid()));
  std::size_t custom = 0;
  for (const fs::path& fixture : fixtures()) {
    SCOPED_TRACE(fixture.stem());
    fs::remove_all(folder);
    ttt::testing::write_fixture(fixture, folder);
    const ttt::LoadedModel loaded =
        ttt::load(folder, {.precision = "f32", .threads = 1, .cache = fs::path()});
    const std::int32_t prompt[] = {5, 9, 17, 3, 11, 9};
    const ttt::testing::DebugRun run = ttt::testing::debug_run(*loaded.model, prompt, {.hunt = false});
    const auto at = [&](const std::string& tap) {
      const auto* found = run.find(tap);
      return found == nullptr ? -1 : found - run.taps.data();
    };
    const auto expect_seen = [&](const std::string& module) {
      EXPECT_GE(at(module + ".in"), 0) << module;
      EXPECT_GT(at(module), at(module + ".in")) << module;
      EXPECT_EQ(at(module + "@2"), -1) << module;
      EXPECT_EQ(at(module + ".in@2"), -1) << module;
    };
    const std::vector<ttt::LayerSpec>& layers = loaded.model->spec().layers;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string layer = "layers." + std::to_string(i);
      EXPECT_GE(at(layer), 0) << layer;
      if (layers[i].block) continue;
      if (!std::holds_alternative<ttt::Absent>(layers[i].mixer)) expect_seen(layer + ".attn");
      if (!std::holds_alternative<ttt::Absent>(layers[i].ffn)) expect_seen(layer + ".ffn");
      custom += std::holds_alternative<ttt::CustomSpec>(layers[i].mixer) ||
                std::holds_alternative<ttt::CustomSpec>(layers[i].ffn);
    }
  }
  fs::remove_all(folder);
  EXPECT_GT(custom, 20u);
}

// The same on every instruction set that works here: every kernel has its turn, whatever the machine's best
// is.
class GoldenIsa : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const char* before = std::getenv("TTT_CPU_ISA");
    if (before != nullptr) before_ = before;
    ::setenv("TTT_CPU_ISA", GetParam(), 1);
  }
  void TearDown() override {
    before_ ? ::setenv("TTT_CPU_ISA", before_->c_str(), 1) : ::unsetenv("TTT_CPU_ISA");
  }

 private:
  std::optional<std::string> before_;
};

TEST_P(GoldenIsa, AgreesWithTheReference) {
  try {
    ttt::open_device("cpu", {.threads = 1});
  } catch (const ttt::Error&) { GTEST_SKIP() << GetParam() << " does not work here"; }
  for (const char* name :
       {"llama", "gemma3_text", "gpt2", "qwen3_moe", "deepseek_v3", "mamba2", "qwen3_next"}) {
    const GoldenResult result =
        ttt::testing::evaluate_golden(golden_folder / "fixtures" / (std::string(name) + ".json"),
                                      {.load = {.threads = 2}, .chunks = true, .batch = true});
    ASSERT_EQ(result.runs.size(), 2u);
    for (const GoldenRun& run : result.runs)
      EXPECT_TRUE(run.passed) << name << " in " << run.precision << ": " << run.failure;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, GoldenIsa, testing::Values("portable", "avx2", "avx512", "avx512_bf16", "amx"),
                         [](const auto& isa) { return std::string(isa.param); });

// Tensors of a decode step come out of memory that earlier steps gave back.
TEST(GoldenDecode, SteadyStateAsksTheSystemForNothing) {
  const fs::path folder = fs::path(testing::TempDir()) / ("steady-" + std::to_string(::getpid()));
  ttt::testing::write_fixture(golden_folder / "fixtures/llama.json", folder);
  const ttt::LoadedModel loaded =
      ttt::load(folder, {.precision = "bfp8_b", .threads = 2, .cache = fs::path()});
  fs::remove_all(folder);
  ttt::Generator generator(*loaded.model, nullptr, {.max_batch = 4, .max_context = 128});
  std::vector<std::size_t> from_system;
  ttt::GenerationRequest request;
  request.prompt_ids = {5, 9, 17, 3};
  request.sampling.max_new_tokens = 90;
  request.on_delta = [&](const ttt::GenerationDelta&) {
    const auto info = ::mallinfo2();
    from_system.push_back(info.arena + info.hblkhd);
  };
  ASSERT_EQ(generator.generate(std::move(request)).error, "");
  ASSERT_EQ(from_system.size(), 90u);
  EXPECT_EQ(from_system[80], from_system[20]);
}

// Divided over meshes that the CPU backend simulates: dense, experts, latent attention, hybrids; what a mesh
// does not divide is whole on every device.
class GoldenMesh : public testing::TestWithParam<const char*> {};

TEST_P(GoldenMesh, AgreesWithOneDevice) {
  const fs::path path = golden_folder / "fixtures" / (std::string(GetParam()) + ".json");
  const auto error_on = [&](ttt::Mesh mesh, const char* precision) {
    const GoldenResult result = ttt::testing::evaluate_golden(
        path, {.load = {.mesh = mesh, .threads = 2}, .precisions = {precision}, .tolerance = 2e-4});
    EXPECT_TRUE(result.passed()) << to_string(mesh) << ": " << result.runs[0].failure;
    return result.runs[0].max_error;
  };
  for (const ttt::Mesh mesh : {ttt::Mesh{1, 2}, ttt::Mesh{1, 4}, ttt::Mesh{1, 8}, ttt::Mesh{2, 4}})
    EXPECT_LT(std::abs(error_on(mesh, "f32") - error_on({}, "f32")), 1e-4);
  error_on({2, 4}, "bf16");
}

INSTANTIATE_TEST_SUITE_P(Fixtures, GoldenMesh,
                         testing::Values("llama@8heads", "llama@16heads", "qwen3_moe@16heads", "mixtral",
                                         "deepseek_v3", "qwen3_next", "zamba2", "gpt2", "olmo2"),
                         [](const auto& fixture) {
                           std::string name = fixture.param;
                           std::ranges::replace(name, '@', '_');
                           return name;
                         });

// A checkpoint folder with a golden beside it; the reference's facts (source_sha256 among them) are left out,
// so that the weights may be changed.
class GoldenFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              ("golden-" + std::to_string(testing::UnitTest::GetInstance()->random_seed()) + "-" +
               testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    ttt::testing::write_fixture(golden_folder / "fixtures/llama.json", folder_);
    const auto reference = ttt::SafetensorsFile::open(golden_folder / "reference/llama.safetensors");
    std::vector<ttt::SafetensorsEntry> entries;
    for (const ttt::SafetensorsTensor& tensor : reference.tensors())
      entries.push_back(ttt::make_entry(tensor.name, tensor.shape, tensor.type, reference.bytes(tensor)));
    ttt::write_safetensors(folder_ / "golden.safetensors", entries);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Doubles every value of one weight: adds one to the exponents of its bfloat16s.
  void double_weight(const std::string& name) const {
    const auto file = ttt::SafetensorsFile::open(folder_ / "model.safetensors");
    const ttt::SafetensorsTensor* tensor = file.find(name);
    ASSERT_NE(tensor, nullptr);
    ASSERT_EQ(tensor->type, ttt::StorageType::bf16);
    const std::span<const std::byte> bytes = file.bytes(*tensor);
    std::vector<std::byte> changed(bytes.begin(), bytes.end());
    for (std::size_t i = 0; i < changed.size(); i += 2) {
      const unsigned bits = static_cast<unsigned>(changed[i]) | static_cast<unsigned>(changed[i + 1]) << 8;
      const unsigned doubled = (bits & 0x7F80) == 0 ? bits : bits + 0x80;
      changed[i] = static_cast<std::byte>(doubled & 0xFF),
      changed[i + 1] = static_cast<std::byte>(doubled >> 8);
    }
    std::fstream out(folder_ / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(static_cast<std::streamoff>(tensor->offset));
    out.write(reinterpret_cast<const char*>(changed.data()), static_cast<std::streamsize>(changed.size()));
  }

  fs::path folder_;
};

TEST_F(GoldenFolder, PassesAsAFolder) {
  const GoldenResult result = ttt::testing::evaluate_golden(folder_);
  EXPECT_TRUE(result.passed());
  EXPECT_EQ(result.runs[0].tokens_equal, 8);
  EXPECT_EQ(result.architecture, "LlamaForCausalLM");
}

TEST_F(GoldenFolder, AChangedWeightFailsAndItsLayerIsNamed) {
  double_weight("model.layers.1.mlp.down_proj.weight");
  const GoldenResult result = ttt::testing::evaluate_golden(folder_);
  EXPECT_FALSE(result.passed());
  for (const GoldenRun& run : result.runs) {
    EXPECT_FALSE(run.passed) << run.precision;
    EXPECT_NE(run.failure, "");
    EXPECT_TRUE(run.diverges.starts_with("layers.1")) << run.precision << ": " << run.diverges;
  }
  EXPECT_GT(result.runs[0].max_error, 2e-3);
}

TEST_F(GoldenFolder, AChangedHeadIsFoundBehindAllLayers) {
  double_weight("lm_head.weight");
  const GoldenResult result = ttt::testing::evaluate_golden(folder_, {.precisions = {"f32"}});
  ASSERT_FALSE(result.passed());
  EXPECT_TRUE(result.runs[0].diverges.starts_with("lm_head: ")) << result.runs[0].diverges;
}

TEST_F(GoldenFolder, TheTableOfBf16ReferencesCounts) {
  std::ofstream(folder_.parent_path() / "bf16_reference.csv") << "name,bf16_reference_pcc\n"
                                                              << folder_.filename().string() << ",0.9\n";
  const GoldenResult result = ttt::testing::evaluate_golden(folder_, {.precisions = {"bf16"}});
  fs::remove(folder_.parent_path() / "bf16_reference.csv");
  EXPECT_DOUBLE_EQ(result.runs.at(0).required_pcc, 0.898);
}

TEST_F(GoldenFolder, AReferenceOfAnotherCheckpointIsRefused) {
  fs::copy_file(golden_folder / "reference/llama.safetensors", folder_ / "golden.safetensors",
                fs::copy_options::overwrite_existing);
  EXPECT_TRUE(ttt::testing::evaluate_golden(folder_, {.precisions = {"f32"}}).passed());
  double_weight("lm_head.weight");
  EXPECT_THROW(ttt::testing::evaluate_golden(folder_), ttt::Error);
}

TEST_F(GoldenFolder, WhatIsMissingIsNamed) {
  fs::remove(folder_ / "golden.safetensors");
  try {
    ttt::testing::evaluate_golden(folder_);
    FAIL();
  } catch (const ttt::Error& error) {
    EXPECT_NE(std::string(error.what()).find("golden.safetensors"), std::string::npos) << error.what();
  }
  EXPECT_THROW(ttt::testing::evaluate_golden(folder_ / "nothing"), ttt::Error);
}

TEST_F(GoldenFolder, ADeviceThatDoesNotComputeIsRefused) {
  EXPECT_THROW(ttt::testing::evaluate_golden(folder_, {.load = {.backend = "null"}}), ttt::Error);
}

}  // namespace

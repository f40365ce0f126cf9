// The same weights as a Hugging Face folder and as the GGUF file that a converter makes of it
// (tools/fixtures/gguf_files.py, written by the Python package gguf) are the same network: logits agree, and
// the folder's golden passes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "paths.h"
#include "testing/driver.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/load.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/fixture.h"
#include "ttt/testing/reference.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;

const fs::path golden = fs::path(ttt::test::source_dir()) / "tests/golden";

std::vector<fs::path> files() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(golden / "gguf")) paths.push_back(entry.path());
  std::ranges::sort(paths);
  return paths;
}

class Gguf : public testing::TestWithParam<fs::path> {};

std::vector<float> logits_of(const fs::path& path, const std::vector<std::int32_t>& prompt,
                             std::string& family) {
  const ttt::LoadedModel loaded = ttt::load(path, {.precision = "f32", .threads = 2, .cache = ""});
  family = loaded.family;
  return Driver(*loaded.model, 1, prompt.size()).feed(prompt, Want::all_rows).logits;
}

TEST_P(Gguf, IsTheNetworkOfItsFolder) {
  const std::string name = GetParam().stem().string();
  const fs::path folder = fs::path(testing::TempDir()) / ("gguf-" + name + std::to_string(getpid()));
  write_fixture(golden / "fixtures" / (name + ".json"), folder);
  const Reference reference = Reference::open(golden / "reference" / (name + ".safetensors"));
  std::string folder_family, file_family;
  const std::vector<float> expected = logits_of(folder, reference.input_ids(), folder_family);
  fs::remove_all(folder);
  const std::vector<float> logits = logits_of(GetParam(), reference.input_ids(), file_family);
  EXPECT_EQ(file_family, folder_family);
  ASSERT_EQ(logits.size(), expected.size());
  // Frequencies and decays go through float32 numbers of the file's own.
  EXPECT_LE(max_abs_error(logits, expected), 1e-4);
  EXPECT_LE(max_abs_error(logits, reference.logits()), 2e-3);
}

INSTANTIATE_TEST_SUITE_P(Files, Gguf, testing::ValuesIn(files()), [](const auto& file) {
  std::string name = file.param.stem().string();
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

TEST(GgufFiles, CoverTheFamilies) {
  std::set<std::string> written;
  for (const fs::path& path : files()) written.insert(ttt::Checkpoint::open(path).architecture());
  for (const char* architecture :
       {"llama", "qwen2", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "phi3", "granite", "gpt2",
        "gptneox", "falcon", "olmo2", "glm4", "gpt-oss", "mamba", "lfm2", "qwen2moe", "deepseek2"})
    EXPECT_TRUE(written.contains(architecture)) << architecture;
}

}  // namespace

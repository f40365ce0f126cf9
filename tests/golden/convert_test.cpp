// ttt convert over families of every kind: the folder runs bit for bit as the checkpoint it was made of, and
// a weight map read backwards gives the names that transformers uses.
#include "ttt/convert/convert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "convert/described.h"
#include "convert/files.h"
#include "convert/hf_layout.h"
#include "paths.h"
#include "testing/driver.h"
#include "ttt/base/error.h"
#include "ttt/convert/safetensors.h"
#include "ttt/tensor/block_float.h"
#include "ttt/testing/fixture.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ttt::test::TemporaryFolder;

const fs::path fixture_folder = fs::path(ttt::test::source_dir()) / "tests/golden/fixtures";

// One of each way in which checkpoints differ: names, fusions, transpositions, experts apart and in one
// tensor, latent attention, states, fused outputs that share blocks, modules of the family's own, shared
// weights.
std::vector<fs::path> fixtures() {
  std::vector<fs::path> paths;
  for (const char* name :
       {"bailing_hybrid", "gemma",           "gemma2", "gemma3_text", "gpt2",   "granite", "llama",
        "llama4_text",    "llama@bias_tied", "mamba",  "mixtral",     "olmo2",  "phi3",    "qwen2",
        "qwen3",          "qwen3_moe",       "rwkv",   "starcoder2",  "jetmoe", "zamba2",  "zaya"})
    paths.push_back(fixture_folder / (std::string(name) + ".json"));
  return paths;
}

std::vector<float> logits(const fs::path& path, const std::string& precision) {
  const ttt::LoadedModel loaded =
      ttt::load(path, {.precision = precision, .threads = 1, .cache = fs::path()});
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < 21; ++i) ids.push_back((i * 37 + 5) % loaded.model->spec().vocab);
  ttt::testing::Driver driver(*loaded.model, 1, ids.size());
  return driver.feed(std::span<const std::int32_t>(ids), ttt::testing::Want::all_rows).logits;
}

class Convert : public testing::TestWithParam<fs::path> {
 protected:
  void SetUp() override { ttt::testing::write_fixture(GetParam(), model()); }
  fs::path model() const { return folder_.path() / "model"; }
  fs::path out() const { return folder_.path() / "out"; }
  TemporaryFolder folder_;
};

TEST_P(Convert, RunsBitForBitAsItsSource) {
  for (const std::string precision : {"f32", "bf16", "bfp8_b", "performance"}) {
    const ttt::ConvertResult result = ttt::convert_checkpoint(model(), out(), {.precision = precision});
    EXPECT_EQ(result.precision, precision);
    EXPECT_EQ(ttt::Checkpoint::open(out()).precision(), precision);
    const std::vector<float> from_source = logits(model(), precision), from_folder = logits(out(), "");
    ASSERT_FALSE(from_source.empty());
    EXPECT_EQ(from_source, from_folder) << precision;
    fs::remove_all(out());
  }
}

// What a GGUF file of the family is converted by.
TEST_P(Convert, AWeightMapReadBackwardsGivesTheNamesAndValues) {
  const ttt::Checkpoint checkpoint = ttt::Checkpoint::open(model());
  const ttt::detail::Described d = ttt::detail::describe(checkpoint, {});
  if (d.found.family->gguf.empty()) return;
  const std::vector<ttt::WeightSlot> slots = ttt::weight_slots(d.spec);
  const ttt::Binding binding = ttt::bind_weights(d.weights, checkpoint.shapes(), slots);
  const auto source = [&](const ttt::WeightSlot& slot) { return binding.source(slot.name, checkpoint); };
  const std::vector<ttt::detail::HfTensor> tensors = ttt::detail::hf_tensors(d.weights, slots, source);
  std::vector<ttt::NamedShape> names;
  for (const auto& t : tensors) names.push_back({t.name, t.shape});
  EXPECT_NO_THROW(ttt::bind_weights(d.weights, names, slots));
  for (const auto& t : tensors) {
    const ttt::CheckpointTensor* original = checkpoint.find(t.name);
    ASSERT_NE(original, nullptr) << t.name;
    EXPECT_EQ(t.shape, original->shape) << t.name;
    const ttt::WeightSourcePtr expected = checkpoint.source(t.name);
    ASSERT_EQ(expected->rows() * expected->cols(), t.source->rows() * t.source->cols());
    std::vector<float> a(static_cast<std::size_t>(expected->rows() * expected->cols())), b(a.size());
    expected->read(0, expected->rows(), a.data());
    t.source->read(0, t.source->rows(), b.data());
    // The inverse of an exponential is rounded.
    const bool rounded = t.name.ends_with(".A_log");
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], rounded ? 1e-5 : 0) << t.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Convert, testing::ValuesIn(fixtures()), [](const auto& fixture) {
  std::string name = fixture.param.stem().string();
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

class ConvertLlama : public testing::Test {
 protected:
  void SetUp() override { ttt::testing::write_fixture(fixture_folder / "llama.json", model()); }
  fs::path model() const { return folder_.path() / "model"; }
  fs::path out() const { return folder_.path() / "out"; }
  // What is beside the model: nothing half-written.
  std::vector<std::string> left() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
  }
  TemporaryFolder folder_;
};

TEST_F(ConvertLlama, BlockFormatsAreTilesOfBytes) {
  ttt::convert_checkpoint(model(), out(), {.precision = "bfp8_b"});
  const auto file = ttt::SafetensorsFile::open(out() / "model.safetensors");
  const json header = json::parse(file.metadata().at("ttt"));
  EXPECT_EQ(header.at("precision"), "bfp8_b");
  const json& info = header.at("tensors").at("model.layers.0.mlp.down_proj.weight");
  EXPECT_EQ(info.at("dtype"), "bfp8_b");
  const auto shape = info.at("shape").get<std::vector<std::int64_t>>();
  const ttt::Checkpoint source = ttt::Checkpoint::open(model());
  EXPECT_EQ(shape, source.find("model.layers.0.mlp.down_proj.weight")->shape);
  const ttt::SafetensorsTensor* tensor = file.find("model.layers.0.mlp.down_proj.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->type, ttt::StorageType::u8);
  // TTNN's own order: the tiles of [in, out], which its packer makes of the transposed matrix.
  const ttt::WeightSourcePtr turned = source.transposed_source("model.layers.0.mlp.down_proj.weight");
  std::vector<float> values(static_cast<std::size_t>(shape[0] * shape[1]));
  turned->read(0, turned->rows(), values.data());
  const std::vector<std::uint8_t> tiles = ttt::pack_tiles(values, shape[1], shape[0], ttt::DataType::bfp8_b);
  EXPECT_TRUE(std::ranges::equal(file.bytes(*tensor), std::as_bytes(std::span(tiles))));
  // And the checkpoint reads them by rows and by columns.
  const ttt::Checkpoint written = ttt::Checkpoint::open(out());
  EXPECT_EQ(written.find("model.layers.0.mlp.down_proj.weight")->scheme, "bfp8_b");
  const std::vector<float> expected = ttt::unpack_tiles(tiles, shape[1], shape[0], ttt::DataType::bfp8_b);
  const ttt::WeightSourcePtr inputs = written.transposed_source("model.layers.0.mlp.down_proj.weight");
  std::vector<float> read(values.size());
  inputs->read(0, inputs->rows(), read.data());
  EXPECT_EQ(read, expected);
  const ttt::WeightSourcePtr outputs = written.source("model.layers.0.mlp.down_proj.weight");
  outputs->read(0, 5, read.data());
  outputs->read(5, outputs->rows() - 5, read.data() + 5 * outputs->cols());
  for (std::int64_t o = 0; o < shape[0]; ++o) {
    for (std::int64_t i = 0; i < shape[1]; ++i)
      ASSERT_EQ(read[static_cast<std::size_t>(o * shape[1] + i)],
                expected[static_cast<std::size_t>(i * shape[0] + o)]);
  }
}

TEST_F(ConvertLlama, LargeOutputsAreSharded) {
  const ttt::ConvertResult result =
      ttt::convert_checkpoint(model(), out(), {.precision = "bf16", .shard_bytes = 100'000});
  EXPECT_GT(
      std::ranges::count_if(result.files, [](const std::string& f) { return f.ends_with(".safetensors"); }),
      2);
  EXPECT_TRUE(fs::exists(out() / "model.safetensors.index.json"));
  EXPECT_EQ(logits(out(), "bf16"), logits(model(), "bf16"));
}

TEST_F(ConvertLlama, ProgressCountsAllBytesAndCanStop) {
  std::uint64_t last = 0, all = 0;
  const ttt::ConvertResult result =
      ttt::convert_checkpoint(model(), out(), {.progress = [&](auto done, auto total) {
                                EXPECT_GE(done, last);
                                last = done;
                                all = total;
                                return true;
                              }});
  EXPECT_EQ(last, all);
  EXPECT_EQ(all, result.bytes);
  fs::remove_all(out());
  EXPECT_ERROR(ttt::convert_checkpoint(model(), out(), {.progress = [](auto, auto) { return false; }}),
               "interrupted");
  EXPECT_EQ(left(), (std::vector<std::string>{"model"}));
}

TEST_F(ConvertLlama, WhatIsInTheWayIsNamedAndKept) {
  EXPECT_ERROR(ttt::convert_checkpoint(model(), model()), "is there already");
  folder_.write("file", "x");
  EXPECT_ERROR(ttt::convert_checkpoint(model(), folder_.path() / "file"), "is there already");
  EXPECT_ERROR(ttt::convert_checkpoint(model(), folder_.path() / "no/such/place"), "no such folder");
  EXPECT_ERROR(ttt::convert_checkpoint(model(), out(), {.precision = "bf17"}), "bf17");
  EXPECT_ERROR(ttt::convert_checkpoint(folder_.path() / "nothing", out()), "no such file");
  EXPECT_EQ(left(), (std::vector<std::string>{"file", "model"}));
  fs::create_directory(out());  // empty: taken
  EXPECT_NO_THROW(ttt::convert_checkpoint(model(), out()));
  EXPECT_TRUE(fs::exists(out() / "config.json"));
}

TEST_F(ConvertLlama, AConvertedFolderIsConvertedAgain) {
  ttt::convert_checkpoint(model(), out(), {.precision = "performance"});
  const fs::path again = folder_.path() / "again";
  EXPECT_EQ(ttt::convert_checkpoint(out(), again).precision, "performance");
  EXPECT_EQ(ttt::test::read_file(out() / "model.safetensors"),
            ttt::test::read_file(again / "model.safetensors"));
}

TEST_F(ConvertLlama, DamagedTilesAreRefused) {
  ttt::convert_checkpoint(model(), out(), {.precision = "bfp8_b"});
  const std::string good = ttt::test::read_file(out() / "model.safetensors");
  const auto damage = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    const std::size_t at = bad.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    ASSERT_EQ(from.size(), to.size());
    bad.replace(at, from.size(), to);
    std::ofstream(out() / "model.safetensors", std::ios::binary) << bad;
    EXPECT_THROW(ttt::Checkpoint::open(out()), ttt::Error) << to;
  };
  damage("\\\"dtype\\\":\\\"bfp8_b\\\"", "\\\"dtype\\\":\\\"bfp4_b\\\"");
  damage("\\\"dtype\\\":\\\"bfp8_b\\\"", "\\\"dtype\\\":\\\"f32   \\\"");
  damage("\\\"output_axis\\\":-2", "\\\"output_axis\\\":-3");
  damage("\\\"version\\\":1", "\\\"version\\\":9");
  damage("\\\"tensors\\\":", "\\\"tensorz\\\":");
}

}  // namespace

#include "ttt/testing/fixture.h"
#include "paths.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "ttt/base/error.h"

namespace {

namespace fs = std::filesystem;
using ttt::testing::FixtureKind;

const fs::path golden = fs::path(ttt::test::source_dir()) / "tests/golden";

float value_of(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

// A folder of its own, removed at the end of the test.
class Fixtures : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() /
              (std::string("ttt_fixture_") + test->name() + "_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& json) const {
    std::ofstream(folder_ / "fixture.json") << json;
    return folder_ / "fixture.json";
  }
  // The message of the error that writing the fixture gives, "" when there is none.
  std::string error_of(const std::string& json) const {
    try {
      ttt::testing::write_fixture(write(json), folder_ / "out");
      return "";
    } catch (const ttt::Error& e) { return e.what(); }
  }
  fs::path folder_;
};

nlohmann::json header_of(const fs::path& safetensors) {
  std::ifstream in(safetensors, std::ios::binary);
  std::array<unsigned char, 8> length{};
  in.read(reinterpret_cast<char*>(length.data()), length.size());
  std::uint64_t size = 0;
  for (std::size_t i = 0; i < 8; ++i) size |= std::uint64_t{length[i]} << (8 * i);
  if (!in || size > (1u << 20)) return nullptr;
  std::string text(size, ' ');
  in.read(text.data(), static_cast<std::streamsize>(size));
  return nlohmann::json::parse(text);
}

std::string file_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The hashes were taken by the Python generator, so both generators give the same bytes.
TEST_F(Fixtures, GivesTheBytesThatTheReferencesWereMadeOf) {
  std::size_t seen = 0;
  for (const auto& entry : fs::directory_iterator(golden / "fixtures")) {
    const std::string name = entry.path().stem().string();
    SCOPED_TRACE(name);
    ttt::testing::write_fixture(entry.path(), folder_ / name);
    const nlohmann::json reference = header_of(golden / "reference" / (name + ".safetensors"));
    ASSERT_TRUE(reference.is_object());
    EXPECT_EQ(ttt::testing::source_sha256(folder_ / name),
              reference["__metadata__"]["source_sha256"].get<std::string>());
    const auto fixture = nlohmann::json::parse(file_text(entry.path()));
    EXPECT_EQ(nlohmann::json::parse(file_text(folder_ / name / "config.json")), fixture["config"]);
    ++seen;
  }
  EXPECT_GE(seen, 30u);
}

TEST_F(Fixtures, ReferencesHoldTheSchema) {
  for (const auto& entry : fs::directory_iterator(golden / "fixtures")) {
    const std::string name = entry.path().stem().string();
    SCOPED_TRACE(name);
    const nlohmann::json header = header_of(golden / "reference" / (name + ".safetensors"));
    const auto config = nlohmann::json::parse(file_text(entry.path()))["config"];
    const nlohmann::json vocab = config["vocab_size"];
    EXPECT_EQ(header["input_ids"]["shape"], (nlohmann::json{1, 24}));
    EXPECT_EQ(header["logits"]["shape"], (nlohmann::json{24, vocab}));
    EXPECT_EQ(header["decode_logits"]["shape"], (nlohmann::json{8, vocab}));
    EXPECT_EQ(header["continuation"]["shape"], nlohmann::json::array({8}));
    EXPECT_EQ(header["top5_ids"]["shape"], (nlohmann::json{24, 5}));
    EXPECT_EQ(header["top5_logits"]["shape"], (nlohmann::json{24, 5}));
    EXPECT_TRUE(header.contains("hidden_states.0"));
    const auto& facts = header["__metadata__"];
    EXPECT_GT(std::stod(facts["bf16_pcc"].get<std::string>()), 0.99);
    EXPECT_GT(std::stod(facts["greedy_margin"].get<std::string>()), 0.05);
  }
}

TEST_F(Fixtures, ShardsHoldEveryTensorOnce) {
  const fs::path fixture = golden / "fixtures/llama@sharded.json";
  ttt::testing::write_fixture(fixture, folder_ / "out");
  const auto index = nlohmann::json::parse(file_text(folder_ / "out/model.safetensors.index.json"));
  std::set<std::string> expected, found;
  const auto described = nlohmann::json::parse(file_text(fixture));
  for (const auto& row : described["tensors"]) expected.insert(row["name"]);
  std::uintmax_t bytes = 0;
  for (const auto& file : {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                           "model-00003-of-00003.safetensors"}) {
    const nlohmann::json header = header_of(folder_ / "out" / file);
    for (const auto& [name, tensor] : header.items()) {
      if (name == "__metadata__") continue;
      EXPECT_EQ(index["weight_map"][name].get<std::string>(), file);
      EXPECT_TRUE(found.insert(name).second) << name;
      bytes +=
          tensor["data_offsets"][1].get<std::uintmax_t>() - tensor["data_offsets"][0].get<std::uintmax_t>();
    }
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(index["metadata"]["total_size"], bytes);
}

// Values printed by tools/fixtures/generator.py.
TEST(FixtureValues, AreThoseOfThePythonGenerator) {
  const std::array<std::int64_t, 2> shape = {2, 3};
  const auto values = [&](FixtureKind kind) {
    return ttt::testing::fixture_values("a.weight", 7, kind, shape);
  };
  EXPECT_EQ(values(FixtureKind::matrix),
            (std::vector<std::uint16_t>{0xbfd1, 0xbddc, 0x3c5d, 0xbf58, 0x3f0f, 0x3c99}));
  EXPECT_EQ(values(FixtureKind::matrix_in_out),
            (std::vector<std::uint16_t>{0xc000, 0xbe07, 0x3c87, 0xbf84, 0x3f2f, 0x3cbb}));
  EXPECT_EQ(values(FixtureKind::embedding),
            (std::vector<std::uint16_t>{0xbfc6, 0xbdd0, 0x3c51, 0xbf4c, 0x3f07, 0x3c91}));
  EXPECT_EQ(values(FixtureKind::norm),
            (std::vector<std::uint16_t>{0x3f5a, 0x3f8d, 0x3f9b, 0x3f27, 0x3f74, 0x3f5f}));
  EXPECT_EQ(values(FixtureKind::bias),
            (std::vector<std::uint16_t>{0xbde7, 0x3d9d, 0x3e24, 0xbe86, 0xbd0f, 0xbdc7}));
}

TEST(FixtureValues, HaveTheSpreadOfTheirKind) {
  const std::array<std::int64_t, 2> shape = {256, 64};
  const auto moments = [&](FixtureKind kind, std::optional<std::int64_t> gain = {}) {
    double sum = 0, squares = 0;
    const auto values = ttt::testing::fixture_values("w", 1, kind, shape, gain);
    for (const std::uint16_t bits : values) {
      const double v = value_of(bits);
      sum += v, squares += v * v;
    }
    const double n = static_cast<double>(values.size()), mean = sum / n;
    return std::pair(mean, std::sqrt(squares / n - mean * mean));
  };
  EXPECT_NEAR(moments(FixtureKind::matrix).second, 1.1 / 8, 0.003);
  EXPECT_NEAR(moments(FixtureKind::matrix, 220).second, 2.2 / 8, 0.006);
  EXPECT_NEAR(moments(FixtureKind::matrix_in_out).second, 1.1 / 16, 0.0015);
  EXPECT_NEAR(moments(FixtureKind::embedding).second, 0.6, 0.012);
  EXPECT_NEAR(moments(FixtureKind::norm).first, 1.0, 0.01);
  EXPECT_NEAR(moments(FixtureKind::norm).second, 0.4 / std::sqrt(3.0), 0.005);
  EXPECT_NEAR(moments(FixtureKind::bias).first, 0.0, 0.01);
  EXPECT_NEAR(moments(FixtureKind::bias).second, 0.3 / std::sqrt(3.0), 0.005);
}

TEST(FixtureValues, DependOnNameAndSeed) {
  const std::array<std::int64_t, 1> shape = {16};
  const auto a = ttt::testing::fixture_values("a", 0, FixtureKind::bias, shape);
  EXPECT_EQ(a, ttt::testing::fixture_values("a", 0, FixtureKind::bias, shape));
  EXPECT_NE(a, ttt::testing::fixture_values("b", 0, FixtureKind::bias, shape));
  EXPECT_NE(a, ttt::testing::fixture_values("a", 1, FixtureKind::bias, shape));
}

TEST(FixtureValues, RefuseWhatIsNoShape) {
  const auto make = [](std::vector<std::int64_t> shape, std::optional<std::int64_t> gain = {}) {
    ttt::testing::fixture_values("w", 0, FixtureKind::matrix, shape, gain);
  };
  EXPECT_THROW(make({}), ttt::Error);
  EXPECT_THROW(make({0}), ttt::Error);
  EXPECT_THROW(make({4, -1}), ttt::Error);
  EXPECT_THROW(make({std::int64_t{1} << 40, std::int64_t{1} << 40}), ttt::Error);
  EXPECT_THROW(make({2, 2}, 0), ttt::Error);
  EXPECT_NO_THROW(make({2, 2}, 1));
}

TEST(FixturePrompt, IsThatOfThePythonGenerator) {
  EXPECT_EQ(ttt::testing::fixture_prompt(3, 6, 160, 5), (std::vector<std::int64_t>{6, 126, 23, 13, 38, 122}));
  EXPECT_THROW(ttt::testing::fixture_prompt(3, 6, 5, 5), ttt::Error);
}

TEST_F(Fixtures, ErrorsNameTheFileTheRowAndTheWayOut) {
  const auto with = [](const std::string& tensors, const std::string& rest = "") {
    return R"({"seed": 1, "dtype": "BF16", "config": {}, "tensors": [)" + tensors + "]" + rest + "}";
  };
  EXPECT_EQ(error_of(with(R"({"name": "w", "shape": [2, 2], "kind": "matrix"})")), "");
  EXPECT_NE(error_of("{").find("fixture.json"), std::string::npos);
  EXPECT_NE(error_of("[]").find("no JSON object"), std::string::npos);
  EXPECT_NE(error_of(R"({"seed": 1})").find("dtype"), std::string::npos);
  EXPECT_NE(error_of(with("", R"(, "shard": 2)")).find("did you mean 'shards'?"), std::string::npos);
  EXPECT_NE(error_of(with("", R"(, "shards": 2)")).find("number of tensors"), std::string::npos);
  EXPECT_NE(error_of(R"({"seed": 1, "dtype": "F64", "config": {}, "tensors": []})").find("F64"),
            std::string::npos);

  const std::string misspelt = error_of(with(R"({"name": "w", "shape": [2], "kind": "matrx"})"));
  EXPECT_NE(misspelt.find("did you mean 'matrix'?"), std::string::npos) << misspelt;
  const std::string row =
      error_of(with(R"({"name": "w", "shape": [2], "kind": "bias"}, {"name": "v", "shape": "2"})"));
  EXPECT_NE(row.find("tensors[1]"), std::string::npos) << row;
  EXPECT_NE(
      error_of(with(R"({"name": "w", "shape": [99999999999, 99999999999], "kind": "bias"})")).find("2^28"),
      std::string::npos);
  EXPECT_NE(error_of(with(R"({"name": "w", "shape": [2], "kind": "bias", "gian": 3})"))
                .find("did you mean 'gain'?"),
            std::string::npos);

  EXPECT_THROW(ttt::testing::write_fixture(folder_ / "absent.json", folder_ / "out"), ttt::Error);
  const fs::path fixture = write(with(""));
  EXPECT_THROW(ttt::testing::write_fixture(fixture, fixture / "below_a_file"), ttt::Error);
}

// The examples of FIPS 180-4 and one of a million letters; the third one's padding takes a second block.
TEST(Sha256, GivesTheStandardsExamples) {
  const auto hash = [](const std::string& text) {
    return ttt::testing::sha256(std::as_bytes(std::span(text)));
  };
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace

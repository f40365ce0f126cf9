// `ttt new`: for checkpoints that no family knows by name it writes a model file that compiles, and whose
// network is that of the nearest family where the structure says so.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "paths.h"
#include "ttt/base/error.h"
#include "ttt/testing/check.h"
#include "ttt/testing/fixture.h"
#include "ttt/testing/scaffold.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;
using nlohmann::json;

const fs::path golden = fs::path(ttt::test::source_dir()) / "tests/golden";

struct Case {
  const char *fixture, *nearest;
  std::size_t questions;  // at most
};

class New : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(testing::TempDir()) / ("new-" + std::string(GetParam().fixture) + std::to_string(getpid()));
    write_fixture(golden / "fixtures" / (std::string(GetParam().fixture) + ".json"), folder_ / "checkpoint");
    // An architecture that nobody has heard of.
    json config = json::parse(std::ifstream(folder_ / "checkpoint/config.json"));
    config["architectures"] = {"UnheardOfForCausalLM"};
    config["model_type"] = "unheard_of";
    std::ofstream(folder_ / "checkpoint/config.json") << config;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST_P(New, WritesAFileThatBuildsAndPasses) {
  const Scaffold made = scaffold(folder_ / "checkpoint", "unheard_of");
  EXPECT_EQ(made.nearest, GetParam().nearest);
  EXPECT_EQ(made.problems, 0u) << made.text;
  EXPECT_LE(made.questions.size(), GetParam().questions) << made.text;
  const fs::path source = folder_ / "unheard_of.cpp", library = folder_ / "libunheard_of.so";
  std::ofstream(source) << made.text;
  const std::string command =
      std::string(TTT_CXX) + " -std=c++20 -O0 -Wall -Wextra -Werror -Wno-missing-field-initializers " +
      TTT_CXX_FLAGS + " -fPIC -shared -I" + ttt::test::source_dir() + "/include " + source.string() + " " +
      TTT_MODEL_SDK + " -Wl,-u,ttt_model_library_2 -o " + library.string();
  ASSERT_EQ(std::system(command.c_str()), 0) << made.text;
  const fs::path reference = golden / "reference" / (std::string(GetParam().fixture) + ".safetensors");
  const CheckResult result = check(
      folder_ / "checkpoint",
      {.load = {.threads = 2, .model_libraries = {library}}, .reference = reference, .search_seconds = 0});
  EXPECT_EQ(result.family, "unheard_of");
  for (const CheckStage& stage : result.stages) {
    if (stage.name == "config") continue;  // keys that the family would ignore are questions here
    EXPECT_NE(stage.outcome, Outcome::failed) << stage.name << ": " << stage.detail << "\n" << made.text;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, New,
                         testing::Values(Case{"llama", "llama", 3}, Case{"llama@bias_tied", "llama", 6},
                                         Case{"qwen2", "qwen2", 6}, Case{"qwen3", "qwen3", 6},
                                         Case{"gemma2", "gemma2", 8}, Case{"granite", "granite", 8},
                                         Case{"olmo2", "olmo2", 6}, Case{"gpt_neox", "gpt_neox", 8},
                                         Case{"qwen3_moe", "qwen3_moe", 10}, Case{"mixtral", "mixtral", 10}),
                         [](const auto& test) {
                           std::string name = test.param.fixture;
                           std::ranges::replace(name, '@', '_');
                           return name;
                         });

// A checkpoint that is no family's: names and parts of several.
class Unknown : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("new-unknown" + std::to_string(getpid()));
    json fixture = json::parse(std::ifstream(golden / "fixtures/llama.json"));
    fixture["config"]["architectures"] = {"UnheardOfForCausalLM"};
    json tensors = json::array();
    for (json row : fixture["tensors"]) {
      std::string name = row["name"];
      const auto replace = [&](const std::string& from, const std::string& to) {
        if (const auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
      };
      replace("self_attn.o_proj", "self_attn.out_proj");
      replace("mlp.gate_proj", "mlp.w1");
      replace("mlp.up_proj", "mlp.w3");
      replace("mlp.down_proj", "mlp.w2");
      row["name"] = name;
      tensors.push_back(row);
      // Norms of q and k, which the plain family does not have.
      if (name.find("self_attn.q_proj") != std::string::npos) {
        for (const char* norm : {"q_norm", "k_norm"}) {
          std::string norm_name = name;
          norm_name.replace(norm_name.find("q_proj"), 6, norm);
          tensors.push_back({{"name", norm_name}, {"shape", {16}}, {"kind", "norm"}});
        }
      }
    }
    fixture["tensors"] = tensors;
    fs::create_directories(folder_);
    std::ofstream(folder_ / "fixture.json") << fixture;
    write_fixture(folder_ / "fixture.json", folder_ / "checkpoint");
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(Unknown, IsExplainedByFlagsAndRenames) {
  const Scaffold made = scaffold(folder_ / "checkpoint", "unheard_of");
  EXPECT_EQ(made.problems, 0u) << made.text;
  for (const char* words :
       {R"(.rename("{layer}.self_attn.out_proj", "{layer}.attn.o"))",
        R"(.rename("{layer}.mlp.w1", "{layer}.ffn.gate"))", R"(.rename("{layer}.mlp.w3", "{layer}.ffn.up"))",
        R"(.rename("{layer}.mlp.w2", "{layer}.ffn.down"))", "attn.qk_norm = QkNorm::per_head", "QUESTION"})
    EXPECT_NE(made.text.find(words), std::string::npos) << words << "\n" << made.text;
}

TEST_F(Unknown, BadArgumentsAreErrors) {
  EXPECT_THROW(scaffold(folder_ / "checkpoint", "no name"), ttt::Error);
  EXPECT_THROW(scaffold(folder_ / "checkpoint", ""), ttt::Error);
  EXPECT_THROW(scaffold(folder_ / "nothing", "name"), ttt::Error);
}

TEST_F(Unknown, TheCommandWritesAProject) {
  const std::string program = fs::path(ttt::test::build_dir()).string() + "/bin/ttt new " +
                              (folder_ / "checkpoint").string() + " --name unheard_of --out " +
                              (folder_ / "mine").string() + " > " + (folder_ / "out").string() + " 2> " +
                              (folder_ / "err").string();
  ASSERT_EQ(std::system(program.c_str()), 0);
  EXPECT_TRUE(fs::exists(folder_ / "mine/unheard_of.cpp"));
  EXPECT_TRUE(fs::exists(folder_ / "mine/CMakeLists.txt"));
  EXPECT_NE(std::system(program.c_str()), 0);  // never over a file that is there
}

}  // namespace

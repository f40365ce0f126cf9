// `ttt check` over ports with one typical mistake each: it fails, names the place, and finds the mistake by
// running what could be wrong.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "paths.h"
#include "ttt/base/error.h"
#include "ttt/testing/check.h"
#include "ttt/testing/fixture.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;
using nlohmann::json;

const fs::path golden = fs::path(ttt::test::source_dir()) / "tests/golden";

struct Port {
  const char *architecture, *fixture;
  const char* stage;    // that fails first
  const char* place;    // the first difference
  const char* mistake;  // part of what is said about its cause
};

// A fixture whose config asks for the port.
class Checkpoint {
 public:
  explicit Checkpoint(const Port& port)
      : folder_(fs::path(testing::TempDir()) /
                (std::string("check-") + port.architecture + std::to_string(getpid()))),
        reference_(golden / "reference" / (std::string(port.fixture) + ".safetensors")) {
    write_fixture(golden / "fixtures" / (std::string(port.fixture) + ".json"), folder_);
    json config = json::parse(std::ifstream(folder_ / "config.json"));
    config["architectures"] = {port.architecture};
    std::ofstream(folder_ / "config.json") << config;
  }
  ~Checkpoint() { fs::remove_all(folder_); }
  const fs::path& folder() const { return folder_; }
  const fs::path& reference() const { return reference_; }
  CheckResult check(CheckOptions options = {}) const {
    options.load.threads = 2;
    options.load.model_libraries = {TTT_MISTAKES};
    options.reference = reference_;
    options.search_seconds = 1e6;
    return ttt::testing::check(folder_, options);
  }

 private:
  fs::path folder_, reference_;
};

class Mistakes : public testing::TestWithParam<Port> {};

TEST_P(Mistakes, AreNamed) {
  const Port& port = GetParam();
  const CheckResult result = Checkpoint(port).check();
  EXPECT_FALSE(result.passed());
  const auto failed = std::ranges::find(result.stages, Outcome::failed, &CheckStage::outcome);
  ASSERT_NE(failed, result.stages.end());
  EXPECT_EQ(failed->name, port.stage);
  EXPECT_EQ(result.diverges.substr(0, std::string(port.place).size()), port.place) << result.diverges;
  EXPECT_NE((failed->detail + " " + failed->cause).find(port.mistake), std::string::npos)
      << failed->detail << "\ncause: " << failed->cause;
  if (*port.place != 0) {
    EXPECT_EQ(result.changes.size(), 1u) << failed->cause;
    EXPECT_TRUE(result.changes_suffice) << failed->cause;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ports, Mistakes,
    testing::Values(
        Port{"GateAndUpExchanged", "llama", "first layer", "layers.0.ffn.", "gate and up are exchanged"},
        Port{"KeysAndValuesExchanged", "llama", "first layer", "layers.0.attn.k", "k and v are exchanged"},
        Port{"NormsExchanged", "llama", "first layer", "layers.0.attn_norm",
             "norms before attention and feed-forward"},
        Port{"OneAddedToNorms", "llama", "first layer", "layers.0.attn_norm", "nothing is added to them"},
        Port{"TransposedWeight", "llama", "first layer", "layers.0.attn",
             "transpose of {layer}.self_attn.o_proj is too much"},
        Port{"WrongTheta", "llama", "first layer", "layers.0.attn.q_rope", "RoPE theta"},
        Port{"WrongRopeLayout", "llama", "first layer", "layers.0.attn.q_rope",
             "RoPE layout: halves instead"},
        Port{"NoAttentionScale", "llama", "first layer", "layers.0.attn.context",
             "attention scale: 0.25 instead of 1"},
        Port{"UnreadKey", "llama", "config", "", "rope_parameters"},
        Port{"MissingNorms", "qwen3_moe", "weights", "", "q_norm"},
        Port{"NothingAddedToNorms", "gemma2", "first layer", "layers.0.attn_norm", "1 is added to them"},
        Port{"NoWindow", "gemma2", "first layer", "layers.0.attn.context", "window: 8 instead of none"},
        Port{"WindowOffByOne", "gemma2", "first layer", "layers.0.attn.context", "window: 8 instead of 9"},
        Port{"NoEmbeddingScale", "gemma2", "first layer", "embed", "embedding scale: 8 instead of 1"},
        Port{"NoSoftCap", "gemma2", "first layer", "layers.0.attn.context",
             "soft cap of scores: 3 instead of none"},
        Port{"NoSoftCapOfLogits", "gemma2", "logits", "lm_head", "soft cap of logits: 8"},
        Port{"WrongActivation", "gemma2", "first layer", "layers.0.ffn.hidden",
             "activation: gelu_tanh instead of silu"},
        Port{"ScoresNotDividedByTheirSum", "qwen3_moe", "first layer", "layers.0.ffn",
             "divided by their sum"},
        Port{"SigmoidRouter", "qwen3_moe", "first layer", "layers.0.ffn", "softmax instead of sigmoid"},
        Port{"NormOfQueriesAfterRope", "qwen3_moe", "first layer", "layers.0.attn.q_",
             "before RoPE instead of after"},
        Port{"WrongGroupsOfFusedWeight", "gpt_neox", "first layer", "layers.0.attn.q", "in 4 groups"},
        Port{"SequentialInsteadOfParallel", "gpt_neox", "first layer", "layers.0.ffn_norm", "side by side"},
        Port{"WholeHeadsRotate", "gpt_neox", "first layer", "layers.0.attn.q_rope", "RoPE: turns"}),
    [](const auto& port) { return std::string(port.param.architecture); });

class RightPorts : public testing::TestWithParam<Port> {};

TEST_P(RightPorts, Pass) {
  const CheckResult result = Checkpoint(GetParam()).check();
  for (const CheckStage& stage : result.stages)
    EXPECT_NE(stage.outcome, Outcome::failed) << stage.name << ": " << stage.detail << "; " << stage.cause;
  for (const char* stage : {"config", "weights", "shapes", "forward", "first layer", "all layers", "logits",
                            "greedy tokens", "bf16"}) {
    ASSERT_NE(result.stage(stage), nullptr) << stage;
    EXPECT_EQ(result.stage(stage)->outcome, Outcome::passed) << stage;
  }
  EXPECT_EQ(result.stage("chat")->outcome, Outcome::skipped);
  EXPECT_EQ(result.diverges, "");
  ASSERT_TRUE(result.golden);
  EXPECT_TRUE(result.golden->passed());
}

INSTANTIATE_TEST_SUITE_P(Ports, RightPorts,
                         testing::Values(Port{.architecture = "RightPlain", .fixture = "llama"},
                                         Port{.architecture = "RightWindowed", .fixture = "gemma2"},
                                         Port{.architecture = "RightExperts", .fixture = "qwen3_moe"},
                                         Port{.architecture = "RightParallel", .fixture = "gpt_neox"}),
                         [](const auto& port) { return std::string(port.param.architecture); });

TEST(Check, TwoMistakesAreFoundOneAfterTheOther) {
  const Checkpoint checkpoint({.architecture = "GateAndUpExchanged", .fixture = "llama"});
  ttt::Description d =
      ttt::describe(checkpoint.folder(), {.precision = "f32", .model_libraries = {TTT_MISTAKES}});
  for (ttt::LayerSpec& layer : d.spec.layers)
    std::get<ttt::AttentionSpec>(layer.mixer).rope->interleaved = true;
  const CheckResult result = checkpoint.check({.description = d});
  ASSERT_EQ(result.changes.size(), 2u);
  EXPECT_NE(result.changes[0].find("RoPE layout"), std::string::npos) << result.changes[0];
  EXPECT_NE(result.changes[1].find("gate and up"), std::string::npos) << result.changes[1];
  EXPECT_TRUE(result.changes_suffice);
}

TEST(Check, OneLayerAloneIsFound) {
  const Checkpoint checkpoint({.architecture = "RightPlain", .fixture = "llama"});
  ttt::Description d =
      ttt::describe(checkpoint.folder(), {.precision = "f32", .model_libraries = {TTT_MISTAKES}});
  std::get<ttt::AttentionSpec>(d.spec.layers[1].mixer).window = 4;
  const CheckResult result = checkpoint.check({.description = d});
  EXPECT_EQ(result.diverges.substr(0, 8), "layers.1") << result.diverges;
  ASSERT_FALSE(result.changes.empty());
  EXPECT_NE(result.changes[0].find("window: none instead of 4"), std::string::npos) << result.changes[0];
}

TEST(Check, WithoutAReferenceItEndsWithAForward) {
  const Checkpoint checkpoint({.architecture = "RightPlain", .fixture = "llama"});
  const CheckResult result =
      ttt::testing::check(checkpoint.folder(), {.load = {.threads = 2, .model_libraries = {TTT_MISTAKES}}});
  EXPECT_TRUE(result.passed());
  EXPECT_EQ(result.stage("forward")->outcome, Outcome::passed);
  EXPECT_EQ(result.stage("logits")->outcome, Outcome::skipped);
  EXPECT_GT(result.addition.of, 0u);
}

TEST(Check, AReferenceOfAnotherCheckpointIsRefused) {
  const Checkpoint checkpoint({.architecture = "RightPlain", .fixture = "llama"});
  const CheckResult result =
      ttt::testing::check(checkpoint.folder(), {.load = {.threads = 2, .model_libraries = {TTT_MISTAKES}},
                                                .reference = golden / "reference/gemma2.safetensors"});
  EXPECT_FALSE(result.passed());
  EXPECT_THROW(ttt::testing::check(checkpoint.folder() / "nothing"), ttt::Error);
}

// A fixture as a listing of names and shapes.
json listing(const char* fixture, const char* architecture) {
  const json file = json::parse(std::ifstream(golden / "fixtures" / (std::string(fixture) + ".json")));
  json tensors = json::object();
  for (const json& row : file.at("tensors")) tensors[row.at("name").get<std::string>()] = row.at("shape");
  return {
      {"name", fixture}, {"architecture", architecture}, {"config", file.at("config")}, {"tensors", tensors}};
}

TEST(CheckNames, TakesAListing) {
  const ttt::LoadOptions options{.model_libraries = {TTT_MISTAKES}};
  const auto failed = [&](const json& names) {
    const CheckResult result = check_names(names.dump(), options);
    const auto first = std::ranges::find(result.stages, Outcome::failed, &CheckStage::outcome);
    return first == result.stages.end() ? "" : first->name + ": " + first->detail + "; " + first->cause;
  };
  const json right = listing("llama", "RightPlain");
  EXPECT_EQ(failed(right), "");
  EXPECT_EQ(failed(listing("llama", "Unheard")).substr(0, 7), "config:");
  json renamed = right;
  renamed["tensors"]["model.layers.0.self_attn.query.weight"] =
      renamed["tensors"]["model.layers.0.self_attn.q_proj.weight"];
  renamed["tensors"].erase("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(failed(renamed).substr(0, 8), "weights:");
  EXPECT_NE(failed(renamed).find("model.layers.0.self_attn.query.weight"), std::string::npos);
  json turned = right;
  for (auto& [name, shape] : turned["tensors"].items()) {
    if (name.find("gate_proj") != std::string::npos) std::swap(shape[0], shape[1]);
  }
  EXPECT_EQ(failed(turned).substr(0, 7), "shapes:");
  EXPECT_NE(failed(turned).find(".transpose(\"{layer}.mlp.gate_proj\")"), std::string::npos)
      << failed(turned);
  EXPECT_THROW(check_names("{}", options), ttt::Error);
  EXPECT_THROW(check_names("[", options), ttt::Error);
  EXPECT_THROW(check_names(R"({"config": {}, "tensors": {"a": "b"}})", options), ttt::Error);
}

// ---------------------------------------------------------------- the command

struct Ran {
  int status = -1;
  std::string out, err;
};
Ran ttt(const std::string& arguments) {
  const fs::path out = fs::path(testing::TempDir()) / ("check-out" + std::to_string(getpid()));
  const int status = std::system((fs::path(ttt::test::build_dir()).string() + "/bin/ttt " + arguments +
                                  " > " + out.string() + " 2> " + out.string() + ".err")
                                     .c_str());
  const auto read = [](const fs::path& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  return {WEXITSTATUS(status), read(out), read(out.string() + ".err")};
}

TEST(CheckCommand, SaysWhatIsWrong) {
  const Checkpoint wrong({.architecture = "WrongRopeLayout", .fixture = "llama"});
  const std::string models = std::string(" --models ") + TTT_MISTAKES;
  const std::string reference = " --reference " + wrong.reference().string();
  const Ran failed = ttt("check " + wrong.folder().string() + reference + models);
  EXPECT_EQ(failed.status, 1) << failed.err;
  for (const char* words :
       {"pass  config", "FAIL  first layer", "cause: RoPE layout: halves instead of interleaved pairs",
        "first difference: layers.0.attn.q_rope", "| WrongRopeLayout |"})
    EXPECT_NE(failed.out.find(words), std::string::npos) << words << "\n" << failed.out;
  const Checkpoint right({.architecture = "RightPlain", .fixture = "llama"});
  const Ran passed = ttt("check " + right.folder().string() + reference + models + " --json");
  EXPECT_EQ(passed.status, 0) << passed.err;
  EXPECT_EQ(json::parse(passed.out).at("passed"), true);
  EXPECT_EQ(ttt("check").status, 1);
}

}  // namespace

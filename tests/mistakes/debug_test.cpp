// compare() over numerical mistakes of every kind - in a model file, a weight map, a module, a kernel, one
// layer alone - names the layer and the module where each begins.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "paths.h"
#include "testing/faulty_device.h"
#include "ttt/convert/load.h"
#include "ttt/testing/debug.h"
#include "ttt/testing/fixture.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;
using nlohmann::json;
using ttt::test::Fault;

const fs::path golden = fs::path(ttt::test::source_dir()) / "tests/golden";

struct Mistake {
  const char *name, *fixture;
  const char* architecture;                         // of a library with mistakes, or of the right port
  const char* place;                                // the first divergence
  std::function<void(ttt::Description&)> change{};  // of the description
  Fault fault{};
  std::size_t decode = 0;  // tokens that are fed one by one
};

// Loads the fixture as that architecture.
ttt::LoadedModel load(const Mistake& m, const char* backend = "cpu") {
  const fs::path folder =
      fs::path(testing::TempDir()) / (std::string("debug-") + m.name + std::to_string(getpid()));
  write_fixture(golden / "fixtures" / (std::string(m.fixture) + ".json"), folder);
  json config = json::parse(std::ifstream(folder / "config.json"));
  config["architectures"] = {m.architecture};
  std::ofstream(folder / "config.json") << config;
  const ttt::LoadOptions options{.backend = backend,
                                 .precision = "f32",
                                 .threads = 1,
                                 .cache = "",
                                 .model_libraries = {TTT_MISTAKES, TTT_MISTAKEN_MODULES},
                                 .config = R"({"attn_implementation": "eager"})"};
  ttt::Description d = ttt::describe(folder, options);
  if (m.change) m.change(d);
  ttt::LoadedModel loaded = ttt::load(folder, d, options);
  loaded.model->load_weights();
  fs::remove_all(folder);
  return loaded;
}

Reference reference_of(const Mistake& m) {
  return Reference::open(golden / "reference" / (std::string(m.fixture) + ".safetensors"));
}

void in_layer(ttt::Description& d, std::size_t layer,
              const std::function<void(ttt::AttentionSpec&)>& change) {
  change(std::get<ttt::AttentionSpec>(d.spec.layers[layer].mixer));
}

class DebugCompare : public testing::TestWithParam<Mistake> {};

TEST_P(DebugCompare, NamesTheFirstDivergence) {
  const Mistake& m = GetParam();
  const bool kernel = m.fault.kind != Fault::Kind::none;
  ttt::test::install_faulty_device();
  const ttt::LoadedModel loaded = load(m, kernel ? "faulty" : "cpu");
  ttt::test::fault = m.fault;
  const Comparison c = compare(*loaded.model, reference_of(m), {.debug = {.decode = m.decode}});
  ASSERT_NE(c.first(), nullptr);
  EXPECT_EQ(c.first()->tap, m.place) << to_string(*c.first());
  if (!kernel) return;
  // And against the same model on another backend, without any reference.
  const ttt::LoadedModel right = load(m);
  ttt::test::fault = m.fault;
  const Comparison other =
      compare(*loaded.model, *right.model, c.prompt, {.debug = {.decode = m.decode}, .bound = {1e-4}});
  ASSERT_NE(other.first(), nullptr);
  EXPECT_EQ(other.first()->tap, m.place) << to_string(*other.first());
}

INSTANTIATE_TEST_SUITE_P(
    Mistakes, DebugCompare,
    testing::Values(
        // A model file.
        Mistake{"Theta", "llama", "WrongTheta", "layers.0.attn.q_rope"},
        Mistake{"RopeLayout", "llama", "WrongRopeLayout", "layers.0.attn.q_rope"},
        Mistake{"AttentionScale", "llama", "NoAttentionScale", "layers.0.attn.context"},
        Mistake{"Activation", "gemma2", "WrongActivation", "layers.0.ffn.hidden"},
        Mistake{"EmbeddingScale", "gemma2", "NoEmbeddingScale", "embed"},
        Mistake{"LateNorm", "qwen3_moe", "NormOfQueriesAfterRope", "layers.0.attn.q_rope"},
        Mistake{"Router", "qwen3_moe", "SigmoidRouter", "layers.0.ffn"},
        Mistake{"WindowOfOneLayer", "llama", "RightPlain", "layers.1.attn.context",
                [](ttt::Description& d) { in_layer(d, 1, [](auto& a) { a.window = 4; }); }},
        Mistake{"ThetaOfTheLastLayer", "llama", "RightPlain", "layers.2.attn.q_rope",
                [](ttt::Description& d) { in_layer(d, 2, [](auto& a) { a.rope->theta = 1e5f; }); }},
        Mistake{"NormEpsilon", "llama", "RightPlain", "layers.0.attn_norm",
                [](ttt::Description& d) { d.spec.norm.eps = 1e-1f; }},
        // A weight map.
        Mistake{"GateAndUp", "llama", "GateAndUpExchanged", "layers.0.ffn.up"},
        Mistake{"KeysAndValues", "llama", "KeysAndValuesExchanged", "layers.0.attn.k"},
        Mistake{"Norms", "llama", "NormsExchanged", "layers.0.attn_norm"},
        Mistake{"Transposed", "llama", "TransposedWeight", "layers.0.attn"},
        Mistake{"FusedGroups", "gpt_neox", "WrongGroupsOfFusedWeight", "layers.0.attn.q"},
        // A module, in the middle layer.
        Mistake{"Ungated", "llama", "UngatedMlp", "layers.1.ffn.hidden"},
        Mistake{"NoActivation", "llama", "MlpWithoutActivation", "layers.1.ffn.hidden"},
        Mistake{"NormedTwice", "llama", "AttentionNormedTwice", "layers.1.attn.q"},
        // A kernel, in one call: five linears, two norms, two rotations in each layer.
        Mistake{"LinearOfUp",
                "llama",
                "RightPlain",
                "layers.1.ffn.up",
                {},
                Fault{"linear", 7, Fault::Kind::one_value}},
        Mistake{"LinearOfOutput",
                "llama",
                "RightPlain",
                "layers.2.attn",
                {},
                Fault{"linear", 11, Fault::Kind::last_row_zero}},
        Mistake{"RmsNorm",
                "llama",
                "RightPlain",
                "layers.1.ffn_norm",
                {},
                Fault{"rms_norm", 3, Fault::Kind::scaled}},
        Mistake{"RotaryOfKeys",
                "llama",
                "RightPlain",
                "layers.1.attn.k_rope",
                {},
                Fault{"rotary_embedding", 3, Fault::Kind::last_row_zero}},
        Mistake{"Attention",
                "llama",
                "RightPlain",
                "layers.2.attn.context",
                {},
                Fault{"chunked_scaled_dot_product_attention", 2, Fault::Kind::last_row_zero}},
        Mistake{"DecodeAttention",
                "llama",
                "RightPlain",
                "layers.1.attn.context",
                {},
                Fault{"paged_scaled_dot_product_attention_decode", 4, Fault::Kind::scaled},
                2}),
    [](const auto& mistake) { return std::string(mistake.param.name); });

TEST(DebugCompare, RightPortsAgree) {
  for (const auto& [fixture, architecture] : {std::pair{"llama", "RightPlain"},
                                              {"gemma2", "RightWindowed"},
                                              {"qwen3_moe", "RightExperts"},
                                              {"gpt_neox", "RightParallel"}}) {
    const Mistake m{"Right", fixture, architecture, ""};
    const ttt::LoadedModel loaded = load(m);
    for (const std::size_t decode : {0, 2}) {
      const Comparison c =
          compare(*loaded.model, reference_of(m), {.debug = {.decode = decode, .hunt = true}});
      EXPECT_GT(c.taps.size(), 30u) << fixture;
      EXPECT_EQ(c.taps.back().tap, "logits");
      EXPECT_EQ(c.first(), nullptr) << fixture << ": " << to_string(*c.first());
      EXPECT_TRUE(c.non_finite.empty()) << fixture << ": " << to_string(c.non_finite.front());
    }
  }
}

// What makes a NaN is named at once: the operation, the module, and that its operands were in order.
TEST(DebugHunt, NamesTheOperationAndTheModule) {
  ttt::test::install_faulty_device();
  for (const auto kind : {Fault::Kind::nan, Fault::Kind::infinite}) {
    const Mistake m{"Nan", "llama", "RightPlain", "layers.1.ffn.gate", {}, Fault{"linear", 8, kind}};
    const ttt::LoadedModel loaded = load(m, "faulty");
    ttt::test::fault = m.fault;
    const Comparison c = compare(*loaded.model, reference_of(m), {.debug = {.hunt = true}});
    ASSERT_FALSE(c.non_finite.empty());
    EXPECT_EQ(c.non_finite.front().op, "linear");
    EXPECT_EQ(c.non_finite.front().module, m.place);
    EXPECT_EQ(c.non_finite.front().nan + c.non_finite.front().infinite, 1);
    ASSERT_NE(c.first(), nullptr);
    EXPECT_EQ(c.first()->tap, m.place);
  }
}

}  // namespace

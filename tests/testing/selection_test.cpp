// Which tests a model, a module or a change is about.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "paths.h"
#include "ttt/base/error.h"
#include "ttt/testing/build_graph.h"
#include "ttt/testing/fixture.h"
#include "ttt/testing/registry.h"
#include "ttt/testing/selection.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;

const fs::path source = ttt::test::source_dir();

std::set<std::string> modules(const Selection& selection) {
  std::set<std::string> all;
  for (const SelectedInstance& s : selection.instances) all.insert(s.instance.kind.module);
  return all;
}
bool runs(const Selection& selection, const std::string& name) {
  return std::ranges::find(selection.cases, name, &SelectedCase::name) != selection.cases.end();
}
double share(const Selection& selection) {
  return static_cast<double>(selection.instances.size()) / static_cast<double>(selection.of_instances);
}

TEST(Selection, IsTheUnionOverTheRegistry) {
  const Selection all = select_tests({});
  std::set<std::string> keys, kinds, networks;
  for (const SelectedInstance& s : all.instances) {
    EXPECT_TRUE(keys.insert(s.instance.key()).second) << "twice: " << s.instance.key();
    kinds.insert(s.instance.kind.key());
    networks.insert(s.network->name);
    EXPECT_NE(s.reason, "");
  }
  EXPECT_EQ(all.of_instances, all.instances.size());
  // Every kind of every network, full size or golden, is there.
  for (const auto* list : {&full_size_networks(), &golden_networks()}) {
    for (const Network& network : *list) {
      for (const ModuleInstance& i :
           module_instances(network, ttt::make_target(ttt::hw::cpu(), "performance")))
        EXPECT_TRUE(kinds.contains(i.kind.key())) << i.kind.key();
    }
  }
  EXPECT_GT(kinds.size(), 150u);
}

TEST(Selection, ByModelFamilyModuleAndPlatform) {
  const Selection llama = select_tests({.family = "llama", .skus = {"n150"}});
  EXPECT_EQ(modules(llama),
            (std::set<std::string>{"attention", "block", "embedding", "lm_head", "mlp", "norm", "rope"}));
  EXPECT_LT(llama.instances.size(), llama.of_instances);
  const Selection attention =
      select_tests({.family = "llama", .skus = {"n150", "t3k"}, .module = "attention"});
  EXPECT_EQ(modules(attention), (std::set<std::string>{"attention"}));
  for (const SelectedInstance& s : attention.instances)
    EXPECT_NE(s.reason.find("layers."), std::string::npos) << s.reason;
  EXPECT_TRUE(
      std::ranges::any_of(attention.instances, [](const auto& s) { return s.instance.sku == "t3k"; }));
  for (const SelectedInstance& s : select_tests({.module = "custom"}).instances)
    EXPECT_TRUE(s.instance.kind.module.starts_with("custom."));

  const fs::path folder = fs::path(testing::TempDir()) / "selection-model";
  write_fixture(source / "tests/golden/fixtures/llama.json", folder);
  const Selection model = select_tests({.model = folder});
  EXPECT_EQ(model.instances.size(), 14u);  // as inspect instances has them
  // All its kinds are known, its sizes are not.
  const Selection added = select_tests({.added = folder});
  EXPECT_EQ(added.of_instances, 14u);
  for (const SelectedInstance& s : added.instances)
    EXPECT_TRUE(s.reason.starts_with("a new shape: ")) << s.reason;
  fs::remove_all(folder);
}

TEST(Selection, WhatIsUnknownIsNamed) {
  const auto message = [](const SelectionOptions& options) -> std::string {
    try {
      (void)select_tests(options);
    } catch (const ttt::Error& error) { return error.what(); }
    return "";
  };
  EXPECT_NE(message({.family = "lama"}).find("the nearest is llama"), std::string::npos);
  EXPECT_NE(message({.module = "atention"}).find("the nearest is attention"), std::string::npos);
  EXPECT_NE(message({.skus = {"n1500"}}).find("n1500"), std::string::npos);
  EXPECT_NE(message({.files = {"a.cpp"}, .build = testing::TempDir()}).find("no build tree"),
            std::string::npos);
  EXPECT_NE(message({.changed = "-x", .build = ttt::test::build_dir()}).find("range"), std::string::npos);
}

// The thirty-first family and every later one: what stands on the modules that are there adds next to
// nothing.
TEST(Scaling, AFamilyOfKnownPartsAddsAtMostThreeKinds) {
  const auto plain = [](const ttt::ModelSpec& spec) {
    return std::ranges::all_of(spec.layers, [](const ttt::LayerSpec& layer) {
      return !layer.block && std::holds_alternative<ttt::AttentionSpec>(layer.mixer) &&
             std::holds_alternative<ttt::MlpSpec>(layer.ffn);
    });
  };
  const std::vector<ttt::Target> targets{ttt::make_target(ttt::hw::n150(), "performance")};
  std::map<std::string, const Network*> by_architecture;
  for (const Network& network : full_size_networks())
    by_architecture.emplace(network.description.architecture, &network);
  std::size_t checked = 0;
  const std::vector<ScalingRow> rows = scaling(targets);
  for (std::size_t i = 30; i < rows.size(); ++i) {
    const Network& network = *by_architecture.at(rows[i].architecture);
    if (!plain(network.description.spec)) continue;
    EXPECT_LE(rows[i].new_kinds, 3u) << rows[i].architecture << " as number " << i + 1;
    // In whatever order the others came.
    EXPECT_LE(addition(network.description.spec, targets[0], {}, rows[i].architecture).kinds.size(), 3u)
        << rows[i].architecture;
    ++checked;
  }
  EXPECT_GE(checked, 30u);
}

// ---------------------------------------------------------------- changes

class Changed : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(fs::path(ttt::test::build_dir()) / "build.ninja"))
      GTEST_SKIP() << "needs a build by Ninja";
  }
  static Selection by(const std::vector<std::string>& files) {
    return select_tests({.files = files, .build = ttt::test::build_dir()});
  }
};

TEST_F(Changed, TheBuildKnowsItsSources) {
  const BuildGraph graph = BuildGraph::read(ttt::test::build_dir());
  EXPECT_EQ(graph.source_folder(), source);
  const std::set<int>& moe = graph.compiled_from("src/modules/moe.cpp");
  ASSERT_EQ(moe.size(), 1u);
  EXPECT_EQ(graph.objects()[static_cast<std::size_t>(*moe.begin())].target, "ttt_modules");
  EXPECT_GT(graph.compiled_from("include/ttt/modules/moe.h").size(), 1u);
  EXPECT_TRUE(graph.compiled_from("no/such/file.cpp").empty());
  EXPECT_TRUE(graph.configures("CMakeLists.txt"));
  EXPECT_TRUE(graph.runs("cli_tests").contains("ttt"));
  EXPECT_TRUE(graph.runs("golden_tests").contains("ttt_backend_cpu"));
  // A module uses the operations, which use no module.
  const std::set<int> reached = graph.reach(moe);
  EXPECT_TRUE(std::ranges::includes(reached, graph.compiled_from("src/ops/ops.cpp")));
  EXPECT_FALSE(graph.reach(graph.compiled_from("src/ops/ops.cpp")).contains(*moe.begin()));
  const std::set<int>& here = graph.compiled_from("tests/testing/selection_test.cpp");
  ASSERT_EQ(here.size(), 1u);
  const auto& cases = graph.objects()[static_cast<std::size_t>(*here.begin())].cases;
  EXPECT_NE(std::ranges::find(cases, "Changed.TheBuildKnowsItsSources"), cases.end());
}

// The fraction of the set for every file of the modules. Exceptions serve most modules, which shows in what
// they hold.
TEST_F(Changed, AFileOfAModuleSelectsAFifthAtMost) {
  const std::map<std::string, std::string> exceptions{
      {"linear.cpp", "every matrix of every module"},
      {"mlp.cpp", "its gated product is that of experts too"},
      {"module.cpp", "what all modules share"},
      {"paged_attention.cpp", "the cache of every attention"},
  };
  for (const auto& entry : fs::directory_iterator(source / "src/modules")) {
    if (entry.path().extension() != ".cpp") continue;
    const std::string name = entry.path().filename().string();
    const Selection selection = by({"src/modules/" + name});
    std::printf("%5.1f %%  %4zu tests  %s\n", 100 * share(selection), selection.cases.size(), name.c_str());
    EXPECT_FALSE(selection.instances.empty()) << name;
    if (const auto exception = exceptions.find(name); exception != exceptions.end()) {
      EXPECT_GE(share(selection), 0.2) << name << " is no exception any more: " << exception->second;
    } else {
      EXPECT_LT(share(selection), 0.2) << name;
    }
  }
}

TEST_F(Changed, SelectsWhatUsesTheFile) {
  const Selection moe = by({"src/modules/moe.cpp"});
  EXPECT_TRUE(modules(moe).contains("moe"));
  EXPECT_TRUE(modules(moe).contains("router"));
  EXPECT_FALSE(modules(moe).contains("mlp"));
  EXPECT_FALSE(modules(moe).contains("attention"));
  EXPECT_TRUE(runs(moe, "golden.Fixtures/Golden.AgreesWithTheReference/mixtral"));
  EXPECT_FALSE(runs(moe, "golden.Fixtures/Golden.AgreesWithTheReference/llama"));
  EXPECT_TRUE(
      std::ranges::none_of(moe.cases, [](const SelectedCase& c) { return c.name.starts_with("text."); }));
  EXPECT_TRUE(
      std::ranges::any_of(moe.cases, [](const SelectedCase& c) { return c.name.starts_with("modules."); }));

  const Selection rope = by({"src/modules/rope.cpp"});
  EXPECT_TRUE(modules(rope).contains("rope"));
  EXPECT_FALSE(modules(rope).contains("mlp"));
  // Its header is compiled into its owners.
  EXPECT_TRUE(modules(by({"include/ttt/modules/rope.h"})).contains("attention"));

  const Selection family = by({"models/mixtral.cpp"});
  for (const SelectedInstance& s : family.instances) EXPECT_EQ(s.network->description.family, "mixtral");
  EXPECT_FALSE(family.instances.empty());
  EXPECT_TRUE(runs(family, "golden.Fixtures/Golden.AgreesWithTheReference/mixtral"));
  EXPECT_FALSE(runs(family, "golden.Fixtures/Golden.AgreesWithTheReference/gpt2"));

  EXPECT_GT(share(by({"src/ops/ops.cpp"})), 0.99);
  EXPECT_EQ(share(by({"backends/cpu/ops_linear.cpp"})), 1);
  EXPECT_EQ(share(by({"CMakeLists.txt"})), 1);
}

TEST_F(Changed, TextAndDocumentsTouchNoModule) {
  const Selection text = by({"src/text/decoder.cpp"});
  EXPECT_TRUE(text.instances.empty());
  EXPECT_TRUE(
      std::ranges::any_of(text.cases, [](const SelectedCase& c) { return c.name.starts_with("text."); }));
  const Selection docs = by({"docs/testing.md"});
  EXPECT_TRUE(docs.instances.empty());
  for (const SelectedCase& c : docs.cases) EXPECT_TRUE(c.name.starts_with("arch.")) << c.name;
  const Selection fixture = by({"tests/golden/fixtures/gpt2.json"});
  EXPECT_TRUE(runs(fixture, "golden.Fixtures/Golden.AgreesWithTheReference/gpt2"));
  EXPECT_FALSE(runs(fixture, "golden.Fixtures/Golden.AgreesWithTheReference/llama"));
  for (const SelectedInstance& s : fixture.instances) EXPECT_EQ(s.network->name, "gpt2");
  const Selection test = by({"tests/testing/registry_test.cpp"});
  EXPECT_TRUE(test.instances.empty());
  EXPECT_TRUE(runs(test, "testing.Registry.KnowsAHundredArchitectures"));
  EXPECT_FALSE(runs(test, "testing.Changed.TheBuildKnowsItsSources"));
}

TEST(Cases, BecomeAPatternForCtest) {
  EXPECT_EQ(ctest_pattern({}), "");
  EXPECT_EQ(ctest_pattern({{"a.B/C.d/e", ""}, {"f(g)", ""}}), "^(a\\.B/C\\.d/e|f\\(g\\))$");
}

}  // namespace

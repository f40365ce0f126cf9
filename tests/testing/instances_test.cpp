// Module kinds and instances: what counts as the same, and what a network consists of.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "ttt/testing/instances.h"

namespace {

using ttt::AttentionSpec;
using ttt::MlpSpec;
using ttt::ModelSpec;
using ttt::testing::module_instances;
using ttt::testing::ModuleInstance;

ModelSpec plain(int layers = 3) {
  ModelSpec m{.vocab = 1000, .dim = 64, .max_positions = 128};
  const AttentionSpec attention{.heads = 4, .kv_heads = 2, .head_dim = 16, .rope = ttt::RopeSpec{}};
  m.layers.assign(static_cast<std::size_t>(layers), {.mixer = attention, .ffn = MlpSpec{.hidden = 160}});
  return m;
}

std::set<std::string> kinds(const ModelSpec& spec) {
  std::set<std::string> all;
  for (const ModuleInstance& i : module_instances(spec, ttt::make_target(ttt::hw::n150(), "performance")))
    all.insert(i.kind.key());
  return all;
}
std::set<std::string> keys(const ModelSpec& spec, const ttt::Target& target) {
  std::set<std::string> all;
  for (const ModuleInstance& i : module_instances(spec, target)) all.insert(i.key());
  return all;
}

TEST(ModuleInstances, OfAPlainDecoder) {
  EXPECT_EQ(kinds(plain()), (std::set<std::string>{"embedding", "block[pre_norm]", "norm", "attention[rope]",
                                                   "rope", "mlp", "lm_head"}));
  const auto all = module_instances(plain(), ttt::make_target(ttt::hw::n150(), "performance"));
  ASSERT_EQ(all.size(), 14u);  // each in prefill and decode
  std::size_t modules = 0;
  for (const ModuleInstance& i : all) modules += i.mode == ttt::Mode::prefill ? i.count : 0;
  EXPECT_EQ(modules, 1u + 3 * (1 + 2 + 1 + 1 + 1) + 1 + 1);
  const auto attention =
      std::ranges::find_if(all, [](const ModuleInstance& i) { return i.kind.module == "attention"; });
  EXPECT_EQ(attention->count, 3u);
  EXPECT_EQ(attention->path, "layers.0.attn");
  EXPECT_EQ(attention->layer, 0);
  EXPECT_EQ(attention->key(),
            "attention[rope]/dim=64,head_dim=16,heads=4,kv_heads=2/"
            "activations=bf16,kv=bfp8_b,o=bfp8_b,qkv=bfp8_b/prefill/n150");
}

TEST(ModuleInstances, LayersOfOneShapeAreOne) {
  const auto target = ttt::make_target(ttt::hw::n150(), "bf16");
  EXPECT_EQ(keys(plain(3), target), keys(plain(40), target));
}

TEST(ModuleInstances, NumbersThatOnlyEnterAreNoKnobs) {
  ModelSpec other = plain();
  other.norm.eps = 1e-6f;
  for (ttt::LayerSpec& layer : other.layers) std::get<AttentionSpec>(layer.mixer).rope->theta = 5e5f;
  const auto target = ttt::make_target(ttt::hw::n150(), "bf16");
  EXPECT_EQ(keys(other, target), keys(plain(), target));
}

TEST(ModuleInstances, AKnobMakesAKindAndASizeAnInstance) {
  ModelSpec windowed = plain();
  std::get<AttentionSpec>(windowed.layers[1].mixer).window = 32;
  EXPECT_TRUE(kinds(windowed).contains("attention[rope,window]"));
  EXPECT_TRUE(kinds(windowed).contains("attention[rope]"));
  ModelSpec wide = plain();
  std::get<MlpSpec>(wide.layers[2].ffn).hidden = 320;
  EXPECT_EQ(kinds(wide), kinds(plain()));
  const auto target = ttt::make_target(ttt::hw::n150(), "bf16");
  EXPECT_EQ(keys(wide, target).size(), keys(plain(), target).size() + 2);
}

TEST(ModuleInstances, PartsThatAreModulesAreKindsOfTheirOwn) {
  ModelSpec m = plain();
  auto& attention = std::get<AttentionSpec>(m.layers[0].mixer);
  attention.qk_norm = ttt::QkNorm::per_head;
  attention.rope->scaling = {.kind = ttt::RopeScalingKind::yarn, .factor = 4, .original_max_positions = 64};
  m.layers[1].ffn = ttt::MoeSpec{.experts = 8,
                                 .top_k = 2,
                                 .hidden = 32,
                                 .router = {.score = ttt::RouterScore::sigmoid, .renormalize = true},
                                 .shared = MlpSpec{.hidden = 32}};
  const std::set<std::string> found = kinds(m);
  for (const char* kind : {"attention[qk_norm=per_head,rope]", "rope[scaling=yarn]", "moe[shared]", "mlp",
                           "router[renormalize,score=sigmoid]"})
    EXPECT_TRUE(found.contains(kind)) << kind;
}

TEST(ModuleInstances, EveryPlatformFormatAndRowCounts) {
  const ModelSpec m = plain();
  const auto n150 = ttt::make_target(ttt::hw::n150(), "bf16");
  const auto t3k = ttt::make_target(ttt::hw::t3k(), "bf16", {1, 8});
  const auto bfp8 = ttt::make_target(ttt::hw::n150(), "bfp8_b");
  for (const std::string& key : keys(m, n150)) {
    EXPECT_FALSE(keys(m, t3k).contains(key)) << key;
    EXPECT_TRUE(key.ends_with("/n150")) << key;
  }
  EXPECT_NE(keys(m, bfp8), keys(m, n150));
  // A row for one layer splits the instance that it belongs to.
  ttt::Target row = n150;
  row.rows.push_back(
      {.module = "layers.[-1:].ffn.down", .field = "weights", .value = "bfp8_b", .origin = "test"});
  EXPECT_EQ(keys(m, row).size(), keys(m, n150).size() + 2);
}

TEST(ModuleInstances, OfMixersAndBlocksOfAModelsOwn) {
  ModelSpec m = plain();
  m.layers[0].mixer = ttt::SsdSpec{.heads = 8, .head_dim = 16, .state = 16};
  m.layers[1].mixer = ttt::CustomSpec{.name = "mix",
                                      .parameters = R"({"groups": 4, "gated": true, "eps": 0.1})",
                                      .weights = {{.name = "in", .rows = 64, .cols = 64}}};
  m.layers[2].ffn = ttt::Absent{};
  const std::set<std::string> found = kinds(m);
  for (const char* kind : {"ssd", "custom.mix[gated,groups]", "block[no_ffn,pre_norm]"})
    EXPECT_TRUE(found.contains(kind)) << kind;
}

}  // namespace
